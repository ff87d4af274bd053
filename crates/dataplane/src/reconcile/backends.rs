//! What this member knows of a pool and of each of its backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::{Admission, Outage, Schedule, Verdict};
use trestle_model::{self as model, BackendName, OnDown, PoolEntry, PoolName};

use super::schedule::{Lasting, candidate};
use crate::history::History;
use crate::live::{Live, next_epoch};
use crate::probe::{CheckId, Plan};
use crate::queue::Queue;
use crate::reason::CloseReason;
use crate::table::{Backend, CheckResult};

/// A backend and all that this member knows of it.
pub(super) struct BackendState {
    pub(super) entry: Arc<Backend>,
    pub(super) admission: Admission,
    pub(super) deadline: Option<Duration>,
    pub(super) check: Option<CheckId>,
    /// What becomes of its connections while it is down.
    pub(super) outage: Outage,
}

impl BackendState {
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
                history: History::default(),
                risen: None,
                live: Arc::new(Live::new(pool.clone(), wanted.name.clone(), queue.clone())),
                epoch: 0,
            }),
            admission: Admission::default(),
            deadline: None,
            check: None,
            outage: Outage::default(),
        }
    }
}

/// A pool, its backends, how they are checked, and what outlives its table entries.
pub(super) struct PoolState {
    pub(super) config: Arc<PoolEntry>,
    pub(super) plan: Arc<Plan>,
    pub(super) backends: BTreeMap<BackendName, BackendState>,
    pub(super) lasting: Lasting,
}

impl PoolState {
    /// Closes what is left on backends that are down, where clients are led to better ones.
    pub(super) fn close_down(&mut self, signals: &mut Vec<(Arc<Live>, u32)>) {
        let spec = &self.config.pool.spec;
        let elsewhere = Schedule::elsewhere(spec, self.backends.values().map(|b| candidate(&b.entry)));
        for state in self.backends.values_mut() {
            if state.outage.closes(elsewhere) && spec.on_down == OnDown::Close {
                let mut entry = Backend::clone(&state.entry);
                close(signals, &mut entry, CloseReason::BackendDown);
                state.entry = Arc::new(entry);
            }
        }
    }
}

/// Begins an epoch, which closes the connections of those before; `signals` is told.
pub(super) fn close(signals: &mut Vec<(Arc<Live>, u32)>, entry: &mut Backend, reason: CloseReason) {
    entry.epoch = next_epoch(entry.epoch, reason);
    signals.push((entry.live.clone(), entry.epoch));
}
