//! The published table: what workers look at for each connection, and what reports show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use trestle_engine::{Picked, Schedule, Standing, Verdict};
use trestle_model::{self as model, AdminState, BackendName, Bind, ListenerName, PoolName, Revision};

use crate::accept::admission::Gate;
use crate::accept::bind::{self, BindError, BindFailure};
use crate::machine::shortage::Shortage;
use crate::observe::counters::Counters;
use crate::observe::history::{History, VerdictChange};
use crate::upstream::backend_runtime::Live;
use crate::upstream::loop_guard::{Barred, Guard};
use crate::upstream::queue::Queue;
use crate::upstream::random::random;
use crate::upstream::slot::{Place, Taken};
use crate::upstream::stickiness::Sticky;

/// Everything that the data plane acts on, at one instant. Parts that two tables have in common are shared.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Revision of the configuration that this table reflects.
    pub revision: Revision,
    /// Listeners by name.
    pub listeners: Arc<BTreeMap<ListenerName, Arc<Listener>>>,
    /// Pools by name.
    pub pools: Arc<BTreeMap<PoolName, Arc<Pool>>>,
    /// The listener that each bound address belongs to.
    pub(crate) routes: Arc<BTreeMap<SocketAddr, Arc<Listener>>>,
    /// Where no connection may go.
    pub(crate) guard: Arc<Guard>,
    /// Listeners that are bound to a wildcard and get no connections at an address of another one, in words.
    pub shadowed: Arc<[String]>,
    /// Addresses of virtual IPs, whether or not this member holds them.
    pub(crate) vips: Arc<BTreeSet<IpAddr>>,
    /// Whether this member takes no new connections because it is drained.
    pub drained: bool,
    /// When the connections that are left on it are closed for that reason.
    pub drain_ends: Option<Instant>,
}

impl Table {
    /// What this member says of a backend: nothing good of one to which it leads nobody, whatever its checks find.
    pub fn verdict(&self, backend: &Backend) -> Verdict {
        if self.barred(backend).is_some() { Verdict::Unhealthy } else { backend.verdict }
    }

    /// Why that is its verdict, in words.
    pub fn grounds(&self, backend: &Backend) -> String {
        match self.barred(backend) {
            Some(why) => format!("{why}, so no client is led there; {}", backend.grounds()),
            None => backend.grounds(),
        }
    }

    /// Why no client is ever led to a backend with a port of its own, if that is so: it is a listener of this cluster, a
    /// member's own port, or outside of this member's networks.
    pub fn barred(&self, backend: &Backend) -> Option<&'static str> {
        let port = backend.config.spec.address.port;
        let address = backend.ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port.get()));
        match self.guard.bars(address?)? {
            Barred::Listener => Some("is a listener of this cluster"),
            Barred::OwnPort => Some("is a port of a member of this cluster itself"),
            Barred::Network => Some("is in none of this member's backend_networks"),
        }
    }

    /// The pools that listeners lead to.
    pub fn used_pools(&self) -> BTreeSet<&PoolName> {
        let specs = self.listeners.values().map(|listener| &listener.config.spec);
        specs.flat_map(|spec| spec.routes.iter().map(|route| &route.pool).chain([&spec.pool])).collect()
    }
}

/// A listener on this member.
#[derive(Debug)]
pub struct Listener {
    /// Its configuration.
    pub config: Arc<model::Listener>,
    /// Its addresses on this member, in the order of the configuration.
    pub binds: Vec<BindStatus>,
    /// What came in through it.
    pub counters: Arc<Counters>,
    pub(crate) gate: Arc<Gate>,
}

impl Listener {
    /// The addresses that accept connections.
    pub fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        self.binds.iter().filter(|b| b.error.is_none()).map(|b| b.effective)
    }

    /// The other addresses, with what keeps them from being bound; that they wait for the first checks or for their turn is no
    /// error.
    pub fn failed(&self) -> impl Iterator<Item = (SocketAddr, &BindError)> {
        let failed = self.binds.iter().filter_map(|b| Some((b.effective, b.error.as_ref()?)));
        failed.filter(|(_, error)| !error.is_passing())
    }

    /// What keeps addresses from being bound, in words: one text for each reason.
    pub fn errors(&self) -> Vec<String> {
        bind::told(self.failed())
    }

    /// What keeps addresses from being bound, by reason: the first eight reasons.
    pub fn bind_failures(&self) -> Vec<BindFailure> {
        bind::failures(self.failed()).0
    }

    /// Whether it waits for the first checks of its backends.
    pub fn is_unchecked(&self) -> bool {
        self.binds.iter().any(|b| b.error == Some(BindError::Unchecked))
    }
}

/// One socket address of a listener on this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindStatus {
    /// The address as configured.
    pub configured: Bind,
    /// The address on this member: its data address in place of a wildcard, if it has one of that family.
    pub effective: SocketAddr,
    /// Why it does not accept connections, if it does not.
    pub error: Option<BindError>,
}

/// A pool with its backends, prepared for picking.
#[derive(Debug)]
pub struct Pool {
    /// Its configuration.
    pub config: Arc<model::Pool>,
    /// Its backends in the order of their names.
    pub backends: Vec<Arc<Backend>>,
    pub(crate) schedule: Schedule,
    pub(crate) turns: Arc<Turns>,
    pub(crate) queue: Arc<Queue>,
    /// Who had which backend, if the pool remembers.
    pub(crate) sticky: Option<Sticky>,
}

/// The next turns of a pool; shared by all workers and outliving tables, so that turns go on across changes.
#[derive(Debug)]
pub(crate) struct Turns {
    /// For the first backend of a connection.
    first: AtomicU64,
    /// For those after a failed connect. Were they taken from the others, then each would bring the backend that does
    /// not answer round sooner; of two backends it would come first for every connection.
    again: AtomicU64,
}

impl Turns {
    /// Both begin at `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first: AtomicU64::new(first), again: AtomicU64::new(first) }
    }
}

impl Pool {
    /// A backend by name.
    pub fn backend(&self, name: &BackendName) -> Option<&Arc<Backend>> {
        let found = self.backends.binary_search_by(|b| b.config.name.cmp(name)).ok()?;
        self.backends.get(found)
    }

    /// Whether any backend can take a connection.
    pub fn is_usable(&self) -> bool {
        self.schedule.is_usable()
    }

    /// Clients that wait for a place at its backends now.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Takes a place for a connection from `client` that has failed at the backends of `tried`. While others wait, there
    /// is none: who comes now waits behind them.
    pub(crate) fn take(&self, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        if self.queue.waiting() > 0 { Taken::Full } else { self.place(client, tried) }
    }

    /// As [`Pool::take`], for the one whose turn it is.
    pub(crate) fn place(&self, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        match &self.sticky {
            None => self.pick(client, tried),
            Some(sticky) => self.place_sticky(sticky, client, tried),
        }
    }

    /// A place at the backend that the client had last, or else another. It keeps its own while that is only full, and
    /// gets the new one for its own when the former is gone, down, or has just failed it.
    fn place_sticky(&self, sticky: &Sticky, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        let known = sticky.find(client).filter(|position| self.schedule.admits(*position));
        let known = known.and_then(|position| self.backends.get(position));
        let own = known.filter(|backend| !tried.iter().any(|t| Arc::ptr_eq(t, &backend.live)));
        let mut taken = match own.and_then(|backend| Some((Place::take(backend)?, backend))) {
            Some((place, backend)) => Taken::Place(place, backend),
            None => self.pick(client, tried),
        };
        if let Taken::Place(place, backend) = &mut taken {
            let passing = own.is_some_and(|own| !Arc::ptr_eq(own, backend));
            place.visit = Some(Box::new(sticky.begin(client, backend.live.tenure(), passing)));
        }
        taken
    }

    fn pick(&self, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        let turn = if tried.is_empty() { &self.turns.first } else { &self.turns.again };
        let standing = |position: usize| match self.backends.get(position) {
            Some(b) if tried.iter().any(|t| Arc::ptr_eq(t, &b.live)) => Standing::Tried,
            Some(b) if b.live.counters.is_full(b.config.spec.max_connections) => Standing::Full,
            Some(_) => Standing::Open,
            None => Standing::Tried,
        };
        loop {
            let picked = self.schedule.pick(
                client,
                || turn.fetch_add(1, Relaxed),
                random,
                |position| self.backends.get(position).map_or(0, |b| b.live.counters.active()),
                standing,
            );
            let backend = match picked {
                Picked::At(position) => self.backends.get(position),
                Picked::Full => return Taken::Full,
                Picked::Nothing => None,
            };
            let Some(backend) = backend else { return Taken::Nothing };
            // Another worker may have taken the last place in the meantime; then there is one less to look at.
            if let Some(place) = Place::take(backend) {
                return Taken::Place(place, backend);
            }
        }
    }
}

/// A backend as this member sees it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its configuration.
    pub config: Arc<model::Backend>,
    /// What this member thinks of it.
    pub verdict: Verdict,
    /// The check result that the verdict rests on.
    pub reason: CheckResult,
    /// The address that was checked, of a backend that is known by name.
    pub reason_ip: Option<IpAddr>,
    /// What keeps this member from checking it now, if anything does; then the verdict stays as it was.
    pub unchecked: Option<Shortage>,
    /// Since when the verdict stands.
    pub since: Instant,
    /// Where it is dialled: its address, or the one in use of those of its name; `None` while that is not known.
    pub ip: Option<IpAddr>,
    /// What its name stands for, in the order in which it is tried; empty for a backend that is known by its address.
    pub addresses: Arc<[IpAddr]>,
    pub(crate) history: History,
    /// When it came back: it became healthy after it was unhealthy, or was enabled after it was drained or disabled.
    pub(crate) risen: Option<Instant>,
    /// When the connections that are left are closed, because it is drained with a deadline.
    pub drain_ends: Option<Instant>,
    pub(crate) live: Arc<Live>,
    /// Value of [`Live::epoch`] that connections picked from this entry belong to.
    pub(crate) epoch: u32,
}

impl Backend {
    /// Where it is dialled for a client that dialled the port `dialled`; `None` while its name's address is not known.
    pub(crate) fn address(&self, dialled: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip?, self.config.spec.address.port_for(dialled)))
    }

    /// What went to it.
    pub fn counters(&self) -> &Counters {
        &self.live.counters
    }

    /// The last 16 changes of its verdict, the oldest first; it begins as unknown.
    pub fn history(&self) -> &[VerdictChange] {
        self.history.changes()
    }

    /// Takes note that it has other settings than `before`.
    pub(crate) fn admit(&mut self, before: &model::Backend, at: Instant) {
        let enabled = |settings: &model::Backend| settings.spec.admin_state == AdminState::Enabled;
        if enabled(&self.config) && !enabled(before) {
            self.risen = Some(at);
        }
    }

    /// Its other addresses, beginning with the one after that in use.
    pub fn other_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let current = self.addresses.iter().position(|ip| Some(*ip) == self.ip);
        let (before, from) = self.addresses.split_at(current.unwrap_or(0));
        from.iter().skip(usize::from(current.is_some())).chain(before).copied()
    }

    /// Takes over a verdict or another reason for the one that stands.
    pub(crate) fn judge(&mut self, verdict: Verdict, reason: CheckResult, at: Instant) {
        if self.verdict != verdict {
            // Not where a backend only counts as unhealthy until its first check has ended.
            let was_down = self.verdict == Verdict::Unhealthy && self.reason != CheckResult::Awaited;
            match verdict {
                Verdict::Healthy if was_down => self.risen = Some(at),
                Verdict::Unhealthy => self.risen = None,
                Verdict::Healthy | Verdict::Unknown => {}
            }
            if verdict == Verdict::Unhealthy {
                self.live.fell();
            }
            (self.verdict, self.since) = (verdict, at);
            self.history.add(VerdictChange { at, verdict, reason: reason.clone(), ip: self.reason_ip });
        }
        (self.reason, self.unchecked) = (reason, None);
    }

    /// Why the verdict is what it is, in words, and what keeps this member from checking it.
    pub fn grounds(&self) -> String {
        let mut grounds = self.reason.at(self.reason_ip);
        let others = self.addresses.len().saturating_sub(1);
        if others > 0 && self.verdict == Verdict::Unhealthy && self.reason != CheckResult::Awaited {
            grounds = format!("{grounds}; its other addresses ({others}) fail too");
        }
        match &self.unchecked {
            Some(shortage) => format!("{grounds}; now {}", CheckResult::NotMade(shortage.clone())),
            None => grounds,
        }
    }
}

/// The result of a check, in words when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// None has ended yet.
    Awaited,
    /// The pool has no check.
    Off,
    /// The backend accepted a connection.
    Connected,
    /// It did a TLS handshake, and its certificate is as wanted.
    Secured,
    /// It answered over HTTP as wanted, with this status.
    Answered(u16),
    /// It answered over gRPC that it is serving.
    Serving,
    /// Its answer contains what is expected.
    Expected,
    /// It refused or reset the connection.
    Refused,
    /// No answer in the time given.
    TimedOut(Duration),
    /// No route to it, or a router or the host's network answered so.
    Unreachable,
    /// Another error of the operating system, by number.
    Failed(i32),
    /// It is connected but does not do what the check wants, or the check cannot be done as configured; in words.
    Wrong(Arc<str>),
    /// Its name's address is not known, for this reason.
    Unresolved(Arc<str>),
    /// No check could be made, for want of something on this machine; that says nothing of the backend.
    NotMade(Shortage),
}

impl CheckResult {
    /// In words, with the address that was checked where that is not plain.
    pub fn at(&self, ip: Option<IpAddr>) -> String {
        let is_of_check = !matches!(self, Self::Awaited | Self::Off | Self::Unresolved(_));
        match ip.filter(|_| is_of_check) {
            Some(ip) => format!("{ip}: {self}"),
            None => self.to_string(),
        }
    }

    /// Whether the check succeeded.
    pub fn is_success(&self) -> bool {
        use CheckResult::{Answered, Connected, Expected, Secured, Serving};
        matches!(self, Connected | Secured | Answered(_) | Serving | Expected)
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited => f.write_str("not checked yet"),
            Self::Off => f.write_str("the pool has no health check"),
            Self::Connected => f.write_str("connected"),
            Self::Secured => f.write_str("TLS handshake done"),
            Self::Answered(status) => write!(f, "HTTP {status}"),
            Self::Serving => f.write_str("gRPC: SERVING"),
            Self::Expected => f.write_str("answer as expected"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut(timeout) => write!(f, "timed out after {timeout:?}"),
            Self::Unreachable => f.write_str("no route to host"),
            Self::Failed(code) => std::io::Error::from_raw_os_error(*code).fmt(f),
            Self::Wrong(words) | Self::Unresolved(words) => f.write_str(words),
            Self::NotMade(shortage) => write!(f, "not checked: {shortage}"),
        }
    }
}
