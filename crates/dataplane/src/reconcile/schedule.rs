//! What a pool's table entry is made of, and what of a pool outlives its entries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::{Candidate, Schedule, SlowStartRamp};
use trestle_model as model;

use crate::upstream::backend::Backend;
use crate::upstream::pool::{Pool, RoundRobinCursor};
use crate::upstream::queue::Queue;
use crate::upstream::stickiness::{PoolStickiness, StickyTable};

/// What goes on across a pool's table entries: whose turn it is, who waits, who is remembered.
#[derive(Debug)]
pub(super) struct PoolRuntime {
    cursor: Arc<RoundRobinCursor>,
    pub(super) queue: Arc<Queue>,
    memory: Option<Arc<StickyTable>>,
}

impl PoolRuntime {
    /// Of a new pool, whose turns begin at `first`.
    pub(super) fn new(first: u64) -> Self {
        Self { cursor: Arc::new(RoundRobinCursor::new(first)), queue: Arc::default(), memory: None }
    }

    /// So many pools remember their clients now.
    pub(super) fn share(&self, remembering: usize) {
        if let Some(memory) = &self.memory {
            memory.share(remembering);
        }
    }

    /// The pool's next entry, and how long it holds where shares are growing. `before` is the schedule that it replaces, and
    /// `remembering` the number of pools that remember their clients.
    pub(super) fn entry(
        &mut self,
        pool: &Arc<model::Pool>,
        remembering: usize,
        backends: Vec<Arc<Backend>>,
        before: Option<&Schedule>,
    ) -> (Pool, Option<Duration>) {
        let now = Instant::now();
        let mut holds: Option<Duration> = None;
        let candidates = backends.iter().map(|b| {
            let (ramp, next) = ramp(b, pool.spec.slow_start, now);
            holds = [holds, next].into_iter().flatten().min();
            Candidate { ramp, ..candidate(b) }
        });
        let schedule = Schedule::build(&pool.spec, candidates, before);
        let sticky = self.sticky(pool.spec.stickiness, remembering, &backends);
        let (cursor, queue) = (self.cursor.clone(), self.queue.clone());
        (Pool { config: pool.clone(), backends, schedule, cursor, queue, sticky }, holds)
    }

    /// A pool that is told to remember nobody forgets everybody.
    fn sticky(
        &mut self,
        keep: Duration,
        remembering: usize,
        backends: &[Arc<Backend>],
    ) -> Option<PoolStickiness> {
        if keep.is_zero() {
            self.memory = None;
            return None;
        }
        let memory = self.memory.get_or_insert_with(|| Arc::new(StickyTable::new(remembering))).clone();
        let mut positions: Vec<_> = backends.iter().map(|b| b.runtime.generation()).zip(0..).collect();
        positions.sort_unstable();
        Some(PoolStickiness { memory, keep, positions })
    }
}

/// A backend as pools are scheduled by it, at its full weight.
pub(super) fn candidate(backend: &Backend) -> Candidate<'_> {
    Candidate { resolved: backend.ip.is_some(), ..Candidate::new(&backend.config, backend.verdict) }
}

/// How warm a backend is, and for how long. As in HAProxy only one that was down, drained or disabled is cold: not one that
/// is new, since then all would be when a member starts.
fn ramp(backend: &Backend, slow_start: Duration, now: Instant) -> (SlowStartRamp, Option<Duration>) {
    match backend.risen {
        Some(risen) => SlowStartRamp::at(now.saturating_duration_since(risen), slow_start),
        None => (SlowStartRamp::FULL, None),
    }
}
