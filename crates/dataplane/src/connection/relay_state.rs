//! What all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::accept::client_counts::ClientCounts;
use crate::machine::budget::Budget;
use crate::machine::shortage::Shortages;
use crate::observe::access_log::AccessLogQueue;
use crate::observe::close_reason::CloseReason;
use crate::table::Table;
use crate::upstream::source::Sources;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct RelayState {
    /// The table that new connections go by, read without a lock.
    pub(crate) table: ArcSwap<Table>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clients: ClientCounts,
    pub(crate) source: Sources,
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) access_log: Option<Arc<AccessLogQueue>>,
    /// Connections that are open on all workers.
    open: AtomicUsize,
    /// Connections that ended because this member stopped.
    cut: AtomicUsize,
    /// Number of the last connection.
    last: AtomicU64,
    all_ended: Notify,
}

impl RelayState {
    /// Of workers that go by `table` until another is published, and connect from `source`. They may have so many `descriptors`;
    /// `None` is no bound.
    pub(crate) fn new(
        table: Arc<Table>,
        source: Sources,
        descriptors: Option<usize>,
        shortages: Arc<Shortages>,
        access_log: Option<Arc<AccessLogQueue>>,
    ) -> Self {
        Self {
            table: ArcSwap::new(table),
            budget: Arc::new(Budget::new(descriptors)),
            clients: ClientCounts::default(),
            source,
            shortages,
            access_log,
            open: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            all_ended: Notify::new(),
        }
    }

    /// Counts a connection, and gives it its number.
    pub(crate) fn opened(&self) -> u64 {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A connection has ended for this reason.
    pub(crate) fn ended(&self, reason: CloseReason) {
        if reason == CloseReason::MemberShutdown {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_ended.notify_waiters();
        }
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Connections that ended because this member stopped since this was last asked.
    pub(crate) fn take_cut(&self) -> usize {
        self.cut.swap(0, Ordering::Relaxed)
    }

    /// Waits until no connection is open.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.all_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The state of workers without listeners, limits and log.
    pub(crate) fn state() -> Arc<RelayState> {
        Arc::new(RelayState::new(Arc::default(), Sources::default(), None, Arc::default(), None))
    }
}
