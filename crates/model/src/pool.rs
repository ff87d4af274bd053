//! Pools, their backends and their health checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{BackendAddress, Port};
use crate::check::CheckKind;
use crate::defaults;
use crate::metadata::Metadata;
use crate::name::{BackendName, PoolName};
use crate::revision::Revision;
use crate::violation::{Violations, within};

/// How a pool picks a backend for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Each backend in turn, in proportion to its weight.
    #[default]
    RoundRobin,
    /// The backend with the fewest connections for its weight.
    LeastConnections,
    /// Of two backends drawn in proportion to their weights, the one with fewer connections for its weight.
    RandomTwo,
    /// The backend that Maglev's table gives for the client's address: clients stay where they are when backends come
    /// and go, as far as can be.
    SourceHash,
    /// As [`Algorithm::SourceHash`], over the client's address and port: every connection of a client on its own.
    SourcePortHash,
    /// The first backend in the order of names.
    First,
}

/// The PROXY protocol header that backends are sent, which tells them the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendProxy {
    /// None.
    #[default]
    Off,
    /// Version 1, in words.
    V1,
    /// Version 2, in bytes, with the TLVs that the client's header had.
    V2,
}

/// What a backend counts as before its first check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialState {
    /// Unknown: used while no healthy backend is there. The first result decides.
    #[default]
    Unknown,
    /// Healthy, until checks fail.
    Healthy,
    /// Unhealthy, until checks succeed.
    Unhealthy,
}

/// What a pool does with connections to a backend that is found unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// Resets both legs, so that clients reconnect to another backend at once.
    #[default]
    Close,
    /// Leaves them alone.
    Keep,
}

/// What a pool does with the connections of its backups when a backend that is no backup is usable again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnPrimaryUp {
    /// Leaves them alone.
    #[default]
    Keep,
    /// Resets both legs, and leads nobody to a backup for as long as such a backend is usable: there are never two sides
    /// that take writes, as far as this member sees.
    Close,
}

/// What a pool does with new connections while it is down: while fewer backends are usable than it wants at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllDown {
    /// Resets them at once.
    #[default]
    Refuse,
    /// Tries backends all the same, the unhealthy ones too.
    FailOpen,
}

/// How the backends of a pool are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a check does.
    pub kind: CheckKind,
    /// Time between two checks while the verdict stands.
    pub interval: Duration,
    /// Time between two checks while the last result contradicts the verdict.
    pub fast_interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy backend healthy.
    pub rise: u32,
    /// Failures in a row that make a healthy backend unhealthy.
    pub fall: u32,
    /// Part of the interval by which each check is moved at random, in percent.
    pub jitter_percent: u32,
    /// Port that is checked, or `None` for the backend's own.
    pub port: Option<Port>,
    /// What a backend counts as before its first check has ended.
    pub initial_state: InitialState,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            interval: defaults::CHECK_INTERVAL,
            fast_interval: defaults::CHECK_FAST_INTERVAL,
            timeout: defaults::CHECK_TIMEOUT,
            rise: defaults::CHECK_RISE,
            fall: defaults::CHECK_FALL,
            jitter_percent: defaults::CHECK_JITTER_PERCENT,
            port: None,
            initial_state: InitialState::default(),
        }
    }
}

/// The settings of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// How backends are checked.
    pub health: HealthCheck,
    /// How long one connect to a backend may take.
    pub connect_timeout: Duration,
    /// Further backends tried after a failed connect.
    pub connect_retries: u32,
    /// What happens to connections to a backend that is found unhealthy.
    pub on_down: OnDown,
    /// What happens to connections to backups when a primary is usable again.
    pub on_primary_up: OnPrimaryUp,
    /// What happens to new connections while the pool is down.
    pub all_down: AllDown,
    /// Usable backends below which the pool is down: enabled ones that are not found unhealthy, backups too.
    pub minimum_healthy: u32,
    /// Clients that may wait, on each member, for a place at backends that have all the connections they may have.
    pub queue_length: u32,
    /// How long each of them waits before it is reset.
    pub queue_timeout: Duration,
    /// Time in which the share of a backend that became healthy grows to its weight; 0 gives it all at once.
    pub slow_start: Duration,
    /// How long a client's address is remembered with its backend after its last connection began or ended, so that it
    /// comes back to that backend; 0 remembers none.
    pub stickiness: Duration,
    /// Time without a byte in either direction after which a connection is reset; 0 for no bound.
    pub idle_timeout: Duration,
    /// Time after which a connection is reset, whatever it does; 0 for no bound.
    pub max_lifetime: Duration,
    /// The last part of a longest lifetime, of a drain's time and of a member's grace time over which ends are spread, in
    /// percent; 0 for all at once.
    pub close_spread_percent: u32,
    /// Time without any answer from a peer's system after which a connection is reset.
    pub dead_peer_timeout: Duration,
    /// The header that backends are sent.
    pub send_proxy: SendProxy,
    /// Who cares for it, and notes.
    pub metadata: Metadata,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            health: HealthCheck::default(),
            connect_timeout: defaults::CONNECT_TIMEOUT,
            connect_retries: defaults::CONNECT_RETRIES,
            on_down: OnDown::default(),
            on_primary_up: OnPrimaryUp::default(),
            all_down: AllDown::default(),
            minimum_healthy: defaults::MINIMUM_HEALTHY,
            queue_length: defaults::QUEUE_LENGTH,
            queue_timeout: defaults::QUEUE_TIMEOUT,
            slow_start: Duration::ZERO,
            stickiness: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            max_lifetime: Duration::ZERO,
            close_spread_percent: defaults::CLOSE_SPREAD_PERCENT,
            dead_peer_timeout: defaults::DEAD_PEER_TIMEOUT,
            send_proxy: SendProxy::default(),
            metadata: Metadata::default(),
        }
    }
}

impl PoolSpec {
    /// Notes every setting that is out of bounds.
    pub fn check(&self, v: &mut Violations) {
        self.check_numbers(v);
        self.health.kind.check(v);
        self.metadata.check("pool", v);
    }

    /// Notes every number and duration that is out of bounds.
    pub fn check_numbers(&self, v: &mut Violations) {
        let h = &self.health;
        within(v, "pool.connect_timeout", &self.connect_timeout, &defaults::CONNECT_TIMEOUT_BOUNDS);
        within(v, "pool.connect_retries", &self.connect_retries, &defaults::CONNECT_RETRIES_BOUNDS);
        within(v, "pool.minimum_healthy", &self.minimum_healthy, &defaults::MINIMUM_HEALTHY_BOUNDS);
        within(v, "pool.queue_length", &self.queue_length, &defaults::QUEUE_LENGTH_BOUNDS);
        within(v, "pool.queue_timeout", &self.queue_timeout, &defaults::QUEUE_TIMEOUT_BOUNDS);
        within(v, "pool.slow_start", &self.slow_start, &defaults::SLOW_START_BOUNDS);
        within(v, "pool.stickiness", &self.stickiness, &defaults::STICKINESS_BOUNDS);
        within(v, "pool.idle_timeout", &self.idle_timeout, &defaults::LIFE_BOUNDS);
        within(v, "pool.max_lifetime", &self.max_lifetime, &defaults::LIFE_BOUNDS);
        let spread = "pool.close_spread_percent";
        within(v, spread, &self.close_spread_percent, &defaults::CLOSE_SPREAD_BOUNDS);
        let dead_peer = "pool.dead_peer_timeout";
        within(v, dead_peer, &self.dead_peer_timeout, &defaults::DEAD_PEER_TIMEOUT_BOUNDS);
        within(v, "pool.health_check.interval", &h.interval, &defaults::CHECK_INTERVAL_BOUNDS);
        within(v, "pool.health_check.fast_interval", &h.fast_interval, &defaults::CHECK_INTERVAL_BOUNDS);
        within(v, "pool.health_check.timeout", &h.timeout, &defaults::CHECK_TIMEOUT_BOUNDS);
        within(v, "pool.health_check.rise", &h.rise, &defaults::CHECK_COUNT_BOUNDS);
        within(v, "pool.health_check.fall", &h.fall, &defaults::CHECK_COUNT_BOUNDS);
        within(v, "pool.health_check.jitter_percent", &h.jitter_percent, &defaults::CHECK_JITTER_BOUNDS);
    }
}

/// A named set of backends with a way to pick among them and a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The pool's name.
    pub name: PoolName,
    /// Its settings.
    pub spec: PoolSpec,
    /// Revision that last changed the settings (not the backends).
    pub revision: Revision,
}

/// A pool together with its backends, as the state keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEntry {
    /// The pool itself.
    pub pool: Arc<Pool>,
    /// Its backends by name.
    pub backends: BTreeMap<BackendName, Arc<Backend>>,
}

/// What an operator wants of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdminState {
    /// Takes connections while healthy.
    #[default]
    Enabled,
    /// Takes no new connections; old ones finish, or are closed after the time given, counted on each member from
    /// when it learns of the drain.
    Draining {
        /// Time after which connections that are left are closed; `None` leaves them be.
        timeout: Option<Duration>,
    },
    /// Takes no connections, and those it has are closed.
    Disabled,
}

impl AdminState {
    /// The state's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining { .. } => "draining",
            Self::Disabled => "disabled",
        }
    }

    /// Notes the time of a drain if it is out of bounds.
    pub fn check(&self, v: &mut Violations) {
        if let Self::Draining { timeout: Some(timeout) } = self {
            within(v, "backend.drain_timeout", timeout, &defaults::DRAIN_TIMEOUT_BOUNDS);
        }
    }
}

/// The settings of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    /// Where it is dialled.
    pub address: BackendAddress,
    /// Share of connections in proportion to the other backends' weights; 0 takes no new connections.
    pub weight: u16,
    /// Used only while no backend that is not a backup is usable.
    pub backup: bool,
    /// Connections that it takes from each member at a time; 0 for no bound.
    pub max_connections: u32,
    /// Who cares for it, and notes.
    pub metadata: Metadata,
}

impl BackendSpec {
    /// A backend with default settings at `address`.
    pub fn at(address: BackendAddress) -> Self {
        Self {
            address,
            weight: defaults::WEIGHT,
            backup: false,
            max_connections: 0,
            metadata: Metadata::default(),
        }
    }

    /// Notes every setting that is out of bounds.
    pub fn check(&self, v: &mut Violations) {
        self.check_numbers(v);
        self.metadata.check("backend", v);
    }

    /// Notes every number that is out of bounds.
    pub fn check_numbers(&self, v: &mut Violations) {
        within(v, "backend.max_connections", &self.max_connections, &defaults::CONNECTIONS_BOUNDS);
        within(v, "backend.weight", &self.weight, &defaults::WEIGHT_BOUNDS);
    }
}

/// An address in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The backend's name, unique in its pool.
    pub name: BackendName,
    /// Its settings.
    pub spec: BackendSpec,
    /// What the operator switched it to; a document of its own.
    pub admin_state: AdminState,
    /// Revision that last changed its settings or switched it.
    pub revision: Revision,
}
