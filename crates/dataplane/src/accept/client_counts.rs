//! How many connections each client address has on this member, in a room of fixed size.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use trestle_engine::share::{client_of, may_take};

/// Counters of a row.
const WIDTH: usize = 4096;
const ROWS: usize = 2;

/// A client gets no further connection once it has more than this many times as many as still find room, so that one alone
/// gets three quarters of all, and there is always room for others.
pub(crate) const WEIGHT: usize = 3;

/// A counter for each address in each row, which others may share (a count-min sketch; Cormode and Muthukrishnan, Journal of
/// Algorithms 55.1, 2005): the smallest of them is what the address has, or a little more. It takes no lock, and however many
/// addresses come it takes 32 KiB. Where an address falls is random, so that nobody can choose to fall upon another.
#[derive(Debug)]
pub(crate) struct ClientCounts {
    hashes: [RandomState; ROWS],
    counters: Box<[AtomicU32]>,
}

impl Default for ClientCounts {
    fn default() -> Self {
        let counters = (0..ROWS * WIDTH).map(|_| AtomicU32::new(0)).collect();
        Self { hashes: std::array::from_fn(|_| RandomState::new()), counters }
    }
}

impl ClientCounts {
    fn counters(&self, ip: IpAddr) -> impl Iterator<Item = &AtomicU32> {
        let ip = client_of(ip);
        let rows = self.hashes.iter().zip(self.counters.chunks(WIDTH));
        rows.filter_map(move |(hash, row)| row.get(hash.hash_one(ip) as usize % WIDTH))
    }

    /// How many connections the client at `ip` has, or a little more.
    fn held(&self, ip: IpAddr) -> usize {
        self.counters(ip).map(|counter| counter.load(Relaxed)).min().unwrap_or(0) as usize
    }

    /// Counts one more connection from `ip`, while there is room for `free` more from anybody; false when that client has
    /// its share.
    pub(crate) fn try_count(&self, ip: IpAddr, free: usize) -> bool {
        let enters = may_take(self.held(ip), free, WEIGHT);
        if enters {
            self.counters(ip).for_each(|counter| {
                counter.fetch_add(1, Relaxed);
            });
        }
        enters
    }

    /// A connection from `ip` that was counted has ended.
    pub(crate) fn uncount(&self, ip: IpAddr) {
        self.counters(ip).for_each(|counter| {
            counter.fetch_sub(1, Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn one_client_leaves_room_for_others() {
        let counts = ClientCounts::default();
        let entered = (0..600).filter(|held| counts.try_count(ip(1), 600 - held)).count();
        assert_eq!(entered, 451);
        assert!(!counts.try_count(ip(1), 149) && counts.try_count(ip(2), 149));
        (0..entered).for_each(|_| counts.uncount(ip(1)));
        assert_eq!((counts.held(ip(1)), counts.held(ip(2))), (0, 1));
    }

    #[test]
    fn many_clients_are_told_apart() {
        let counts = ClientCounts::default();
        (0..100_000).for_each(|number| assert!(counts.try_count(ip(number), 1_000_000)));
        for number in 0..1000 {
            assert!((1..200).contains(&counts.held(ip(number))), "{}", counts.held(ip(number)));
        }
        (0..100_000).for_each(|number| counts.uncount(ip(number)));
        assert!((0..100_000).all(|number| counts.held(ip(number)) == 0));
    }

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let counts = ClientCounts::default();
        let of = |text: &str| text.parse::<IpAddr>().unwrap_or(ip(0));
        assert!(counts.try_count(of("2001:db8::1"), 10) && counts.try_count(of("2001:db8::2"), 10));
        assert_eq!(counts.held(of("2001:db8::3")), 2);
    }
}
