//! The hash behind source hashing. Every member must come to the same table, also during an upgrade, so it is fixed
//! here: changing it moves the clients of every pool that asks for source hashing.

use std::net::{IpAddr, SocketAddr};

use crate::mix::mix;

/// FNV-1a by Fowler, Noll and Vo, 64 bits: simple enough to stay as it is for ever, and these inputs are short. It leaves its
/// high bits alike for inputs that differ in their last byte, as neighbouring addresses and numbered names do, so what it
/// gives is mixed.
fn fnv1a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.into_iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Two independent numbers for a backend's name.
pub(super) fn of_name(name: &str) -> (u64, u64) {
    let mut state = fnv1a(name.as_bytes());
    (mix(&mut state), mix(&mut state))
}

/// FNV-1a of an address and what follows it. An IPv4 address counts as itself when it comes mapped into IPv6, as it does
/// from a socket that serves both.
fn of_bytes(ip: IpAddr, then: &[u8]) -> u64 {
    let mut state = match ip.to_canonical() {
        IpAddr::V4(ip) => fnv1a(ip.octets().iter().chain(then)),
        IpAddr::V6(ip) => fnv1a(ip.octets().iter().chain(then)),
    };
    mix(&mut state)
}

/// A number for a client's address.
pub(super) fn of_client(ip: IpAddr) -> u64 {
    of_bytes(ip, &[])
}

/// A number for a client's address and port.
pub(super) fn of_connection(client: SocketAddr) -> u64 {
    of_bytes(client.ip(), &client.port().to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn fnv1a_gives_its_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn splitmix_gives_its_published_values() {
        let mut state = 1_234_567;
        assert_eq!(mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(mix(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_mapped_address_counts_as_itself() {
        let mapped = of_client("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(of_client("192.0.2.7".parse().unwrap()), mapped);
        assert_ne!(of_client("192.0.2.8".parse().unwrap()), mapped);
        let connection = |text: &str| of_connection(text.parse().unwrap());
        assert_eq!(connection("192.0.2.7:80"), connection("[::ffff:192.0.2.7]:80"));
        assert_ne!(connection("192.0.2.7:80"), connection("192.0.2.7:81"));
        assert_ne!(connection("192.0.2.7:80"), mapped);
    }
}
