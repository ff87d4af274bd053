//! Which connections a port holds, and who gives way to whom.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Occupancy, PortConnection};
use super::{ClientSource, PortLimits};

/// Raft's lanes that one address may have: three to each member, twice as many while they are made anew, and room for several
/// members at one address.
const LANES_PER_SOURCE: usize = 32;

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// Its address has all that one may have, and all of them work.
    Share,
    /// The port has all that it may have, and all of them work.
    Full,
}

#[derive(Debug)]
struct AdmittedEntry {
    connection: Arc<PortConnection>,
    /// It comes from where a member is, or from local root, and takes no place from others.
    own: bool,
}

/// The connections of one port.
#[derive(Debug)]
pub(crate) struct AdmittedConnections {
    limits: PortLimits,
    open: BTreeMap<u64, AdmittedEntry>,
    /// How many count for each source; lanes do not.
    sources: HashMap<ClientSource, usize>,
    /// How many count altogether, without lanes and those with places of their own.
    others: usize,
    own: usize,
    lanes: HashMap<ClientSource, usize>,
}

impl AdmittedConnections {
    pub(crate) fn new(limits: PortLimits) -> Self {
        Self {
            limits,
            open: BTreeMap::new(),
            sources: HashMap::new(),
            others: 0,
            own: 0,
            lanes: HashMap::new(),
        }
    }

    /// Lets a connection in, and answers who gives way to it.
    ///
    /// # Errors
    /// Why it is not let in.
    pub(crate) fn admit(
        &mut self,
        connection: Arc<PortConnection>,
        own: bool,
        now: Instant,
    ) -> Result<Option<Arc<PortConnection>>, NotAdmitted> {
        let source = connection.source;
        let held = self.sources.get(&source).copied().unwrap_or(0);
        let own = own && self.own < self.limits.own;
        // The last places are for those that have none yet: somebody who asks whether this member lives.
        let places = self.limits.connections - if held > 0 { self.limits.newcomers } else { 0 };
        let evicted = if held >= self.limits.per_source {
            Some(self.oldest_idle(now, |entry| entry.connection.source == source).ok_or(NotAdmitted::Share)?)
        } else if !own && self.others >= places {
            Some(self.oldest_idle(now, |entry| !entry.own).ok_or(NotAdmitted::Full)?)
        } else {
            None
        };
        if let Some(evicted) = &evicted {
            self.remove(evicted.number);
            evicted.abort();
        }
        *self.sources.entry(source).or_default() += 1;
        *(if own { &mut self.own } else { &mut self.others }) += 1;
        self.open.insert(connection.number, AdmittedEntry { connection, own });
        Ok(evicted)
    }

    fn oldest_idle(
        &self,
        now: Instant,
        among: impl Fn(&AdmittedEntry) -> bool,
    ) -> Option<Arc<PortConnection>> {
        let mut oldest: Option<(Instant, &Arc<PortConnection>)> = None;
        for entry in self.open.values().filter(|entry| among(entry)) {
            if let Occupancy::Idle(since) = entry.connection.occupancy(now)
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
        oldest.abort();
        true
    }

    fn uncount(&mut self, source: ClientSource, own: bool) {
        if let Some(held) = self.sources.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.sources.remove(&source);
            }
        }
        *(if own { &mut self.own } else { &mut self.others }) -= 1;
    }

    /// A connection has ended; does nothing when that is known.
    pub(crate) fn remove(&mut self, number: u64) {
        let Some(entry) = self.open.remove(&number) else { return };
        let source = entry.connection.source;
        if !entry.connection.is_lane() {
            self.uncount(source, entry.own);
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
        let (source, own) = (entry.connection.source, entry.own);
        let all: usize = self.lanes.values().sum();
        let lanes = self.lanes.get(&source).copied().unwrap_or(0);
        if entry.connection.is_lane() || lanes >= LANES_PER_SOURCE || all >= self.limits.lanes {
            return;
        }
        entry.connection.make_lane();
        *self.lanes.entry(source).or_default() += 1;
        self.uncount(source, own);
    }

    pub(crate) fn has_lanes(&self, source: ClientSource) -> bool {
        self.lanes.contains_key(&source)
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<PortConnection>> {
        self.open.values().map(|entry| &entry.connection)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::IpAddr;
    use std::time::Duration;

    use super::super::ConnectionOrigin;
    use super::super::connection::Phase;
    use super::*;

    const LIMITS: PortLimits = PortLimits { connections: 20, per_source: 8, newcomers: 4, own: 6, lanes: 40 };

    struct TestPort {
        connections: AdmittedConnections,
        now: Instant,
        last: u64,
    }

    impl TestPort {
        fn new() -> Self {
            Self { connections: AdmittedConnections::new(LIMITS), now: Instant::now(), last: 0 }
        }

        fn open(
            &mut self,
            ip: &str,
            member: bool,
        ) -> Result<(Arc<PortConnection>, Option<u64>), NotAdmitted> {
            self.last += 1;
            self.now += Duration::from_millis(1);
            let origin = ConnectionOrigin::Tcp((ip.parse::<IpAddr>().unwrap(), 5000).into());
            let connection = Arc::new(PortConnection::new(self.last, origin, self.now));
            let evicted = self.connections.admit(connection.clone(), member, self.now)?;
            Ok((connection, evicted.map(|evicted| evicted.number)))
        }

        fn busy(&mut self, ip: &str, member: bool) -> Result<Arc<PortConnection>, NotAdmitted> {
            let (connection, _) = self.open(ip, member)?;
            connection.begin(Phase::Running, self.now);
            Ok(connection)
        }
    }

    #[test]
    fn an_address_that_has_its_share_pushes_out_its_own_oldest() {
        let mut port = TestPort::new();
        let (stranger, _) = port.open("192.0.2.9", false).unwrap();
        for number in 2..=9 {
            assert_eq!(port.open("192.0.2.1", false).unwrap().1, None, "{number}");
        }
        assert_eq!(port.open("192.0.2.1", false).unwrap().1, Some(2));
        assert_eq!(stranger.occupancy(port.now), Occupancy::Idle(stranger_since(&stranger)));
        assert_eq!(port.connections.len(), 9);
    }

    fn stranger_since(connection: &PortConnection) -> Instant {
        match connection.occupancy(Instant::now()) {
            Occupancy::Idle(since) => since,
            Occupancy::Busy => unreachable!(),
        }
    }

    #[test]
    fn what_works_stays_and_newcomers_find_a_place() {
        let mut port = TestPort::new();
        for source in ["192.0.2.1", "192.0.2.2"] {
            for _ in 0..8 {
                port.busy(source, false).unwrap();
            }
            assert_eq!(port.busy(source, false).unwrap_err(), NotAdmitted::Share);
        }
        // 16 of 20 are taken: the last four are for those that have none.
        assert!(port.busy("192.0.2.3", false).is_ok());
        assert_eq!(port.busy("192.0.2.3", false).unwrap_err(), NotAdmitted::Full);
        for number in 4..7 {
            assert!(port.busy(&format!("192.0.2.{number}"), false).is_ok());
        }
        assert_eq!(port.busy("192.0.2.200", false).unwrap_err(), NotAdmitted::Full);
    }

    #[test]
    fn members_and_lanes_are_not_crowded_out() {
        let mut port = TestPort::new();
        let lane = port.busy("192.0.2.50", true).unwrap();
        port.connections.make_lane(lane.number);
        for number in 0..20 {
            let _ = port.busy(&format!("192.0.2.{number}"), false);
        }
        assert_eq!(port.busy("192.0.2.200", false).unwrap_err(), NotAdmitted::Full);
        let member = port.busy("192.0.2.51", true).unwrap();
        assert!(!port.connections.make_room(port.now), "nobody waits");
        assert!(port.connections.has_lanes(lane.source) && !port.connections.has_lanes(member.source));
        port.connections.remove(lane.number);
        assert!(!port.connections.has_lanes(lane.source));
    }

    #[test]
    fn a_lane_counts_for_nobody() {
        let mut port = TestPort::new();
        for _ in 0..12 {
            let (connection, _) = port.open("192.0.2.1", false).unwrap();
            port.connections.make_lane(connection.number);
            assert!(connection.is_lane());
        }
        for _ in 0..8 {
            port.busy("192.0.2.1", false).unwrap();
        }
        assert_eq!(port.busy("192.0.2.1", false).unwrap_err(), NotAdmitted::Share);
        for number in 1..=20 {
            port.connections.remove(number);
        }
        assert_eq!(
            (port.connections.others, port.connections.sources.len(), port.connections.lanes.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn what_gave_way_is_taken_back_once() {
        let mut port = TestPort::new();
        for _ in 0..9 {
            port.open("192.0.2.1", false).unwrap();
        }
        port.connections.remove(1);
        assert_eq!((port.connections.others, port.connections.len()), (8, 8));
    }
}
