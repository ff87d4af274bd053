//! What the owner is told.

use std::sync::Arc;

use trestle_engine::ownership::OwnershipEvent;
use trestle_model::{ClusterState, MemberId};

/// Something that the owner is told, in the order in which it happened.
pub(super) enum VipCommand {
    /// An event for the machine.
    Event(OwnershipEvent),
    /// This member has an identity now, or a different one than before.
    Begin(MemberId),
    /// This member was removed: release everything and leave nothing in the kernel.
    Withdraw,
    /// The configuration.
    State(Arc<ClusterState>),
    /// Something happened in the kernel.
    Kernel(trestle_vip::KernelEvent),
    /// Release everything and end.
    End,
}
