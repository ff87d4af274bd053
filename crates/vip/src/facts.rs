//! What is true of virtual IPs now, as the kernel has confirmed it.

use std::time::{Duration, Instant};

use trestle_engine::ownership::{DEGRADED_FENCE_ERROR, FENCE_ERROR};

use crate::event::Mac;
use crate::vip::InterfaceVip;

/// How virtual IPs are fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// By nftables, to the millisecond.
    Full {
        /// Whether announcements are fenced as well, which takes Linux 5.16; without, a process that is stopped at the very
        /// point of announcing and continued after its lease announces once more than it should.
        announcements: bool,
    },
    /// By the lifetime of addresses alone, in whole seconds, because nftables cannot be used. Leases must be of 3 s or more.
    Degraded {
        /// Why not.
        why: String,
    },
}

impl Fence {
    /// How long after its deadline a virtual IP may still be served, at worst, whatever happens to this process. A lease must
    /// end this much earlier than the next holder may begin.
    pub fn error(&self) -> Duration {
        match self {
            Self::Full { .. } => FENCE_ERROR,
            Self::Degraded { .. } => DEGRADED_FENCE_ERROR,
        }
    }
}

/// How punctual the lease thread is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Punctuality {
    /// Times that it woke.
    pub ticks: u64,
    /// Times that it woke more than [`TICK`](crate::TICK) late.
    pub late: u64,
    /// Longest delay since the start.
    pub worst: Duration,
    /// Whether it runs with real-time priority.
    pub real_time: bool,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFacts {
    /// How virtual IPs are fenced.
    pub fence: Fence,
    /// How punctual the lease thread is.
    pub punctuality: Punctuality,
    /// What others did to the fence.
    pub tampering: Tampering,
    /// Every virtual IP that is held here, by address.
    pub vips: Vec<VipFacts>,
}

/// What others did to the fence, as this member has noticed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tampering {
    /// How often it was put back after someone else had changed or removed it.
    pub repairs: u64,
    /// When that was last, and what was found.
    pub last_repair: Option<(Instant, String)>,
    /// Why it cannot be renewed or put back at present; `None` while it can.
    pub failing: Option<String>,
}

/// What is known of one virtual IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipFacts {
    /// Which.
    pub vip: InterfaceVip,
    /// Whether the address is on the interface.
    pub address_present: bool,
    /// Whether the interface is up and has a carrier.
    pub link_up: bool,
    /// When the kernel stops serving it unless it is renewed; past when it has stopped, `None` when it never started.
    pub fence_until: Option<Instant>,
    /// The last time that it was announced.
    pub last_announcement: Option<Instant>,
    /// How often it was announced.
    pub announcements: u64,
    /// How often the address was put back after someone else had removed it.
    pub repairs: u64,
    /// How often another machine said that the address is its own.
    pub conflicts: u64,
    /// Who said so last, and when.
    pub last_conflict: Option<(Mac, Instant)>,
    /// Why the address cannot be put back at present; `None` while it can, or need not.
    pub failing: Option<String>,
    /// Why its packets are dropped on this machine although its own fence is open: the fence of another member stands against
    /// it. `None` for nothing.
    pub shut_by: Option<String>,
}

impl VipFacts {
    pub(crate) fn new(vip: InterfaceVip) -> Self {
        Self {
            vip,
            address_present: false,
            link_up: false,
            fence_until: None,
            last_announcement: None,
            announcements: 0,
            repairs: 0,
            conflicts: 0,
            last_conflict: None,
            failing: None,
            shut_by: None,
        }
    }
}
