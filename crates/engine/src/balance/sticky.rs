//! Stickiness: which backend a client had last.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// No entry, in the chain of entries.
const NONE: u32 = u32::MAX;

/// A client that is remembered.
#[derive(Debug, Clone)]
struct StickyEntry {
    client: IpAddr,
    /// What it had, as the caller names it.
    backend: u64,
    /// When its last connection began or ended.
    last: Duration,
    older: u32,
    newer: u32,
}

/// The backends that clients had last, for as many clients as there is room for. The oldest gives way to a new one.
///
/// Entries are chained in the order of their use, which is also the order in which they expire, since all live equally
/// long. An entry takes about 90 bytes (48 here, the rest in the index); room that was taken is kept.
#[derive(Debug)]
pub struct Stickiness {
    entries: Vec<StickyEntry>,
    index: BTreeMap<IpAddr, u32>,
    oldest: u32,
    newest: u32,
    room: u32,
}

/// What a client is remembered by.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

impl Stickiness {
    /// An empty memory for `room` clients; for one, if that is 0.
    pub fn new(room: u32) -> Self {
        let room = room.clamp(1, NONE - 1);
        Self { entries: Vec::new(), index: BTreeMap::new(), oldest: NONE, newest: NONE, room }
    }

    /// As many clients as this are remembered from now on, at least one: the oldest are forgotten.
    pub fn limit(&mut self, room: u32) {
        let room = room.clamp(1, NONE - 1);
        if self.entries.len() > room as usize {
            let mut kept = Self::new(room);
            let mut place = self.oldest;
            let mut surplus = self.entries.len() - room as usize;
            while let Some(entry) = self.at(place) {
                if surplus > 0 {
                    surplus -= 1;
                } else {
                    kept.insert(entry.client, entry.backend, entry.last);
                }
                place = entry.newer;
            }
            *self = kept;
        }
        self.room = room;
    }

    /// How many clients are remembered, those included whose time is over and whose entry nobody needed yet.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no client is remembered.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The backend that `client` had last, if that was less than `keep` ago; `now` is on a monotonic clock. An IPv4
    /// address that is mapped into IPv6 counts as itself, and of another IPv6 address its network of 64 bits (RFC 4291
    /// §2.5.4): within it a host changes its address as it likes (RFC 8981), and could fill the memory alone.
    pub fn find(&self, client: IpAddr, keep: Duration, now: Duration) -> Option<u64> {
        let entry = self.at(*self.index.get(&network(client))?)?;
        (now.saturating_sub(entry.last) < keep).then_some(entry.backend)
    }

    /// A connection of `client` to `backend` begins: that is its backend from now on.
    pub fn begin(&mut self, client: IpAddr, backend: u64, now: Duration) {
        let client = network(client);
        match self.index.get(&client).copied() {
            Some(place) => self.renew(place, backend, now),
            None => self.insert(client, backend, now),
        }
    }

    /// A connection of `client` to `backend` ends: its time counts anew, unless the client has another backend now.
    pub fn end(&mut self, client: IpAddr, backend: u64, keep: Duration, now: Duration) {
        if self.find(client, keep, now).is_none_or(|current| current == backend) {
            self.begin(client, backend, now);
        }
    }

    /// The time of `client` counts anew, whichever backend it has.
    pub fn touch(&mut self, client: IpAddr, now: Duration) {
        if let Some(place) = self.index.get(&network(client)).copied()
            && let Some(backend) = self.at(place).map(|e| e.backend)
        {
            self.renew(place, backend, now);
        }
    }

    fn at(&self, place: u32) -> Option<&StickyEntry> {
        self.entries.get(place as usize)
    }

    fn renew(&mut self, place: u32, backend: u64, now: Duration) {
        self.unchain(place);
        if let Some(entry) = self.entries.get_mut(place as usize) {
            (entry.backend, entry.last) = (backend, now);
        }
        self.chain(place);
    }

    fn insert(&mut self, client: IpAddr, backend: u64, now: Duration) {
        let entry = StickyEntry { client, backend, last: now, older: NONE, newer: NONE };
        let used = u32::try_from(self.entries.len()).unwrap_or(NONE);
        let place = if used < self.room {
            self.entries.push(entry);
            used
        } else {
            let place = self.oldest;
            self.unchain(place);
            if let Some(gone) = self.entries.get_mut(place as usize) {
                self.index.remove(&gone.client);
                *gone = entry;
            }
            place
        };
        self.index.insert(client, place);
        self.chain(place);
    }

    /// Takes an entry out of the chain.
    fn unchain(&mut self, place: u32) {
        let Some((older, newer)) = self.at(place).map(|e| (e.older, e.newer)) else { return };
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    /// Puts an entry at the newest end of the chain.
    fn chain(&mut self, place: u32) {
        let newest = self.newest;
        if let Some(entry) = self.entries.get_mut(place as usize) {
            (entry.older, entry.newer) = (newest, NONE);
        }
        match self.entries.get_mut(newest as usize) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    const KEEP: Duration = Duration::from_secs(10);

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_client_is_remembered_from_its_last_beginning_or_end() {
        let mut sticky = Stickiness::new(8);
        sticky.begin(ip(1), 7, at(0));
        assert_eq!(sticky.find(ip(1), KEEP, at(9)), Some(7));
        assert_eq!(sticky.find(ip(1), KEEP, at(10)), None);
        assert_eq!(sticky.find(ip(2), KEEP, at(0)), None);
        sticky.end(ip(1), 7, KEEP, at(100));
        assert_eq!(sticky.find(ip(1), KEEP, at(109)), Some(7));
        assert_eq!(sticky.find(ip(1), KEEP, at(110)), None);
        assert_eq!(sticky.find("::ffff:0.0.0.1".parse().unwrap(), KEEP, at(109)), Some(7));
    }

    #[test]
    fn the_end_of_a_connection_elsewhere_changes_nothing() {
        let mut sticky = Stickiness::new(8);
        sticky.begin(ip(1), 7, at(0));
        sticky.end(ip(1), 8, KEEP, at(5));
        assert_eq!(sticky.find(ip(1), KEEP, at(9)), Some(7));
        assert_eq!(sticky.find(ip(1), KEEP, at(10)), None);
        sticky.end(ip(1), 8, KEEP, at(20));
        assert_eq!(sticky.find(ip(1), KEEP, at(20)), Some(8), "nothing else was remembered any more");
    }

    #[test]
    fn a_touch_keeps_the_backend_and_renews_the_time() {
        let mut sticky = Stickiness::new(8);
        sticky.begin(ip(1), 7, at(0));
        sticky.touch(ip(1), at(5));
        sticky.touch(ip(2), at(5));
        assert_eq!(sticky.find(ip(1), KEEP, at(14)), Some(7));
        assert_eq!(sticky.len(), 1);
    }

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let mut sticky = Stickiness::new(8);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        sticky.begin(ip("2001:db8::1"), 7, at(0));
        assert_eq!(sticky.find(ip("2001:db8::ffff:0:0:1"), KEEP, at(0)), Some(7));
        assert_eq!(sticky.find(ip("2001:db8:0:1::1"), KEEP, at(0)), None);
        for host in 0..100u128 {
            sticky.begin(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host).into(), 8, at(1));
        }
        assert_eq!(sticky.len(), 1);
    }

    #[test]
    fn with_less_room_the_oldest_are_forgotten() {
        let mut sticky = Stickiness::new(8);
        (1..=6).for_each(|n| sticky.begin(ip(n), n.into(), at(n.into())));
        sticky.touch(ip(1), at(7));
        sticky.limit(2);
        let known: Vec<_> = (1..=6).filter(|n| sticky.find(ip(*n), KEEP, at(7)).is_some()).collect();
        assert_eq!((known, sticky.len()), (vec![1, 6], 2));
        sticky.begin(ip(9), 9, at(8));
        assert_eq!(sticky.find(ip(6), KEEP, at(8)), None, "the oldest of what is left goes first");
        sticky.limit(3);
        sticky.begin(ip(10), 10, at(9));
        assert_eq!(sticky.len(), 3);
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut sticky = Stickiness::new(3);
        (1..=3).for_each(|n| sticky.begin(ip(n), n.into(), at(n.into())));
        sticky.begin(ip(1), 1, at(4));
        sticky.begin(ip(4), 4, at(5));
        let known: Vec<_> = (1..=4).map(|n| sticky.find(ip(n), KEEP, at(5))).collect();
        assert_eq!(known, [Some(1), None, Some(3), Some(4)]);
        assert_eq!(sticky.len(), 3);
    }

    proptest! {
        /// Against a list in which one looks for everything.
        #[test]
        fn it_is_bounded_expires_and_forgets_the_oldest_first(
            room in 1u32..6, steps in prop::collection::vec((0u32..8, 0u64..4, 0u8..3, 0u64..6), 0..200),
        ) {
            let mut sticky = Stickiness::new(room);
            let mut model: Vec<(u32, u64, Duration)> = Vec::new();
            let mut now = Duration::ZERO;
            for (client, backend, what, later) in steps {
                now += at(later);
                let known = model.iter().position(|(c, _, _)| *c == client);
                let alive = known.map(|i| model[i]).filter(|(_, _, last)| now - *last < KEEP);
                let wanted = match what {
                    0 => { sticky.begin(ip(client), backend, now); Some(backend) }
                    1 => {
                        sticky.end(ip(client), backend, KEEP, now);
                        alive.is_none_or(|(_, b, _)| b == backend).then_some(backend)
                    }
                    _ => { sticky.touch(ip(client), now); known.map(|i| model[i].1) }
                };
                if let Some(backend) = wanted {
                    model.retain(|(c, _, _)| *c != client);
                    model.push((client, backend, now));
                    if model.len() > room as usize { model.remove(0); }
                }
                prop_assert_eq!(sticky.len(), model.len());
                for c in 0..8 {
                    let entry = model.iter().find(|(m, _, last)| *m == c && now - *last < KEEP);
                    prop_assert_eq!(sticky.find(ip(c), KEEP, now), entry.map(|(_, b, _)| *b));
                }
            }
        }
    }
}
