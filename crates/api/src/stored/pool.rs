//! Pools with their health checks.

use std::sync::Arc;
use std::time::Duration;

use trestle_model::{
    Algorithm, AllDown, Backend, HealthCheck, HealthPatch, InitialState, OnDown, OnPrimaryUp, Pool,
    PoolEntry, PoolName, PoolPatch, PoolSpec, Port, SendProxy,
};

use super::check;
use super::{DecodeError, duration, duration_message, in_bounds, number, parsed, required};
use crate::storage;

fn algorithm_message(algorithm: Algorithm) -> i32 {
    match algorithm {
        Algorithm::RoundRobin => storage::Algorithm::RoundRobin.into(),
        Algorithm::LeastConnections => storage::Algorithm::LeastConnections.into(),
        Algorithm::RandomTwo => storage::Algorithm::RandomTwo.into(),
        Algorithm::SourceHash => storage::Algorithm::SourceHash.into(),
        Algorithm::SourcePortHash => storage::Algorithm::SourcePortHash.into(),
        Algorithm::First => storage::Algorithm::First.into(),
    }
}

fn algorithm(number: i32) -> Result<Algorithm, DecodeError> {
    match storage::Algorithm::try_from(number) {
        Ok(storage::Algorithm::RoundRobin) => Ok(Algorithm::RoundRobin),
        Ok(storage::Algorithm::LeastConnections) => Ok(Algorithm::LeastConnections),
        Ok(storage::Algorithm::RandomTwo) => Ok(Algorithm::RandomTwo),
        Ok(storage::Algorithm::SourceHash) => Ok(Algorithm::SourceHash),
        Ok(storage::Algorithm::SourcePortHash) => Ok(Algorithm::SourcePortHash),
        Ok(storage::Algorithm::First) => Ok(Algorithm::First),
        Ok(storage::Algorithm::Unspecified) | Err(_) => {
            Err(DecodeError::rule("balance algorithm", number, "is none that this version knows"))
        }
    }
}

fn on_down_message(on_down: OnDown) -> i32 {
    match on_down {
        OnDown::Close => storage::OnDown::Close.into(),
        OnDown::Keep => storage::OnDown::Keep.into(),
    }
}

fn on_down(number: i32) -> Result<OnDown, DecodeError> {
    match storage::OnDown::try_from(number) {
        Ok(storage::OnDown::Close | storage::OnDown::Unspecified) => Ok(OnDown::Close),
        Ok(storage::OnDown::Keep) => Ok(OnDown::Keep),
        Err(_) => Err(DecodeError::rule("policy on_down", number, "is none that this version knows")),
    }
}

fn on_primary_up_message(on_primary_up: OnPrimaryUp) -> i32 {
    match on_primary_up {
        OnPrimaryUp::Keep => storage::OnPrimaryUp::Keep.into(),
        OnPrimaryUp::Close => storage::OnPrimaryUp::Close.into(),
    }
}

fn on_primary_up(number: i32) -> Result<OnPrimaryUp, DecodeError> {
    match storage::OnPrimaryUp::try_from(number) {
        Ok(storage::OnPrimaryUp::Keep | storage::OnPrimaryUp::Unspecified) => Ok(OnPrimaryUp::Keep),
        Ok(storage::OnPrimaryUp::Close) => Ok(OnPrimaryUp::Close),
        Err(_) => Err(DecodeError::rule("policy on_primary_up", number, "is none that this version knows")),
    }
}

fn all_down_message(all_down: AllDown) -> i32 {
    match all_down {
        AllDown::Refuse => storage::AllDown::Refuse.into(),
        AllDown::FailOpen => storage::AllDown::FailOpen.into(),
    }
}

fn all_down(number: i32) -> Result<AllDown, DecodeError> {
    match storage::AllDown::try_from(number) {
        Ok(storage::AllDown::Refuse | storage::AllDown::Unspecified) => Ok(AllDown::Refuse),
        Ok(storage::AllDown::FailOpen) => Ok(AllDown::FailOpen),
        Err(_) => Err(DecodeError::rule("policy all_down", number, "is none that this version knows")),
    }
}

fn send_proxy_message(send_proxy: SendProxy) -> i32 {
    match send_proxy {
        SendProxy::Off => storage::SendProxy::Off.into(),
        SendProxy::V1 => storage::SendProxy::V1.into(),
        SendProxy::V2 => storage::SendProxy::V2.into(),
    }
}

fn send_proxy(number: i32) -> Result<SendProxy, DecodeError> {
    match storage::SendProxy::try_from(number) {
        Ok(storage::SendProxy::Off | storage::SendProxy::Unspecified) => Ok(SendProxy::Off),
        Ok(storage::SendProxy::V1) => Ok(SendProxy::V1),
        Ok(storage::SendProxy::V2) => Ok(SendProxy::V2),
        Err(_) => Err(DecodeError::rule("PROXY header", number, "is none that this version knows")),
    }
}

fn initial_state_message(state: InitialState) -> i32 {
    match state {
        InitialState::Unknown => storage::InitialState::Unknown.into(),
        InitialState::Healthy => storage::InitialState::Healthy.into(),
        InitialState::Unhealthy => storage::InitialState::Unhealthy.into(),
    }
}

fn initial_state(number: i32) -> Result<InitialState, DecodeError> {
    match storage::InitialState::try_from(number) {
        Ok(storage::InitialState::Unknown | storage::InitialState::Unspecified) => Ok(InitialState::Unknown),
        Ok(storage::InitialState::Healthy) => Ok(InitialState::Healthy),
        Ok(storage::InitialState::Unhealthy) => Ok(InitialState::Unhealthy),
        Err(_) => Err(DecodeError::rule("initial state", number, "is none that this version knows")),
    }
}

fn port_message(port: Option<Port>) -> u32 {
    port.map_or(0, |port| u32::from(port.get()))
}

/// 0 stands for the backend's own port.
fn port(number: u32) -> Result<Option<Port>, DecodeError> {
    let port = u16::try_from(number)
        .map_err(|_| DecodeError::rule("health check port", number, "must be 0 to 65535"))?;
    Ok(Port::new(port))
}

impl From<&PoolPatch> for storage::PoolSpec {
    fn from(patch: &PoolPatch) -> Self {
        let PoolPatch {
            algorithm,
            connect_timeout,
            connect_retries,
            on_down,
            on_primary_up,
            all_down,
            minimum_healthy,
            queue_length,
            queue_timeout,
            slow_start,
            stickiness,
            idle_timeout,
            max_lifetime,
            close_spread_percent,
            dead_peer_timeout,
            send_proxy,
            health,
        } = patch;
        let HealthPatch {
            kind,
            interval,
            fast_interval,
            timeout,
            rise,
            fall,
            jitter_percent,
            port,
            initial_state,
        } = health;
        let check = kind.as_ref().map(check::message).unwrap_or_default();
        let time = |time: &Option<Duration>| time.map(duration_message);
        Self {
            algorithm: algorithm.map(algorithm_message),
            connect_timeout: time(connect_timeout),
            connect_retries: *connect_retries,
            on_down: on_down.map(on_down_message),
            on_primary_up: on_primary_up.map(on_primary_up_message),
            all_down: all_down.map(all_down_message),
            minimum_healthy: *minimum_healthy,
            queue_length: *queue_length,
            queue_timeout: time(queue_timeout),
            slow_start: time(slow_start),
            stickiness: time(stickiness),
            idle_timeout: time(idle_timeout),
            max_lifetime: time(max_lifetime),
            close_spread_percent: *close_spread_percent,
            dead_peer_timeout: time(dead_peer_timeout),
            send_proxy: send_proxy.map(send_proxy_message),
            check_kind: check.kind,
            tls_check: check.tls,
            http_check: check.http,
            grpc_check: check.grpc,
            exchange_check: check.exchange,
            interval: time(interval),
            fast_interval: time(fast_interval),
            timeout: time(timeout),
            rise: *rise,
            fall: *fall,
            jitter_percent: *jitter_percent,
            port: port.map(port_message),
            initial_state: initial_state.map(initial_state_message),
        }
    }
}

impl TryFrom<storage::PoolSpec> for PoolPatch {
    type Error = DecodeError;

    fn try_from(m: storage::PoolSpec) -> Result<Self, DecodeError> {
        let time = |field, message: Option<_>| -> Result<Option<Duration>, DecodeError> {
            message.map(|message| duration(field, message)).transpose()
        };
        let check = check::Message {
            kind: m.check_kind,
            tls: m.tls_check,
            http: m.http_check,
            grpc: m.grpc_check,
            exchange: m.exchange_check,
        };
        Ok(Self {
            algorithm: m.algorithm.map(algorithm).transpose()?,
            connect_timeout: time("connect timeout", m.connect_timeout)?,
            connect_retries: m.connect_retries,
            on_down: m.on_down.map(on_down).transpose()?,
            on_primary_up: m.on_primary_up.map(on_primary_up).transpose()?,
            all_down: m.all_down.map(all_down).transpose()?,
            minimum_healthy: m.minimum_healthy,
            queue_length: m.queue_length,
            queue_timeout: time("queue timeout", m.queue_timeout)?,
            slow_start: time("slow start", m.slow_start)?,
            stickiness: time("stickiness", m.stickiness)?,
            idle_timeout: time("idle timeout", m.idle_timeout)?,
            max_lifetime: time("longest lifetime", m.max_lifetime)?,
            close_spread_percent: m.close_spread_percent,
            dead_peer_timeout: time("dead peer timeout", m.dead_peer_timeout)?,
            send_proxy: m.send_proxy.map(send_proxy).transpose()?,
            health: HealthPatch {
                kind: check::kind(check)?,
                interval: time("health check interval", m.interval)?,
                fast_interval: time("health check fast interval", m.fast_interval)?,
                timeout: time("health check timeout", m.timeout)?,
                rise: m.rise,
                fall: m.fall,
                jitter_percent: m.jitter_percent,
                port: m.port.map(port).transpose()?,
                initial_state: m.initial_state.map(initial_state).transpose()?,
            },
        })
    }
}

impl From<&PoolSpec> for storage::PoolSpec {
    fn from(spec: &PoolSpec) -> Self {
        /// Defaults are left out: they are what logs mean that were written before there was a choice.
        fn chosen<T: PartialEq + Copy>(value: &T, default: T) -> Option<T> {
            (*value != default).then_some(*value)
        }
        let PoolSpec {
            algorithm,
            connect_timeout,
            connect_retries,
            on_down,
            on_primary_up,
            all_down,
            minimum_healthy,
            queue_length,
            queue_timeout,
            slow_start,
            stickiness,
            idle_timeout,
            max_lifetime,
            close_spread_percent,
            dead_peer_timeout,
            send_proxy,
            health,
        } = spec;
        let HealthCheck {
            kind,
            interval,
            fast_interval,
            timeout,
            rise,
            fall,
            jitter_percent,
            port,
            initial_state,
        } = health;
        let default = PoolSpec::default();
        // Settings are a patch in which everything is set, so both share one encoding.
        Self::from(&PoolPatch {
            algorithm: Some(*algorithm),
            connect_timeout: Some(*connect_timeout),
            connect_retries: Some(*connect_retries),
            on_down: chosen(on_down, default.on_down),
            on_primary_up: chosen(on_primary_up, default.on_primary_up),
            all_down: chosen(all_down, default.all_down),
            minimum_healthy: chosen(minimum_healthy, default.minimum_healthy),
            queue_length: chosen(queue_length, default.queue_length),
            queue_timeout: chosen(queue_timeout, default.queue_timeout),
            slow_start: chosen(slow_start, default.slow_start),
            stickiness: chosen(stickiness, default.stickiness),
            idle_timeout: chosen(idle_timeout, default.idle_timeout),
            max_lifetime: chosen(max_lifetime, default.max_lifetime),
            close_spread_percent: chosen(close_spread_percent, default.close_spread_percent),
            dead_peer_timeout: chosen(dead_peer_timeout, default.dead_peer_timeout),
            send_proxy: chosen(send_proxy, default.send_proxy),
            health: HealthPatch {
                kind: Some(kind.clone()),
                interval: Some(*interval),
                fast_interval: Some(*fast_interval),
                timeout: Some(*timeout),
                rise: Some(*rise),
                fall: Some(*fall),
                jitter_percent: Some(*jitter_percent),
                port: Some(*port),
                initial_state: chosen(initial_state, default.health.initial_state),
            },
        })
    }
}

impl TryFrom<storage::PoolSpec> for PoolSpec {
    type Error = DecodeError;

    fn try_from(message: storage::PoolSpec) -> Result<Self, DecodeError> {
        let patch = PoolPatch::try_from(message)?;
        let health = &patch.health;
        // What has been there from the beginning is always written; the rest is left out where it has its default.
        required("pool", "balance algorithm", patch.algorithm)?;
        required("pool", "connect timeout", patch.connect_timeout)?;
        required("pool", "connect retries", patch.connect_retries)?;
        required("pool", "health check kind", health.kind.as_ref())?;
        required("pool", "health check interval", health.interval)?;
        required("pool", "health check fast interval", health.fast_interval)?;
        required("pool", "health check timeout", health.timeout)?;
        required("pool", "health check rise", health.rise)?;
        required("pool", "health check fall", health.fall)?;
        required("pool", "health check jitter", health.jitter_percent)?;
        required("pool", "health check port", health.port)?;
        Ok(Self::default().patched(&patch))
    }
}

impl From<&Pool> for storage::Pool {
    fn from(pool: &Pool) -> Self {
        let Pool { name, spec, revision } = pool;
        Self { name: name.to_string(), spec: Some(spec.into()), revision: *revision }
    }
}

impl TryFrom<storage::Pool> for Pool {
    type Error = DecodeError;

    fn try_from(message: storage::Pool) -> Result<Self, DecodeError> {
        let spec: PoolSpec = required("pool", "settings", message.spec)?.try_into()?;
        in_bounds(|v| spec.check_numbers(v))?;
        let name = parsed("pool name", &message.name, PoolName::parse)?;
        Ok(Self { name, spec, revision: number("revision", message.revision)? })
    }
}

impl From<&PoolEntry> for storage::PoolEntry {
    fn from(entry: &PoolEntry) -> Self {
        let PoolEntry { pool, backends } = entry;
        Self {
            pool: Some(pool.as_ref().into()),
            backends: backends.values().map(|b| b.as_ref().into()).collect(),
        }
    }
}

impl TryFrom<storage::PoolEntry> for PoolEntry {
    type Error = DecodeError;

    fn try_from(message: storage::PoolEntry) -> Result<Self, DecodeError> {
        let pool = Pool::try_from(required("pool entry", "pool", message.pool)?)?;
        let backends = message.backends.into_iter().map(|b| {
            let backend = Backend::try_from(b)?;
            Ok((backend.name.clone(), Arc::new(backend)))
        });
        Ok(Self { pool: Arc::new(pool), backends: backends.collect::<Result<_, DecodeError>>()? })
    }
}
