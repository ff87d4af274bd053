//! What the thread that renews fences is told.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use crate::atomic_instant::AtomicInstant;
use crate::error::VipError;
use crate::lease::Lease;

/// What the thread is told to do.
pub(crate) enum LeaseCommand {
    /// Fence an address and open the fence for its lease.
    Open(FenceRequest, SyncSender<Result<(), VipError>>),
    /// Keep new connections out of everything that is held, until then.
    Quiesce(Instant, SyncSender<Result<(), VipError>>),
    /// Close the fence of an address at once and renew it no more.
    Shut(IpAddr, SyncSender<Result<(), VipError>>),
    /// Take the fence of a closed address away, unless it has been opened again since.
    Forget(IpAddr),
    /// The interface of an address came back as another: fence announcements there.
    Moved(IpAddr, u32, String),
    /// An interface is gone: announcements there need no fence.
    Gone(u32),
    /// Look whether the kernel has the fence as it should be, and put it back if not.
    Check,
    /// Remove all tables and end. Only when nothing is held.
    Stop,
}

/// What is to be opened.
pub(crate) struct FenceRequest {
    pub(crate) address: IpAddr,
    pub(crate) index: u32,
    pub(crate) interface: String,
    pub(crate) lease: Lease,
    /// Shows until when the fence is open.
    pub(crate) shown: Arc<AtomicInstant>,
}
