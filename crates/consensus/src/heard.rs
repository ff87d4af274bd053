//! When this member last heard a leader that it believed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::timing::Timing;

/// A member's memory of its last leader. openraft has one of its own, which a transfer of leadership and a vote for
/// somebody else erase; this one is kept.
pub(crate) struct Heard {
    /// When the process had certainly started.
    since: Instant,
    timing: Timing,
    /// In nanoseconds after `since`; 0 while no leader was heard.
    last: AtomicU64,
}

impl Heard {
    pub(crate) fn new(since: Instant, timing: Timing) -> Self {
        Self { since, timing, last: AtomicU64::new(0) }
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes a sign of life of a leader that this member believes.
    pub(crate) fn note(&self) {
        self.last.fetch_max(self.nanos().max(1), Ordering::AcqRel);
    }

    fn within(&self, time: Duration) -> bool {
        let last = self.last.load(Ordering::Acquire);
        last > 0 && Duration::from_nanos(self.nanos().saturating_sub(last)) < time
    }

    /// Whether a leader was heard within the time after which a voter may give it up. Raft itself goes on to name the
    /// last leader for as long as it finds no other.
    pub(crate) fn lately(&self) -> bool {
        self.within(self.timing.patience())
    }

    /// Whether a leader may still count on this member not to help elect another, other than at its own wish.
    pub(crate) fn binds(&self) -> bool {
        self.within(self.timing.election_max)
    }
}
