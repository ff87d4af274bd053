//! How long the thread that writes the log has been at the same piece of work.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use trestle_consensus::LogWork;

/// Time between two looks.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What is seen of the log's writer from one look to the next. Time is counted in looks, because a process that was stopped as a
/// whole made none.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// What it had done at the last look.
    done: AtomicU64,
    /// Looks in a row that found it at the same piece of work.
    looks: AtomicU32,
}

impl Stall {
    /// Looks once.
    pub(super) fn look(&self, work: Option<LogWork>) {
        let stands = work
            .is_some_and(|work| self.done.swap(work.done, Relaxed) == work.done && work.given > work.done);
        self.looks.store(if stands { self.looks.load(Relaxed).saturating_add(1) } else { 0 }, Relaxed);
    }

    fn lasts(&self) -> Duration {
        POLL_INTERVAL * self.looks.load(Relaxed)
    }

    /// How long the writer has been at the same work, if that is more than `patience`.
    pub(super) fn over(&self, patience: Duration) -> Option<Duration> {
        Some(self.lasts()).filter(|lasts| *lasts > patience)
    }
}

/// The words for a stall that is a fault.
pub(super) fn words(stall: Duration) -> String {
    format!("the thread that writes its log, or the disk, has hung for {} s", stall.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_hangs_that_is_at_the_same_work_for_longer_than_the_patience() {
        let stall = Stall::default();
        let patience = 3 * POLL_INTERVAL;
        let look = |given, done| {
            stall.look(Some(LogWork { given, done, ended: false }));
            stall.over(patience).is_some()
        };
        // Nothing to do, however long.
        assert!((0..9).all(|_| !look(7, 7)));
        assert!((0..3).all(|_| !look(8, 7)) && look(9, 7));
        assert_eq!(stall.lasts(), 4 * POLL_INTERVAL);
        // It goes on, though there is always something to do.
        assert!((8..99).all(|done| !look(100, done)));
        assert!((0..3).all(|_| !look(101, 98)) && look(101, 98));
        stall.look(None);
        assert_eq!(stall.lasts(), Duration::ZERO);
    }
}
