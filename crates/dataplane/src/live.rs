//! What belongs to a backend and outlives the tables that it appears in: its counters and the signal that closes its
//! connections.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::counters::Counters;
use crate::reason::CloseReason;

/// A backend's counters and close signal, shared by every table entry and every connection of the backend.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) counters: Counters,
    /// Grows by [`STEP`] each time connections are closed; the low bits say why the last time.
    ///
    /// A connection belongs to the epoch of the table entry that it was picked from. Storing the epoch in the table
    /// closes the race between a pick from an old table and the signal: that connection carries the old epoch and
    /// sees, whenever it first looks, that the backend's is another one.
    epoch: AtomicU32,
    pub(crate) changed: Notify,
    /// Told when a connect of a client fails, so that the backend is checked soon.
    pub(crate) doubted: Notify,
}

/// The low bits of an epoch hold a [`CloseReason`].
const STEP: u32 = 1 << 4;

const _: () = assert!(CloseReason::ALL.len() <= STEP as usize);

/// The epoch after `epoch`, in which connections of the earlier ones are closed for `reason`.
pub(crate) fn next_epoch(epoch: u32, reason: CloseReason) -> u32 {
    (epoch & !(STEP - 1)).wrapping_add(STEP) | reason as u32
}

impl Live {
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

    /// Begins an epoch and wakes the connections of the earlier ones, which close.
    pub(crate) fn begin(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_an_earlier_epoch_learns_why_it_ends() {
        let live = Live::default();
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
        let live = Live::default();
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
