//! What the kernel is asked to hold.

use std::fmt;
use std::net::IpAddr;

/// A virtual IP on an interface of this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceVip {
    /// The address.
    pub address: IpAddr,
    /// How many of its first bits name its network: at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
    /// Interface that carries it, by its name or one of its alternative names. Anything with an Ethernet address will do:
    /// a card, a VLAN, a bridge, a bond.
    pub interface: String,
}

impl InterfaceVip {
    /// Whether the prefix suits the address.
    pub(crate) fn prefix_fits(&self) -> bool {
        self.prefix <= if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for InterfaceVip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.address, self.prefix, self.interface)
    }
}
