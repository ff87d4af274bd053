//! The state of a pool and of each of its backends on this member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use trestle_engine::{DrainState, Failback, Outage, Schedule, Verdict};
use trestle_model::{self as model, BackendName, OnDown, PoolEntry, PoolName};

use super::endings::Ending;
use super::schedule::{PoolRuntime, candidate};
use crate::check::CheckPlan;
use crate::check::command::CheckId;
use crate::observe::check_result::CheckResult;
use crate::observe::close_reason::CloseReason;
use crate::observe::history::VerdictHistory;
use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::{BackendRuntime, next_epoch};
use crate::upstream::queue::Queue;

/// A backend with its state on this member.
pub(super) struct TrackedBackend {
    pub(super) entry: Arc<Backend>,
    pub(super) drain_state: DrainState,
    /// How the backend's connections end, if they are to end.
    pub(super) ending: Option<Ending>,
    pub(super) check: Option<CheckId>,
    /// Decides on the backend's connections while it is down.
    pub(super) outage: Outage,
    /// Decides on the backend's connections if it is a backup.
    failback: Failback,
    /// Whether it was told last that its name has no address.
    pub(super) unresolved: bool,
}

impl TrackedBackend {
    /// A backend of which nothing is known yet, whose clients wait in `queue`.
    pub(super) fn new(pool: &PoolName, wanted: &Arc<model::Backend>, queue: &Arc<Queue>) -> Self {
        Self {
            entry: Arc::new(Backend {
                config: wanted.clone(),
                verdict: Verdict::Unknown,
                reason: CheckResult::Awaited,
                reason_ip: None,
                unchecked: None,
                since: Instant::now(),
                ip: None,
                addresses: Arc::default(),
                history: VerdictHistory::default(),
                risen: None,
                drain_ends: None,
                runtime: Arc::new(BackendRuntime::new(pool.clone(), wanted.name.clone(), queue.clone())),
                epoch: 0,
            }),
            drain_state: DrainState::default(),
            ending: None,
            check: None,
            outage: Outage::default(),
            failback: Failback::default(),
            unresolved: false,
        }
    }
}

/// A pool, its backends, how they are checked, and what outlives its table entries.
pub(super) struct TrackedPool {
    pub(super) config: Arc<PoolEntry>,
    pub(super) plan: Arc<CheckPlan>,
    pub(super) backends: BTreeMap<BackendName, TrackedBackend>,
    pub(super) pool_runtime: PoolRuntime,
    /// Whether the last event of the pool said that it is down.
    pub(super) down: bool,
}

impl TrackedPool {
    /// Closes the connections that are left on backends that are down, where clients are sent to better ones, and on backups,
    /// where clients are sent to primaries.
    pub(super) fn close_left(&mut self, signals: &mut Vec<(Arc<BackendRuntime>, u32)>) {
        let spec = &self.config.pool.spec;
        let candidates = || self.backends.values().map(|b| candidate(&b.entry));
        let elsewhere = Schedule::elsewhere(spec, candidates());
        let primaries = Schedule::leads_to_primaries(spec, candidates());
        for state in self.backends.values_mut() {
            let is_backup = state.entry.config.spec.backup;
            let is_down = state.outage.closes(elsewhere) && spec.on_down == OnDown::Close;
            let is_spare = state.failback.closes(is_backup, primaries, spec.on_primary_up);
            let reason = match (is_down, is_spare) {
                (true, _) => CloseReason::BackendDown,
                (_, true) => CloseReason::PrimaryUp,
                (false, false) => continue,
            };
            let connections = state.entry.runtime.counters.active();
            if reason == CloseReason::PrimaryUp && connections > 0 {
                let (pool, backend) = (&state.entry.runtime.pool, &state.entry.config.name);
                tracing::info!(%pool, %backend, connections, "a primary is usable: its backup's connections are reset");
            }
            close(signals, Arc::make_mut(&mut state.entry), reason);
        }
    }
}

/// Begins an epoch, which closes the connections of earlier ones, and adds it to `signals`.
pub(super) fn close(signals: &mut Vec<(Arc<BackendRuntime>, u32)>, entry: &mut Backend, reason: CloseReason) {
    entry.epoch = next_epoch(entry.epoch, reason);
    signals.push((entry.runtime.clone(), entry.epoch));
}
