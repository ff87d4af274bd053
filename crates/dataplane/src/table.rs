//! The published table: what workers look at for each connection, and what reports show.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use trestle_engine::{Schedule, Verdict};
use trestle_model::{self as model, BackendName, Bind, ListenerName, PoolName, Revision};

use crate::bind::BindError;
use crate::counters::Counters;
use crate::live::Live;
use crate::random::random;

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
}

impl Listener {
    /// The addresses that accept connections.
    pub fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        self.binds.iter().filter(|b| b.error.is_none()).map(|b| b.effective)
    }

    /// What keeps the other addresses from being bound.
    pub fn errors(&self) -> impl Iterator<Item = &BindError> {
        self.binds.iter().filter_map(|b| b.error.as_deref())
    }
}

/// One socket address of a listener on this member.
#[derive(Debug, Clone)]
pub struct BindStatus {
    /// The address as configured.
    pub configured: Bind,
    /// The address on this member: its data address in place of a wildcard, if it has one of that family.
    pub effective: SocketAddr,
    /// Why it does not accept connections, if it does not.
    pub error: Option<Arc<BindError>>,
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
}

/// The next turns of a pool; shared by all workers and outliving tables, so that turns go on across changes.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// For the first backend of a connection.
    first: AtomicU64,
    /// For those after a failed connect. Were they taken from the others, then each would bring the backend that does
    /// not answer round sooner; of two backends it would come first for every connection.
    again: AtomicU64,
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

    /// Picks a backend that is not among `tried` for a connection from `client`.
    pub(crate) fn pick(&self, client: IpAddr, tried: &[Arc<Live>]) -> Option<&Arc<Backend>> {
        let live = |position: usize| self.backends.get(position).map(|b| &b.live);
        let turn = if tried.is_empty() { &self.turns.first } else { &self.turns.again };
        let picked = self.schedule.pick(
            client,
            || turn.fetch_add(1, Relaxed),
            random,
            |position| live(position).map_or(u64::MAX, |l| l.counters.active()),
            |position| live(position).is_none_or(|l| tried.iter().any(|t| Arc::ptr_eq(t, l))),
        )?;
        self.backends.get(picked)
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
    /// Since when the verdict stands.
    pub since: Instant,
    /// Where it is dialled: its address, or what its name stands for; `None` while that is not known.
    pub ip: Option<IpAddr>,
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
}

impl CheckResult {
    /// Whether the check succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Connected | Self::Secured | Self::Answered(_))
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
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut(timeout) => write!(f, "timed out after {timeout:?}"),
            Self::Unreachable => f.write_str("no route to host"),
            Self::Failed(code) => std::io::Error::from_raw_os_error(*code).fmt(f),
            Self::Wrong(words) => f.write_str(words),
        }
    }
}
