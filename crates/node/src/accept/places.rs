//! Which connections a port holds, and who gives way to whom.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Connection, Standing};
use super::{Limits, Source};

/// Raft's lanes that one address may have: three to each member, twice as many while they are made anew, and room for several
/// members at one address.
const LANES_PER_SOURCE: usize = 32;

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its address has all that one may have, and all of them work.
    Share,
    /// The port has all that it may have, and all of them work.
    Full,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    /// It comes from where a member is, and takes no place from others.
    member: bool,
}

/// The connections of one port.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    open: BTreeMap<u64, Entry>,
    /// How many count for each source; lanes do not.
    sources: HashMap<Source, usize>,
    /// How many count altogether, without lanes and members' own.
    others: usize,
    members: usize,
    lanes: HashMap<Source, usize>,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: BTreeMap::new(),
            sources: HashMap::new(),
            others: 0,
            members: 0,
            lanes: HashMap::new(),
        }
    }

    /// Lets a connection in, and answers who gives way to it.
    ///
    /// # Errors
    /// Why it is not let in.
    pub(crate) fn admit(
        &mut self,
        connection: Arc<Connection>,
        member: bool,
        now: Instant,
    ) -> Result<Option<Arc<Connection>>, Refused> {
        let source = connection.source;
        let held = self.sources.get(&source).copied().unwrap_or(0);
        let member = member && self.members < self.limits.members;
        // The last places are for those that have none yet: somebody who asks whether this member lives.
        let places = self.limits.connections - if held > 0 { self.limits.newcomers } else { 0 };
        let way = if held >= self.limits.per_source {
            Some(self.oldest_idle(now, |entry| entry.connection.source == source).ok_or(Refused::Share)?)
        } else if !member && self.others >= places {
            Some(self.oldest_idle(now, |entry| !entry.member).ok_or(Refused::Full)?)
        } else {
            None
        };
        if let Some(way) = &way {
            self.remove(way.number);
            way.cut();
        }
        *self.sources.entry(source).or_default() += 1;
        *(if member { &mut self.members } else { &mut self.others }) += 1;
        self.open.insert(connection.number, Entry { connection, member });
        Ok(way)
    }

    fn oldest_idle(&self, now: Instant, among: impl Fn(&Entry) -> bool) -> Option<Arc<Connection>> {
        let mut oldest: Option<(Instant, &Arc<Connection>)> = None;
        for entry in self.open.values().filter(|entry| among(entry)) {
            if let Standing::Idle(since) = entry.connection.standing(now)
                && oldest.is_none_or(|(before, _)| since < before)
            {
                oldest = Some((since, &entry.connection));
            }
        }
        oldest.map(|(_, connection)| connection.clone())
    }

    /// Ends the connection that has waited for longest, of whomever, when this process has no descriptor left.
    pub(crate) fn make_room(&mut self, now: Instant) -> bool {
        let Some(oldest) = self.oldest_idle(now, |_| true) else { return false };
        self.remove(oldest.number);
        oldest.cut();
        true
    }

    fn uncount(&mut self, source: Source, member: bool) {
        if let Some(held) = self.sources.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.sources.remove(&source);
            }
        }
        *(if member { &mut self.members } else { &mut self.others }) -= 1;
    }

    /// A connection has ended; does nothing when that is known.
    pub(crate) fn remove(&mut self, number: u64) {
        let Some(entry) = self.open.remove(&number) else { return };
        let source = entry.connection.source;
        if !entry.connection.is_lane() {
            self.uncount(source, entry.member);
        } else if let Some(lanes) = self.lanes.get_mut(&source) {
            *lanes -= 1;
            if *lanes == 0 {
                self.lanes.remove(&source);
            }
        }
    }

    /// A connection has carried Raft: from now on it keeps its place, and takes none from others, as far as there are lanes.
    pub(crate) fn make_lane(&mut self, number: u64) {
        let Some(entry) = self.open.get(&number) else { return };
        let (source, member) = (entry.connection.source, entry.member);
        let all: usize = self.lanes.values().sum();
        let lanes = self.lanes.get(&source).copied().unwrap_or(0);
        if entry.connection.is_lane() || lanes >= LANES_PER_SOURCE || all >= self.limits.lanes {
            return;
        }
        entry.connection.make_lane();
        *self.lanes.entry(source).or_default() += 1;
        self.uncount(source, member);
    }

    pub(crate) fn has_lanes(&self, source: Source) -> bool {
        self.lanes.contains_key(&source)
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.open.values().map(|entry| &entry.connection)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::connection::Phase;
    use super::*;

    const LIMITS: Limits = Limits { connections: 20, per_source: 8, newcomers: 4, members: 6, lanes: 40 };

    struct Port {
        places: Places,
        now: Instant,
        last: u64,
    }

    impl Port {
        fn new() -> Self {
            Self { places: Places::new(LIMITS), now: Instant::now(), last: 0 }
        }

        fn open(&mut self, ip: &str, member: bool) -> Result<(Arc<Connection>, Option<u64>), Refused> {
            self.last += 1;
            self.now += Duration::from_millis(1);
            let source = Source::Address(ip.parse().unwrap());
            let connection = Arc::new(Connection::new(self.last, source, self.now));
            let way = self.places.admit(connection.clone(), member, self.now)?;
            Ok((connection, way.map(|way| way.number)))
        }

        fn busy(&mut self, ip: &str, member: bool) -> Result<Arc<Connection>, Refused> {
            let (connection, _) = self.open(ip, member)?;
            connection.begin(Phase::Running, self.now);
            Ok(connection)
        }
    }

    #[test]
    fn an_address_that_has_its_share_pushes_out_its_own_oldest() {
        let mut port = Port::new();
        let (stranger, _) = port.open("192.0.2.9", false).unwrap();
        for number in 2..=9 {
            assert_eq!(port.open("192.0.2.1", false).unwrap().1, None, "{number}");
        }
        assert_eq!(port.open("192.0.2.1", false).unwrap().1, Some(2));
        assert_eq!(stranger.standing(port.now), Standing::Idle(stranger_since(&stranger)));
        assert_eq!(port.places.len(), 9);
    }

    fn stranger_since(connection: &Connection) -> Instant {
        match connection.standing(Instant::now()) {
            Standing::Idle(since) => since,
            Standing::Busy => unreachable!(),
        }
    }

    #[test]
    fn what_works_stays_and_newcomers_find_a_place() {
        let mut port = Port::new();
        for source in ["192.0.2.1", "192.0.2.2"] {
            for _ in 0..8 {
                port.busy(source, false).unwrap();
            }
            assert_eq!(port.busy(source, false).unwrap_err(), Refused::Share);
        }
        // 16 of 20 are taken: the last four are for those that have none.
        assert!(port.busy("192.0.2.3", false).is_ok());
        assert_eq!(port.busy("192.0.2.3", false).unwrap_err(), Refused::Full);
        for number in 4..7 {
            assert!(port.busy(&format!("192.0.2.{number}"), false).is_ok());
        }
        assert_eq!(port.busy("192.0.2.200", false).unwrap_err(), Refused::Full);
    }

    #[test]
    fn members_and_lanes_are_not_crowded_out() {
        let mut port = Port::new();
        let lane = port.busy("192.0.2.50", true).unwrap();
        port.places.make_lane(lane.number);
        for number in 0..20 {
            let _ = port.busy(&format!("192.0.2.{number}"), false);
        }
        assert_eq!(port.busy("192.0.2.200", false).unwrap_err(), Refused::Full);
        let member = port.busy("192.0.2.51", true).unwrap();
        assert!(!port.places.make_room(port.now), "nobody waits");
        assert!(port.places.has_lanes(lane.source) && !port.places.has_lanes(member.source));
        port.places.remove(lane.number);
        assert!(!port.places.has_lanes(lane.source));
    }

    #[test]
    fn a_lane_counts_for_nobody() {
        let mut port = Port::new();
        for _ in 0..12 {
            let (connection, _) = port.open("192.0.2.1", false).unwrap();
            port.places.make_lane(connection.number);
            assert!(connection.is_lane());
        }
        for _ in 0..8 {
            port.busy("192.0.2.1", false).unwrap();
        }
        assert_eq!(port.busy("192.0.2.1", false).unwrap_err(), Refused::Share);
        for number in 1..=20 {
            port.places.remove(number);
        }
        assert_eq!((port.places.others, port.places.sources.len(), port.places.lanes.len()), (0, 0, 0));
    }

    #[test]
    fn what_gave_way_is_taken_back_once() {
        let mut port = Port::new();
        for _ in 0..9 {
            port.open("192.0.2.1", false).unwrap();
        }
        port.places.remove(1);
        assert_eq!((port.places.others, port.places.len()), (8, 8));
    }
}
