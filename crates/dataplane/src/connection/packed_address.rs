//! Socket addresses in the room that they need: 24 bytes instead of 32, three times for each connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A socket address without its flow label, which means nothing once a connection stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedAddress {
    /// IPv4 addresses are mapped into IPv6 (RFC 4291 §2.5.5.2).
    ip: [u8; 16],
    /// The interface of a link-local address, or [`IPV4`].
    scope: u32,
    port: u16,
}

/// A mark for what was an IPv4 address, since a mapped one is something else. Interfaces are numbered from 1 and within
/// 31 bits.
const IPV4: u32 = u32::MAX;

impl From<SocketAddr> for PackedAddress {
    fn from(address: SocketAddr) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), IPV4),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { ip: ip.octets(), scope, port: address.port() }
    }
}

impl From<PackedAddress> for SocketAddr {
    fn from(packed: PackedAddress) -> Self {
        let ip = Ipv6Addr::from(packed.ip);
        match (packed.scope, ip.to_ipv4_mapped()) {
            (IPV4, Some(v4)) => (IpAddr::V4(v4), packed.port).into(),
            (scope, _) => SocketAddrV6::new(ip, packed.port, 0, scope).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        assert_eq!(size_of::<PackedAddress>(), 24);
        for text in
            ["192.0.2.1:80", "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:1", "[fe80::1%7]:443", "0.0.0.0:0"]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(PackedAddress::from(address)), address);
        }
    }
}
