//! Whether a pool can serve its clients, as this member sees it.

use std::sync::Arc;

use trestle_engine::Verdict;
use trestle_model::AdminState;

use crate::table::Table;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Pool;

/// How many backends a pool has, and how many of them clients can be led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolCondition {
    /// Its backends.
    pub backends: usize,
    /// Those of them that the operator has neither drained nor disabled, nor given the weight 0.
    pub enabled: usize,
    /// Those of the enabled ones that are unhealthy, or whose name has no address.
    pub unhealthy: usize,
    /// Those of the unhealthy ones whose name has no address.
    pub unresolved: usize,
    /// The pool's `minimum_healthy`.
    pub minimum: usize,
}

impl PoolCondition {
    /// The enabled backends that are not unhealthy.
    pub fn left(&self) -> usize {
        self.enabled.saturating_sub(self.unhealthy)
    }

    /// Whether fewer backends are left than the pool wants at least.
    pub fn is_down(&self) -> bool {
        self.left() < self.minimum
    }
}

fn is_enabled(backend: &Backend) -> bool {
    backend.config.admin_state == AdminState::Enabled && backend.config.spec.weight > 0
}

impl Table {
    /// The enabled backends of a pool that no client is led to, because they are unhealthy or their name has no address.
    pub fn unhealthy<'p>(&self, pool: &'p Pool) -> impl Iterator<Item = &'p Arc<Backend>> {
        let enabled = pool.backends.iter().filter(|backend| is_enabled(backend));
        enabled.filter(|backend| self.verdict(backend) == Verdict::Unhealthy || backend.ip.is_none())
    }

    /// The condition of a pool.
    pub fn condition(&self, pool: &Pool) -> PoolCondition {
        PoolCondition {
            backends: pool.backends.len(),
            enabled: pool.backends.iter().filter(|backend| is_enabled(backend)).count(),
            unhealthy: self.unhealthy(pool).count(),
            unresolved: self.unhealthy(pool).filter(|backend| backend.ip.is_none()).count(),
            minimum: pool.config.spec.minimum_healthy as usize,
        }
    }
}
