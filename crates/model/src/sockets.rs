//! Where a member's process listens itself, as it said when it started.

use std::net::{IpAddr, SocketAddr};

use crate::address::Bind;

/// Where a member listens for others than clients, and what a listener's wildcard means on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSockets {
    /// Where its admin API is bound.
    pub admin: SocketAddr,
    /// Where it is bound for its peers.
    pub peer: SocketAddr,
    /// Where HTTP is bound: health and metrics.
    pub http: SocketAddr,
    /// What the wildcard of its family stands for in listeners' addresses; `None` for all addresses of the machine.
    pub data_address: Option<IpAddr>,
    /// The same number for members that have their addresses in common, loopback included; 0 where that is not known.
    pub network: u64,
}

impl MemberSockets {
    /// Each of its own ports, with what it is.
    pub fn ports(&self) -> [(&'static str, SocketAddr); 3] {
        [("admin", self.admin), ("peer", self.peer), ("HTTP", self.http)]
    }

    /// Whether loopback is the same for both members.
    pub fn shares_network(&self, other: &Self) -> bool {
        self.network != 0 && self.network == other.network
    }

    /// What of its own ports keeps a listener from an address that is one on this member.
    pub fn in_the_way_of(&self, effective: Bind) -> Option<(&'static str, SocketAddr)> {
        self.ports().into_iter().find(|(_, own)| stands_in_the_way(*own, effective))
    }
}

/// Whether a socket of a member itself keeps its listeners from an address. Those take IPv6 alone where they are bound to
/// `[::]`; a member's own socket there takes IPv4 as well (`net.ipv6.bindv6only` is 0 unless somebody sets it).
pub fn stands_in_the_way(own: SocketAddr, address: Bind) -> bool {
    let (own_ip, ip) = (own.ip().to_canonical(), address.ip.to_canonical());
    let meets = match own_ip.is_ipv4() == ip.is_ipv4() {
        true => own_ip == ip || own_ip.is_unspecified() || ip.is_unspecified(),
        false => own_ip.is_ipv6() && own_ip.is_unspecified(),
    };
    meets && (address.first.get()..=address.last.get()).contains(&own.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_of_a_members_own_is_met_however_both_are_written() {
        let meets =
            |own: &str, bind: &str| stands_in_the_way(own.parse().unwrap(), Bind::parse(bind).unwrap());
        for (own, bind) in [
            ("127.0.0.1:7480", "127.0.0.1:7480"),
            ("127.0.0.1:7480", "0.0.0.0:7000-8000"),
            ("0.0.0.0:7480", "10.0.0.1:7480"),
            ("[::]:7480", "10.0.0.1:7480"),
            ("[::]:7480", "[2001:db8::1]:7480"),
            ("[::1]:7480", "[::]:7480"),
        ] {
            assert!(meets(own, bind), "{own} {bind}");
        }
        for (own, bind) in [
            ("127.0.0.1:7480", "127.0.0.2:7480"),
            ("127.0.0.1:7480", "127.0.0.1:7481"),
            ("127.0.0.1:7480", "[::]:7480"),
            ("0.0.0.0:7480", "[::]:7480"),
            ("[::1]:7480", "0.0.0.0:7480"),
        ] {
            assert!(!meets(own, bind), "{own} {bind}");
        }
    }
}
