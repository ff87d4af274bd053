//! What the machine is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::{MemberId, Tenure};

use super::fitness::Fault;
use super::lease::Elected;
use super::vip::ServedVip;

/// Something that a member learned. Events tell what is, so each may be told again, late, or not at all: what the machine
/// has not heard only makes it serve less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnershipEvent {
    /// The VIPs that are configured, all of them.
    Vips(BTreeMap<IpAddr, Arc<ServedVip>>),
    /// This member leads.
    Leading {
        /// Its term.
        term: u64,
        /// How it was elected.
        elected: Elected,
    },
    /// This member does not lead, or no longer.
    Following,
    /// A quorum answered a heartbeat of this leader.
    QuorumAcked {
        /// The term of the heartbeat.
        term: u64,
        /// When it was *sent*; of the heartbeats answered by a quorum, the last one.
        sent: Duration,
    },
    /// The replicated state, as far as this member has applied the log.
    Applied {
        /// Term of the last entry applied.
        term: u64,
        /// The newest tenure in that state.
        tenure: Option<Tenure>,
    },
    /// The other voters to whom leadership can go, best first: they answer, have the log, and call themselves fit.
    Targets(Vec<MemberId>),
    /// A reason not to hold VIPs appears or goes.
    Fault {
        /// The reason.
        fault: Fault,
        /// Whether it is there.
        present: bool,
    },
    /// The operator wants the VIPs, and with them leadership, on another member; ask [`super::Ownership::can_move`] first.
    Move {
        /// Where, or `None` for the best one.
        to: Option<MemberId>,
    },
    /// The process is about to end.
    Stop,
    /// Raft hands leadership over, and not because this machine asked for it.
    TransferBegan,
    /// What the kernel has, after an action or because something changed there.
    Kernel {
        /// The VIP.
        address: IpAddr,
        /// Whether the address is on its interface.
        present: bool,
        /// Whether its fence is open.
        open: bool,
    },
    /// Another host claims to own a VIP.
    Foreign {
        /// The VIP.
        address: IpAddr,
        /// The term in which it claims so, when it is known to be a member.
        term: Option<u64>,
    },
    /// An interface works again after it did not, has another Ethernet address, or was silent for a while: neighbours may
    /// have forgotten the VIPs.
    LinkRestored,
    /// Time has passed.
    Tick,
}
