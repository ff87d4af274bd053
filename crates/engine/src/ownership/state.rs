//! What the machine can say of itself.

use std::net::IpAddr;
use std::time::Duration;

use trestle_model::MemberId;

use super::action::Cause;

/// How far this member is with serving the VIPs, in one word for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnershipState {
    /// There is no VIP to serve, and none to let go of.
    Idle,
    /// Another member leads, or none.
    Following,
    /// Leads, and waits until it knows what was agreed before it led.
    CatchingUp,
    /// Leads, and waits until the tenure before has run out.
    WaitingForOldLease {
        /// When it has.
        until: Duration,
    },
    /// Leads, and waits until its own tenure is agreed.
    Taking,
    /// Leads with a tenure and a quorum: serves what is configured.
    Serving {
        /// When that ends if no further heartbeat is answered.
        until: Duration,
    },
    /// Leads, but no quorum has answered for the length of the lease.
    WithoutQuorum,
    /// Hands over, or has done so.
    Leaving {
        /// Why.
        cause: Cause,
    },
    /// Leads in a term in which it may not serve: it gave a vote for a later one, or heard of a later claim.
    TermBarred,
}

/// What is known of one VIP on this member while it holds it, or is about to let go of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldVipFacts {
    /// The VIP.
    pub address: IpAddr,
    /// Whether the kernel has the address, by its last report.
    pub present: bool,
    /// Whether the fence is open, by the kernel's last report.
    pub open: bool,
    /// When the fence shuts by itself at the latest.
    pub until: Duration,
    /// Since when it is held.
    pub since: Duration,
    /// Whether it is being let go of.
    pub releasing: bool,
    /// Held on although the quorum is lost: another member may serve it too.
    pub without_quorum: bool,
    /// When it was announced last.
    pub announced: Option<Duration>,
    /// When another host was last heard to claim it.
    pub foreign: Option<Duration>,
}

/// Why VIPs cannot be moved from here as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveRefusal {
    /// This member does not lead, so it holds none.
    NotLeading,
    /// The target is no other voter that answers, has caught up and is fit.
    Unfit(MemberId),
    /// No other voter answers, has caught up and is fit.
    NoTarget,
}
