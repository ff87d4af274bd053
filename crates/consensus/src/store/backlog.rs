//! What the log's writer was given and has done, so that others see when it hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Requests to the thread that writes the log, since it began. It hangs, or its disk does, when it is given more than it has done and
/// does no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogWork {
    /// Those that it was given.
    pub given: u64,
    /// Those that it is done with, whatever came of them.
    pub done: u64,
    /// It has ended, and does no more.
    pub ended: bool,
}

/// Both counts, without a lock: each request counts here.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    given: AtomicU64,
    done: AtomicU64,
    ended: AtomicBool,
}

impl Backlog {
    pub(super) fn give(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn finish(&self, requests: usize) {
        self.done.fetch_add(requests as u64, Ordering::Relaxed);
    }

    pub(super) fn work(&self) -> LogWork {
        // Done first: what is done was given before.
        let done = self.done.load(Ordering::Relaxed);
        let ended = self.ended.load(Ordering::Relaxed);
        LogWork { given: self.given.load(Ordering::Relaxed), done, ended }
    }
}

/// Notes the end of the writer, however it comes about.
pub(super) struct UntilEnd(pub(super) Arc<Backlog>);

impl Drop for UntilEnd {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}
