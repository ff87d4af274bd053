//! A vote guard that a test can close, and that records what it was asked and told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::VoteGuard;

#[derive(Default)]
pub(super) struct TestVoteGuard {
    closed: AtomicBool,
    asked: Mutex<Vec<u64>>,
    told: Mutex<Vec<(u64, bool)>>,
}

impl TestVoteGuard {
    pub(super) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn told(&self) -> Vec<(u64, bool)> {
        self.told.lock().unwrap().clone()
    }
}

impl VoteGuard for TestVoteGuard {
    fn may_vote(&self, term: u64) -> bool {
        self.asked.lock().unwrap().push(term);
        !self.closed.load(Ordering::SeqCst)
    }

    fn voted(&self, term: u64, granted: bool) {
        self.told.lock().unwrap().push((term, granted));
    }
}
