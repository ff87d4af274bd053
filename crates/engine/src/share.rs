//! Sharing something scarce among clients that nobody knows beforehand.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one client: an IPv4 address, and of IPv6 the network of 64 bits, which one client has to itself (RFC 7421
/// §2) and in which it can take as many addresses as it likes. An IPv4 address that comes mapped into IPv6 counts as IPv4.
pub fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// Whether a client that holds `held` places may take one more while `free` are free: there is one, and it holds at most
/// `weight` times as many as are free.
///
/// The bound moves with the load (dynamic thresholds; Choudhury and Hahne, IEEE/ACM Transactions on Networking 6.2, 1998):
/// one client alone gets `weight / (weight + 1)` of all places, `n` greedy ones get equal shares, and there is always room
/// left for one that comes new, without a number that has to be set.
pub fn may_take(held: usize, free: usize, weight: usize) -> bool {
    free > 0 && held <= free.saturating_mul(weight)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let of = |text: &str| client_of(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    /// What each of `clients` holds once none of them gets any more of `places`.
    fn settled(clients: usize, places: usize, weight: usize) -> Vec<usize> {
        let mut held = vec![0; clients];
        loop {
            let before = held.clone();
            for client in 0..clients {
                let free = places - held.iter().sum::<usize>();
                if may_take(held[client], free, weight) {
                    held[client] += 1;
                }
            }
            if held == before {
                return held;
            }
        }
    }

    #[test]
    fn greedy_clients_leave_room_for_others() {
        assert_eq!(settled(1, 1000, 1), [501]);
        assert_eq!(settled(1, 1000, 3), [751]);
        for clients in [2, 5, 20] {
            let held = settled(clients, 1000, 3);
            let free = 1000 - held.iter().sum::<usize>();
            assert!(free > 0 && free + clients >= 1000 / (3 * clients + 1), "{clients}: {held:?}");
            assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 1, "{held:?}");
        }
    }

    #[test]
    fn the_smallest_numbers_are_used_up() {
        for places in 1..=4 {
            assert_eq!(settled(1, places, 3), [places]);
        }
        assert!(!may_take(0, 0, 3));
    }
}
