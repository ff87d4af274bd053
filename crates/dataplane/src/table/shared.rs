//! What all threads of the data plane share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use trestle_model::ClusterState;

use super::Table;
use crate::accept::client_counts::ClientCounts;
use crate::machine::budget::Budget;
use crate::machine::shortage::Shortages;
use crate::machine::threads::ThreadEnds;
use crate::observe::access_log::AccessLogQueue;
use crate::observe::close_reason::CloseReason;
use crate::settings::Settings;
use crate::upstream::loop_guard::LoopGuard;
use crate::upstream::source::Sources;

/// What all threads share.
#[derive(Debug)]
pub(crate) struct SharedState {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clients: ClientCounts,
    pub(crate) source: Sources,
    pub(crate) shortages: Shortages,
    pub(crate) access_log: Option<AccessLogQueue>,
    /// Connections that are open on all workers.
    open: AtomicUsize,
    /// Connections that ended because this member stopped.
    cut: AtomicUsize,
    /// Number of the last connection.
    last: AtomicU64,
    all_ended: Notify,
}

impl SharedState {
    pub(crate) fn new(settings: &Settings, ended: &ThreadEnds) -> io::Result<Self> {
        // What this member knows by itself holds from the first check on.
        let loop_guard =
            LoopGuard::new(&ClusterState::default(), [], settings.data_address, &settings.targets());
        Ok(Self {
            table: ArcSwap::from_pointee(Table { loop_guard: Arc::new(loop_guard), ..Table::default() }),
            budget: Arc::new(Budget::new(settings.descriptors)),
            clients: ClientCounts::default(),
            source: settings.source.clone(),
            shortages: Shortages::default(),
            access_log: settings
                .access_log
                .clone()
                .map(|log| AccessLogQueue::start(log, ended))
                .transpose()?,
            open: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            all_ended: Notify::new(),
        })
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::tests::settings;

    pub(crate) fn shared() -> Arc<SharedState> {
        Arc::new(SharedState::new(&settings(), &ThreadEnds::default()).unwrap())
    }
}
