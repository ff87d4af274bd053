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

/// Is told when a backend has a place for one more connection.
pub(crate) trait PlaceFreed: fmt::Debug + Send + Sync {
    /// A place has come free.
    fn freed(&self);
}

/// A backend's counters and close signal, shared by every table entry and every connection of the backend.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) pool: PoolName,
    pub(crate) name: BackendName,
    pub(crate) counters: Counters,
    /// Grows by [`STEP`] each time connections are closed; the low bits say why the last time.
    ///
    /// A connection belongs to the epoch of the table entry that it was picked from. Storing the epoch in the table
    /// closes the race between a pick from an old table and the signal: that connection carries the old epoch and
    /// sees, whenever it first looks, that the backend's is another one.
    epoch: AtomicU32,
    /// Told when a connect of a client fails, so that the backend is checked soon.
    doubted: Notify,
    /// Where clients' connects have failed since somebody asked.
    failed: Mutex<Vec<IpAddr>>,
    /// Where clients of the pool wait for a place; told when one comes free here.
    pub(crate) queue: Arc<dyn PlaceFreed>,
    tenure: AtomicU64,
}

/// The next tenure of any backend of this process.
fn next_tenure() -> u64 {
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

impl Live {
    /// Of a backend whose pool's clients wait in `queue`.
    pub(crate) fn new(pool: PoolName, name: BackendName, queue: Arc<dyn PlaceFreed>) -> Self {
        Self {
            pool,
            name,
            counters: Counters::default(),
            epoch: AtomicU32::new(0),
            doubted: Notify::new(),
            failed: Mutex::default(),
            queue,
            tenure: AtomicU64::new(next_tenure()),
        }
    }

    /// It has not served a client, and may be down.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// A client's connect to one of its addresses has failed.
    pub(crate) fn connect_failed(&self, ip: IpAddr) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody may ask for long.
        if failed.len() < CANDIDATES_MAX && !failed.contains(&ip) {
            failed.push(ip);
        }
        drop(failed);
        self.doubt();
    }

    /// Waits until it is in doubt, and says at which addresses connects have failed since this ended the last time.
    pub(crate) async fn doubted(&self) -> Vec<IpAddr> {
        self.doubted.notified().await;
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What clients are remembered with: another number after each time that the backend went down, so that nobody
    /// comes back to it for the sake of what was before.
    pub(crate) fn tenure(&self) -> u64 {
        self.tenure.load(Ordering::Relaxed)
    }

    /// The backend went down.
    pub(crate) fn fell(&self) {
        self.tenure.store(next_tenure(), Ordering::Relaxed);
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

    impl PlaceFreed for Nobody {
        fn freed(&self) {}
    }

    fn live() -> Live {
        Live::new(PoolName::parse("p").unwrap(), BackendName::parse("b").unwrap(), Arc::new(Nobody))
    }

    #[test]
    fn a_connection_of_an_earlier_epoch_learns_why_it_ends() {
        let live = live();
        assert_eq!(live.closed(0), None);
        let epoch = next_epoch(0, CloseReason::Drained);
        live.begin(epoch);
        assert_eq!(live.closed(0), Some(CloseReason::Drained));
        assert_eq!(live.closed(epoch), None);
        live.begin(next_epoch(epoch, CloseReason::Drained));
        assert_eq!(live.closed(epoch), Some(CloseReason::Drained));
    }

    #[test]
    fn a_connection_of_a_later_epoch_stays() {
        let live = live();
        let mut epoch = 0u32.wrapping_sub(STEP);
        live.begin(epoch);
        // Also where the numbers begin anew.
        for _ in 0..3 {
            let later = next_epoch(epoch, CloseReason::BackendDown);
            assert_eq!(live.closed(later), None);
            live.begin(later);
            assert_eq!(live.closed(later), None);
            assert_eq!(live.closed(epoch), Some(CloseReason::BackendDown));
            epoch = later;
        }
    }
}
