//! The queue into the maintenance thread, and what wakes it.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

use super::held_address::AddressRequest;
use crate::error::VipError;

/// What the thread is told.
pub(crate) enum MaintenanceCommand {
    /// Put an address in place and keep it there.
    Keep(AddressRequest, SyncSender<Result<(), VipError>>),
    /// Remove an address that is silent already, then its fence. Without anybody to reply to, a failure is an event.
    Drop(IpAddr, Option<SyncSender<Result<(), VipError>>>),
    /// Put an address back that is missing. Whether that worked is an event.
    Restore(IpAddr),
    /// Send one announcement.
    Announce(IpAddr),
    /// Its lease ran out.
    Lapsed(IpAddr),
    /// Its lease runs again.
    Resumed(IpAddr),
    /// The tables of the fence were put back: what was found.
    FenceRebuilt(String),
    /// The fence could not be renewed, or not be put back.
    FenceFailed(String),
    /// That is over.
    FenceHolds,
    /// Something that a member that is gone left was removed.
    LeftoverRemoved(String),
    /// The machine slept.
    Slept,
    /// End.
    Stop,
}

/// Sends notes; never waits.
#[derive(Clone)]
pub(crate) struct CommandQueue {
    queue: Sender<MaintenanceCommand>,
    wake: Arc<OwnedFd>,
}

impl CommandQueue {
    /// Whether there is still somebody to read it.
    pub(crate) fn send(&self, note: MaintenanceCommand) -> bool {
        let sent = self.queue.send(note).is_ok();
        // Refused only when it is awake already.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
        sent
    }
}

/// Ends the wait of the maintenance thread.
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Takes note of all wake-ups so far.
    pub(super) fn rest(&self) {
        let _ = read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A queue and its two ends.
pub(crate) fn command_queue() -> rustix::io::Result<(CommandQueue, Receiver<MaintenanceCommand>, Waker)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (queue, received) = channel();
    Ok((CommandQueue { queue, wake: Arc::clone(&wake) }, received, Waker(wake)))
}
