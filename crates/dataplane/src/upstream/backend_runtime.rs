//! What belongs to a backend and outlives the tables that it appears in: its counters and the signal that closes its
//! connections.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use trestle_engine::CANDIDATES_MAX;
use trestle_model::{BackendName, PoolName};

use crate::observe::close_reason::CloseReason;
use crate::observe::counters::Counters;

/// Is told when a backend has a slot for one more connection.
pub(crate) trait SlotFreed: fmt::Debug + Send + Sync {
    /// A slot has come free.
    fn slot_freed(&self);
}

/// A backend's counters and close signal, shared by every table entry and every connection of the backend.
#[derive(Debug)]
pub(crate) struct BackendRuntime {
    pub(crate) pool: PoolName,
    pub(crate) name: BackendName,
    pub(crate) counters: Counters,
    /// Grows by [`STEP`] each time connections are closed; the low bits say why the last time.
    ///
    /// A connection belongs to the epoch of the table entry that it was picked from. Storing the epoch in the table
    /// closes the race between a pick from an old table and the signal: that connection carries the old epoch and
    /// sees, whenever it first looks, that the backend's is another one.
    epoch: AtomicU32,
    /// Notified when a client's connect fails, so that the backend is checked soon.
    recheck_requested: Notify,
    /// Where clients' connects have failed since the check last asked.
    failed: Mutex<Vec<IpAddr>>,
    /// Told when a slot comes free here.
    pub(crate) queue: Arc<dyn SlotFreed>,
    generation: AtomicU64,
}

/// The next generation of any backend of this process.
fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// The low bits of an epoch hold a [`CloseReason`].
const STEP: u32 = 1 << 6;

const _: () = assert!(CloseReason::ALL.len() <= STEP as usize);

/// The epoch after `epoch`, in which connections of the earlier ones are closed for `reason`.
pub(crate) fn next_epoch(epoch: u32, reason: CloseReason) -> u32 {
    (epoch & !(STEP - 1)).wrapping_add(STEP) | reason as u32
}

impl BackendRuntime {
    /// Of a backend whose pool's clients wait in `queue`.
    pub(crate) fn new(pool: PoolName, name: BackendName, queue: Arc<dyn SlotFreed>) -> Self {
        Self {
            pool,
            name,
            counters: Counters::default(),
            epoch: AtomicU32::new(0),
            recheck_requested: Notify::new(),
            failed: Mutex::default(),
            queue,
            generation: AtomicU64::new(next_generation()),
        }
    }

    /// Has the backend checked soon: it has not served a client, and may be down.
    pub(crate) fn request_recheck(&self) {
        self.recheck_requested.notify_one();
    }

    /// A client's connect to one of its addresses has failed.
    pub(crate) fn record_connect_failure(&self, ip: IpAddr) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        // The check may not ask for long.
        if failed.len() < CANDIDATES_MAX && !failed.contains(&ip) {
            failed.push(ip);
        }
        drop(failed);
        self.request_recheck();
    }

    /// Waits until a check is requested, and returns at which addresses connects have failed since this ended the last time.
    pub(crate) async fn recheck_requested(&self) -> Vec<IpAddr> {
        self.recheck_requested.notified().await;
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number that stickiness remembers clients with. It changes each time that the backend goes down, so that clients
    /// do not come back to it because of what was before.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The backend went down.
    pub(crate) fn went_down(&self) {
        self.generation.store(next_generation(), Ordering::Relaxed);
    }

    /// Why connections of `epoch` are to be closed, if they are. An epoch that the table has announced and that has not
    /// begun yet is the newer one, and its connections stay: a backend that was found unhealthy is still picked where
    /// the pool fails open.
    pub(crate) fn closed(&self, epoch: u32) -> Option<CloseReason> {
        let now = self.epoch.load(Ordering::Acquire);
        let behind = (now & !(STEP - 1)).wrapping_sub(epoch & !(STEP - 1));
        // Epochs wrap around; what is more than half a round behind is ahead.
        if behind == 0 || behind > u32::MAX / 2 {
            return None;
        }
        CloseReason::ALL.get((now & (STEP - 1)) as usize).copied()
    }

    /// Begins an epoch. Connections of the earlier ones close once they are woken, see [`crate::connection::connection_table::wake`].
    pub(crate) fn begin(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl SlotFreed for Nobody {
        fn slot_freed(&self) {}
    }

    fn runtime() -> BackendRuntime {
        BackendRuntime::new(PoolName::parse("p").unwrap(), BackendName::parse("b").unwrap(), Arc::new(Nobody))
    }

    #[test]
    fn a_connection_of_an_earlier_epoch_learns_why_it_ends() {
        let runtime = runtime();
        assert_eq!(runtime.closed(0), None);
        let epoch = next_epoch(0, CloseReason::Drained);
        runtime.begin(epoch);
        assert_eq!(runtime.closed(0), Some(CloseReason::Drained));
        assert_eq!(runtime.closed(epoch), None);
        runtime.begin(next_epoch(epoch, CloseReason::Drained));
        assert_eq!(runtime.closed(epoch), Some(CloseReason::Drained));
    }

    #[test]
    fn a_connection_of_a_later_epoch_stays() {
        let runtime = runtime();
        let mut epoch = 0u32.wrapping_sub(STEP);
        runtime.begin(epoch);
        // Also where the numbers begin anew.
        for _ in 0..3 {
            let later = next_epoch(epoch, CloseReason::BackendDown);
            assert_eq!(runtime.closed(later), None);
            runtime.begin(later);
            assert_eq!(runtime.closed(later), None);
            assert_eq!(runtime.closed(epoch), Some(CloseReason::BackendDown));
            epoch = later;
        }
    }
}
