//! How many calls a gRPC port holds: those whose request still comes, those that are worked on, and those whose answer is
//! being fetched.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tonic::Status;
use trestle_engine::share::may_take;

use super::ClientSource;
use super::connection::{Phase, PortConnection};

/// Calls whose request is still coming; the one that has waited for longest gives way to the next, since a request comes
/// whole within milliseconds.
const RECEIVING_MAX: usize = 256;
/// Bytes of requests that are held, on one port and for one source. A request to the admin API has a little over 1 MiB at most, and one
/// between members 4 MiB.
const BYTES_MAX: usize = 96 << 20;
const BYTES_PER_SOURCE: usize = 32 << 20;
/// How long an answer may wait to be fetched before its connection gives way to another's call.
const SENDING_GIVES_WAY: Duration = Duration::from_secs(2);

/// Calls that share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum CallClass {
    /// grpc.health.v1: answered whatever else is held.
    Health,
    /// Calls that are answered as soon as they can be.
    Unary,
    /// Calls that wait for something, with one answer.
    Waiting,
    /// Calls with many answers.
    Streaming,
    /// Raft's; bounded for each connection that is not yet known as a lane, and not at all for one that is.
    Raft,
}

impl CallClass {
    /// Calls that a port holds.
    fn max(self) -> usize {
        match self {
            CallClass::Health => 64,
            CallClass::Unary => 512,
            CallClass::Waiting => 256,
            CallClass::Streaming => 128,
            CallClass::Raft => usize::MAX,
        }
    }
}

/// Raft calls of one connection before it is known as a lane.
const RAFT_PER_CONNECTION: usize = 16;

#[derive(Debug, Default)]
struct CallCounts {
    last: u64,
    receiving: BTreeMap<u64, (ClientSource, CancellationToken)>,
    receiving_of: HashMap<ClientSource, usize>,
    /// Calls of a group, of a source in it, and of a connection in it.
    classes: HashMap<CallClass, usize>,
    sources: HashMap<(CallClass, ClientSource), usize>,
    connections: HashMap<(CallClass, u64), usize>,
    sending: BTreeMap<u64, (Instant, Arc<PortConnection>)>,
    bytes: usize,
    bytes_of: HashMap<ClientSource, usize>,
}

fn decrease<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, by: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

fn count<K: std::hash::Hash + Eq>(counts: &HashMap<K, usize>, key: K) -> usize {
    counts.get(&key).copied().unwrap_or(0)
}

impl CallCounts {
    /// Whether one more call may be worked on.
    fn has_room(&self, class: CallClass, connection: &PortConnection) -> bool {
        if class == CallClass::Raft {
            return true;
        }
        let held = count(&self.connections, (class, connection.number));
        let free = class.max().saturating_sub(count(&self.classes, class));
        let of_source = count(&self.sources, (class, connection.source));
        // Half of all places is the most that one address gets, and of those half the most that one connection gets while
        // others want some.
        let rest = (class.max() / 2).saturating_sub(of_source).min(free);
        may_take(of_source, free, 1) && may_take(held, rest, 3)
    }

    /// A request has come whole, or is given up; answers what tells its call to end.
    fn received(&mut self, call: u64) -> Option<CancellationToken> {
        let (source, evicted) = self.receiving.remove(&call)?;
        decrease(&mut self.receiving_of, source, 1);
        Some(evicted)
    }

    /// The connection whose answer has waited for longest to be fetched, and long enough.
    fn stuck(&self, now: Instant) -> Option<Arc<PortConnection>> {
        let stuck = |since: &Instant| now.saturating_duration_since(*since) >= SENDING_GIVES_WAY;
        self.sending.values().find(|(since, _)| stuck(since)).map(|(_, connection)| connection.clone())
    }
}

/// The calls of one port.
#[derive(Debug, Default)]
pub(crate) struct CallLimiter(Mutex<CallCounts>);

impl CallLimiter {
    fn ledger(&self) -> MutexGuard<'_, CallCounts> {
        // Whole between any two statements that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call may begin on this connection: before one is known as a lane, it gets few of Raft's; and one that leaves
    /// many requests unfinished gets no more while the port waits for many. To make others give way to it costs some 30 us of
    /// a processor a call, and to refuse it a tenth of that.
    pub(crate) fn may_begin(&self, connection: &PortConnection, class: CallClass) -> bool {
        match class {
            CallClass::Raft => connection.is_lane() || connection.calls() < RAFT_PER_CONNECTION,
            _ => !(connection.leaves_many_unfinished() && self.is_crowded()),
        }
    }

    /// Whether so many requests are on their way that those of one address give way to one another.
    pub(crate) fn is_crowded(&self) -> bool {
        self.ledger().receiving.len() >= RECEIVING_MAX / 2
    }

    /// A call whose head has come.
    pub(crate) fn begin(
        self: &Arc<Self>,
        connection: &Arc<PortConnection>,
        class: CallClass,
        now: Instant,
    ) -> CallPermit {
        let evicted = CancellationToken::new();
        let mut ledger = self.ledger();
        ledger.last += 1;
        let number = ledger.last;
        if class != CallClass::Raft {
            let source = connection.source;
            let of_source = count(&ledger.receiving_of, source);
            let oldest = if of_source >= RECEIVING_MAX / 2 {
                ledger.receiving.iter().find(|(_, (other, _))| *other == source).map(|(number, _)| *number)
            } else if ledger.receiving.len() >= RECEIVING_MAX {
                ledger.receiving.keys().next().copied()
            } else {
                None
            };
            if let Some(oldest) = oldest.and_then(|number| ledger.received(number)) {
                oldest.cancel();
            }
            ledger.receiving.insert(number, (source, evicted.clone()));
            *ledger.receiving_of.entry(source).or_default() += 1;
        }
        drop(ledger);
        let call = connection.begin(Phase::Receiving, now);
        let held = HeldResources { phase: Phase::Receiving, counted: false, bytes: 0 };
        CallPermit {
            calls: self.clone(),
            connection: connection.clone(),
            number,
            call,
            class,
            evicted,
            held: Mutex::new(held),
        }
    }
}

#[derive(Debug)]
struct HeldResources {
    phase: Phase,
    /// It has a place among those that are worked on.
    counted: bool,
    bytes: usize,
}

/// What one call holds, until this is dropped.
#[derive(Debug)]
pub(crate) struct CallPermit {
    calls: Arc<CallLimiter>,
    connection: Arc<PortConnection>,
    /// Its number on the port, and on its connection.
    number: u64,
    call: u64,
    class: CallClass,
    evicted: CancellationToken,
    held: Mutex<HeldResources>,
}

/// What a caller is told who would hold too much.
pub(crate) fn too_many(what: &str) -> Status {
    Status::resource_exhausted(format!("this member holds {what}; try again later, or on another member"))
}

impl CallPermit {
    pub(crate) fn connection(&self) -> &Arc<PortConnection> {
        &self.connection
    }

    pub(crate) fn class(&self) -> CallClass {
        self.class
    }

    fn held(&self) -> MutexGuard<'_, HeldResources> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when its request has taken so long that others need its place.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// More of the request has come.
    ///
    /// # Errors
    /// When that is more than is held.
    pub(crate) fn add_request_bytes(&self, bytes: usize) -> Result<(), Status> {
        let source = self.connection.source;
        let mut ledger = self.calls.ledger();
        if ledger.bytes + bytes > BYTES_MAX || count(&ledger.bytes_of, source) + bytes > BYTES_PER_SOURCE {
            return Err(too_many("as many bytes of requests as it can, altogether or for this address"));
        }
        ledger.bytes += bytes;
        *ledger.bytes_of.entry(source).or_default() += bytes;
        drop(ledger);
        self.held().bytes += bytes;
        Ok(())
    }

    /// The request is here: from now on it is worked on. Said again it changes nothing.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(crate) fn start(&self, now: Instant) -> Result<(), Status> {
        let mut held = self.held();
        if held.phase != Phase::Receiving {
            return Ok(());
        }
        let mut ledger = self.calls.ledger();
        ledger.received(self.number);
        let (class, connection) = (self.class, &self.connection);
        if !ledger.has_room(class, connection) {
            let stuck = ledger.stuck(now).inspect(|stuck| stuck.abort());
            // What it holds comes back when its tasks end; until then there is one call more.
            if stuck.is_none() {
                return Err(too_many("as many calls as it can, altogether or for this address"));
            }
        }
        *ledger.classes.entry(class).or_default() += 1;
        *ledger.sources.entry((class, connection.source)).or_default() += 1;
        *ledger.connections.entry((class, connection.number)).or_default() += 1;
        drop(ledger);
        held.counted = true;
        held.phase = Phase::Running;
        drop(held);
        connection.advance(self.call, Phase::Running, now);
        Ok(())
    }

    /// The answer's head is here, and its rest is being fetched.
    pub(crate) fn answer(&self, now: Instant) {
        let mut held = self.held();
        held.phase = if self.class == CallClass::Streaming { Phase::Running } else { Phase::Sending };
        let phase = held.phase;
        drop(held);
        let mut ledger = self.calls.ledger();
        ledger.received(self.number);
        if phase == Phase::Sending && self.class != CallClass::Raft {
            ledger.sending.insert(self.number, (now, self.connection.clone()));
        }
        drop(ledger);
        // Raft's streams of answers have no end.
        if self.class != CallClass::Raft {
            self.connection.advance(self.call, phase, now);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let (counted, bytes) = {
            let held = self.held();
            (held.counted, held.bytes)
        };
        let (class, source) = (self.class, self.connection.source);
        let mut ledger = self.calls.ledger();
        ledger.received(self.number);
        ledger.sending.remove(&self.number);
        ledger.bytes = ledger.bytes.saturating_sub(bytes);
        decrease(&mut ledger.bytes_of, source, bytes);
        if counted {
            decrease(&mut ledger.classes, class, 1);
            decrease(&mut ledger.sources, (class, source), 1);
            decrease(&mut ledger.connections, (class, self.connection.number), 1);
        }
        drop(ledger);
        self.connection.end(self.call, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::IpAddr;

    use super::super::ConnectionOrigin;
    use super::*;

    struct TestPort {
        calls: Arc<CallLimiter>,
        now: Instant,
        last: u64,
    }

    impl TestPort {
        fn new() -> Self {
            Self { calls: Arc::default(), now: Instant::now(), last: 0 }
        }

        fn connection(&mut self, ip: &str) -> Arc<PortConnection> {
            self.last += 1;
            let origin = ConnectionOrigin::Tcp((ip.parse::<IpAddr>().unwrap(), 5000).into());
            Arc::new(PortConnection::new(self.last, origin, self.now))
        }

        fn begin(&self, connection: &Arc<PortConnection>, class: CallClass) -> CallPermit {
            self.calls.begin(connection, class, self.now)
        }

        /// Begins and starts as many calls as there is place for.
        fn fill(&self, connection: &Arc<PortConnection>, class: CallClass) -> Vec<CallPermit> {
            let started = |_| {
                let permit = self.begin(connection, class);
                permit.start(self.now).ok().map(|()| permit)
            };
            (0..1000).map_while(started).collect()
        }
    }

    #[test]
    fn heads_without_bodies_push_out_one_another() {
        let mut port = TestPort::new();
        let hog = port.connection("192.0.2.1");
        let held: Vec<_> = (0..4400).map(|_| port.begin(&hog, CallClass::Unary)).collect();
        let alive = held.iter().filter(|permit| !permit.evicted.is_cancelled()).count();
        assert_eq!(alive, RECEIVING_MAX / 2);
        // Of the same address or of another: one that comes whole is worked on.
        for ip in ["192.0.2.1", "192.0.2.2"] {
            let other = port.connection(ip);
            let permit = port.begin(&other, CallClass::Unary);
            assert!(!permit.evicted.is_cancelled() && permit.start(port.now).is_ok());
        }
    }

    #[test]
    fn a_connection_of_unfinished_requests_gets_no_more_while_the_port_is_crowded() {
        let mut port = TestPort::new();
        let hog = port.connection("192.0.2.1");
        let begin = |connection: &Arc<PortConnection>, count: usize| -> Vec<_> {
            (0..count).map(|_| port.begin(connection, CallClass::Unary)).collect()
        };
        let held = begin(&hog, RECEIVING_MAX / 2 - 1);
        assert!(port.calls.may_begin(&hog, CallClass::Unary), "the port is not crowded");
        let one_more = begin(&hog, 1);
        assert!(!port.calls.may_begin(&hog, CallClass::Unary));
        let other = port.connection("192.0.2.1");
        assert!(port.calls.may_begin(&other, CallClass::Unary), "it has none");
        drop((held, one_more));
        assert!(port.calls.may_begin(&hog, CallClass::Unary));
    }

    #[test]
    fn one_address_gets_half_and_one_connection_three_quarters_of_that() {
        let mut port = TestPort::new();
        let hog = port.connection("192.0.2.1");
        let first = port.fill(&hog, CallClass::Unary);
        assert!((180..=200).contains(&first.len()), "{}", first.len());
        let second = port.connection("192.0.2.1");
        let second = port.fill(&second, CallClass::Unary);
        assert!(!second.is_empty() && first.len() + second.len() <= 257);
        let other = port.connection("192.0.2.2");
        assert!(port.fill(&other, CallClass::Unary).len() > 60);
        let probe = port.begin(&other, CallClass::Health);
        assert!(probe.start(port.now).is_ok(), "health has places of its own");
        drop((first, second, probe));
        let ledger = port.calls.ledger();
        assert!(ledger.sources.is_empty() && ledger.connections.is_empty());
        assert!(ledger.receiving.is_empty() && ledger.receiving_of.is_empty());
    }

    #[test]
    fn an_answer_that_nobody_fetches_costs_its_connection() {
        let mut port = TestPort::new();
        let hog = port.connection("192.0.2.1");
        let held = port.fill(&hog, CallClass::Unary);
        held.iter().for_each(|permit| permit.answer(port.now));
        let one_more = port.begin(&hog, CallClass::Unary);
        assert_eq!(one_more.start(port.now).unwrap_err().code(), tonic::Code::ResourceExhausted);
        port.now += SENDING_GIVES_WAY;
        let one_more = port.begin(&hog, CallClass::Unary);
        assert!(one_more.start(port.now).is_ok());
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mut port = TestPort::new();
        let hog = port.connection("192.0.2.1");
        let permits: Vec<_> = (0..33).map(|_| port.begin(&hog, CallClass::Unary)).collect();
        let taken = permits.iter().filter(|permit| permit.add_request_bytes(1 << 20).is_ok()).count();
        assert_eq!(taken, 32);
        let other = port.connection("192.0.2.2");
        assert!(port.begin(&other, CallClass::Unary).add_request_bytes(1 << 20).is_ok());
        drop(permits);
        assert_eq!(port.calls.ledger().bytes, 0);
    }

    #[test]
    fn a_lane_is_not_bounded_and_a_stranger_is() {
        let mut port = TestPort::new();
        let (stranger, lane) = (port.connection("192.0.2.1"), port.connection("192.0.2.1"));
        let begun = |connection: &Arc<PortConnection>| {
            let begin = |_| {
                port.calls
                    .may_begin(connection, CallClass::Raft)
                    .then(|| port.begin(connection, CallClass::Raft))
            };
            (0..1000).map_while(begin).collect::<Vec<_>>().len()
        };
        lane.make_lane();
        assert_eq!((begun(&stranger), begun(&lane)), (RAFT_PER_CONNECTION, 1000));
    }
}
