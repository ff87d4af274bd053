//! What happens to virtual IPs without anybody asking.

use std::fmt;
use std::net::IpAddr;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Something that was seen, and in part mended already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// The lease ran out while the virtual IP was held: the kernel has closed the fence.
    Lapsed(IpAddr),
    /// The lease runs again: the fence is open, the address is back and announced.
    Resumed(IpAddr),
    /// Someone else removed the address, or it expired because this process was late.
    AddressLost(IpAddr),
    /// It is back.
    AddressRestored(IpAddr),
    /// It cannot be put back; tried again after 200 ms. Said once until it works.
    NotRestored(IpAddr, String),
    /// A released address cannot be removed. Its fence stays shut around it, and it goes by its lifetime.
    NotRemoved(IpAddr, String),
    /// The interface of a held virtual IP lost its carrier or was taken down.
    LinkDown(String),
    /// It is up again; its virtual IPs are announced anew.
    LinkUp(String),
    /// It has another name now; its virtual IPs stay on it.
    Renamed {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// It is gone, and its virtual IPs with it; they return when an interface of that name appears.
    InterfaceGone(String),
    /// Another machine says that the address is its own. It is told once in ten seconds that it is not (RFC 5227 §2.4);
    /// whether to yield is the caller's choice.
    /// Claims that follow within a second of one another are said once, and all counted in the facts.
    Conflict {
        /// The address.
        address: IpAddr,
        /// Who claims it.
        mac: Mac,
    },
    /// Someone changed the tables of the fence, or removed them (`nft flush ruleset` does): they have been put back. Says what
    /// was found first.
    FenceRebuilt(String),
    /// What a member that is gone left on this machine was removed: a table or an address.
    LeftoverRemoved(String),
    /// The fence cannot be renewed; it closes at the deadline. Said once until it works.
    FenceFailed(String),
    /// The machine slept: deadlines on the monotonic clock cannot be trusted, so every lease was ended.
    Slept,
}

impl fmt::Display for KernelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lapsed(ip) => write!(f, "{ip}: lease ran out, fence closed"),
            Self::Resumed(ip) => write!(f, "{ip}: lease renewed after it had run out, fence open"),
            Self::AddressLost(ip) => write!(f, "{ip}: address removed by someone else"),
            Self::AddressRestored(ip) => write!(f, "{ip}: address put back"),
            Self::NotRestored(ip, why) => write!(f, "{ip}: address cannot be put back: {why}"),
            Self::NotRemoved(ip, why) => write!(f, "{ip}: address cannot be removed, stays fenced: {why}"),
            Self::LinkDown(name) => write!(f, "{name}: link down"),
            Self::LinkUp(name) => write!(f, "{name}: link up"),
            Self::Renamed { from, to } => write!(f, "{from}: renamed to {to}"),
            Self::InterfaceGone(name) => write!(f, "{name}: interface gone"),
            Self::Conflict { address, mac } => write!(f, "{address}: {mac} claims the address too"),
            Self::FenceRebuilt(what) => write!(f, "fence changed by someone else, put back: {what}"),
            Self::LeftoverRemoved(what) => write!(f, "removed what a member that is gone left: {what}"),
            Self::FenceFailed(why) => write!(f, "fence cannot be renewed: {why}"),
            Self::Slept => write!(f, "this machine slept, leases ended"),
        }
    }
}
