//! What the log's writer was given and has done, so that others see when it hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use super::writer::WriteRequest;

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

    fn work(&self) -> LogWork {
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

/// Asks the writer for a sign of life.
#[derive(Debug, Clone)]
pub(crate) struct LogProbe {
    pub(super) backlog: Arc<Backlog>,
    pub(super) writer: Sender<WriteRequest>,
}

impl LogProbe {
    /// What the writer was given and has done.
    pub(crate) fn work(&self) -> LogWork {
        self.backlog.work()
    }

    /// Gives the writer a request that takes no write.
    pub(crate) fn touch(&self) {
        self.backlog.give();
        // A writer that has ended is noticed by those who wait for a write.
        let _ = self.writer.send(WriteRequest::Touch);
    }
}
