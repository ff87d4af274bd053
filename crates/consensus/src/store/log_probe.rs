//! Asking whether the thread that writes the log goes on.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::backlog::{Backlog, LogWork};
use super::writer::WriteRequest;

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
