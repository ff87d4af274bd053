//! What can go wrong, and what to do about it.

use std::io;
use std::net::IpAddr;

use crate::vip::InterfaceVip;

/// Why the kernel does not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// The process may not do what virtual IPs take.
    #[error(
        "missing {0}: virtual IPs need it; run as root, or grant it (systemd: AmbientCapabilities={0}; containers: --cap-add without the CAP_ in front)"
    )]
    Capability(String),
    /// Capabilities could not be read or dropped.
    #[error("cannot {doing} capabilities: {reason}")]
    Capabilities {
        /// What was tried.
        doing: &'static str,
        /// What the operating system says.
        reason: String,
    },
    /// The prefix is longer than the address.
    #[error("{0}: prefix must be at most 32 for IPv4 and 128 for IPv6")]
    Prefix(InterfaceVip),
    /// No interface has this name.
    #[error(
        "{0}: no interface has this name, nor this alternative name; `ip link` lists them, choose one or create it"
    )]
    NoInterface(InterfaceVip),
    /// The interface has no Ethernet address.
    #[error(
        "{0}: the interface has no Ethernet address, so a virtual IP on it cannot be announced; choose a card, VLAN, bridge or bond"
    )]
    NotEthernet(InterfaceVip),
    /// The address is on this machine already, and not as one of ours.
    #[error(
        "{0}: someone else has configured the address on this machine; remove it (`ip address del`, or where it is configured), a virtual IP must be on its holder alone"
    )]
    Configured(InterfaceVip),
    /// It is held already.
    #[error("{0}: held already; release it first")]
    Held(InterfaceVip),
    /// It is not held.
    #[error("{0}: not held here; claim it first")]
    NotHeld(IpAddr),
    /// The lease ended before the claim was done.
    #[error("{0}: the lease is over; claim with a lease whose deadline lies ahead")]
    Over(InterfaceVip),
    /// The kernel refused a change of addresses.
    #[error("{vip}: cannot {doing} the address: {source}")]
    Address {
        /// What it is about.
        vip: InterfaceVip,
        /// What was tried.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel refused a change of the fence.
    #[error("cannot {doing} the fence in nftables table \"{table}\": {source}")]
    Fence {
        /// Name of the table.
        table: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another process fences in tables of this name.
    #[error(
        "another process{owner} holds virtual IPs in this network namespace with nftables table \"{table}\"; stop it, or give this member another name"
    )]
    Taken {
        /// Name of the table.
        table: String,
        /// Which process, where that is known, as " (process 123)".
        owner: String,
    },
    /// Something that every virtual IP needs failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A thread of this crate has ended, which only a defect does.
    #[error("the {0} thread has ended; restart this member, the kernel has closed the fence")]
    Ended(&'static str),
}

impl VipError {
    /// For `map_err`, whichever of the two kinds of error a call answers.
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { doing, source: source.into() }
    }
}
