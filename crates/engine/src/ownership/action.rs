//! What the machine wants done.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::MemberId;

use super::fitness::Fault;
use super::vip::ServedVip;

/// Something to do, in the order given. Actions that fail are wanted again after a while, so none needs a retry of its
/// own. Every `until` is a moment on the clock that was passed in, at which the fence must have shut by itself, up to the
/// fence error; README.md says how to arm a kernel that only knows durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnershipAction {
    /// Propose the tenure `{me, term, reach, released: false}`. It must be appended by this member as the leader of `term`,
    /// or not at all: never forward it.
    ProposeTake {
        /// The term.
        term: u64,
        /// This member's [`super::LeaseTiming::reach`].
        reach: Duration,
    },
    /// Open the fence of a VIP, then add its address.
    Claim {
        /// The VIP.
        address: IpAddr,
        /// How it is configured.
        vip: Arc<ServedVip>,
        /// When the fence shuts by itself.
        until: Duration,
    },
    /// Let the fence shut later than was said before, provided that it is still open.
    Renew {
        /// The VIP.
        address: IpAddr,
        /// When the fence shuts by itself.
        until: Duration,
    },
    /// Take no new connections on any VIP that is held, until this moment at the latest; go on serving those that are
    /// there. Worth a try, and not wanted again: where it fails, the last ones may fail too.
    Quiesce {
        /// When they are taken again, if the VIPs are still held.
        until: Duration,
    },
    /// Shut the fence of a VIP, then remove its address from this interface; then tell [`super::OwnershipEvent::Kernel`].
    Release {
        /// The VIP.
        address: IpAddr,
        /// The interface that it is on.
        interface: Arc<str>,
    },
    /// The kernel lost the address or the fence of a VIP, or would not take them: as [`OwnershipAction::Claim`], of whatever is
    /// missing.
    Repair {
        /// The VIP.
        address: IpAddr,
        /// How it is configured.
        vip: Arc<ServedVip>,
        /// When the fence shuts by itself.
        until: Duration,
    },
    /// Send one announcement: gratuitous ARP as request and as reply, or an unsolicited neighbour advertisement. Nothing else
    /// announces a VIP.
    Announce {
        /// The VIP.
        address: IpAddr,
    },
    /// Propose to mark this member's tenure of `term` released; ignored when another tenure came after it.
    ProposeRelease {
        /// The term.
        term: u64,
        /// Why, for the history.
        cause: Cause,
    },
    /// Hand leadership over. If that fails, another target is named after a while.
    TransferLeadership {
        /// To whom.
        to: MemberId,
    },
    /// Tell [`super::OwnershipEvent::Tick`] at this moment, unless another event comes first.
    WakeAt(Duration),
}

/// Why a leader lets go of the VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The operator moves them.
    Operator,
    /// A better member is there.
    Preference,
    /// This member is unfit.
    Unfit(Fault),
    /// The process ends.
    Stopping,
    /// Raft hands leadership over by itself.
    RaftTransfer,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Operator => f.write_str("the operator moved it"),
            Cause::Preference => f.write_str("a preferred member is there"),
            Cause::Unfit(fault) => write!(f, "the holder was unfit: {fault}"),
            Cause::Stopping => f.write_str("the holder was stopped"),
            Cause::RaftTransfer => f.write_str("leadership was handed over"),
        }
    }
}
