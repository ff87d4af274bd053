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
    /// The lease runs again: the fence is open, and the address is to be restored.
    Resumed(IpAddr),
    /// Someone else removed the address, or it expired because this process was late.
    AddressLost(IpAddr),
    /// It is back.
    AddressRestored(IpAddr),
    /// It cannot be put back, or not be renewed. Told once until it works.
    NotRestored(IpAddr, String),
    /// A released address cannot be removed. Its fence stays shut around it, and it goes by its lifetime.
    NotRemoved(IpAddr, String),
    /// The interface of a held virtual IP lost its carrier or was taken down.
    LinkDown(String),
    /// It is up again: its virtual IPs are to be announced.
    LinkUp(String),
    /// It has another Ethernet address: its virtual IPs are to be announced.
    MacChanged(String),
    /// It has another name now; its virtual IPs stay on it.
    Renamed {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// It is gone, and its virtual IPs with it; they can be restored once there is an interface of that name.
    InterfaceGone(String),
    /// Another machine says that the address is its own. Whether to defend it (RFC 5227, section 2.4) is the caller's choice.
    /// Claims of one machine are told at most every five seconds, and all counted in the facts.
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
            Self::Lapsed(ip) => write!(f, "{ip}: lease expired, fence closed"),
            Self::Resumed(ip) => write!(f, "{ip}: lease renewed after it had expired, fence open"),
            Self::AddressLost(ip) => write!(
                f,
                "{ip}: address gone: removed by another program, or expired while this process was late"
            ),
            Self::AddressRestored(ip) => write!(f, "{ip}: address put back"),
            Self::NotRestored(ip, why) => write!(f, "{ip}: address cannot be put back: {why}"),
            Self::NotRemoved(ip, why) => write!(f, "{ip}: address cannot be removed, stays fenced: {why}"),
            Self::LinkDown(name) => write!(f, "{name}: link down"),
            Self::LinkUp(name) => write!(f, "{name}: link up"),
            Self::MacChanged(name) => write!(f, "{name}: has another Ethernet address"),
            Self::Renamed { from, to } => write!(f, "{from}: renamed to {to}"),
            Self::InterfaceGone(name) => write!(f, "{name}: interface gone"),
            Self::Conflict { address, mac } => write!(f, "{address}: {mac} claims the address too"),
            Self::FenceRebuilt(what) => write!(f, "fence changed by someone else, put back: {what}"),
            Self::LeftoverRemoved(what) => write!(f, "removed what a member that is gone left: {what}"),
            Self::FenceFailed(why) => write!(f, "fence cannot be renewed: {why}"),
            Self::Slept => write!(f, "this machine was suspended, leases ended"),
        }
    }
}
