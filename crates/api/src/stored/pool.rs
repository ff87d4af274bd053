//! Pools with their health checks.

use std::sync::Arc;
use std::time::Duration;

use trestle_model::{
    Algorithm, AllDown, Backend, HealthCheck, HealthPatch, OnDown, Pool, PoolEntry, PoolName, PoolPatch,
    PoolSpec, Port,
};

use super::check;
use super::{DecodeError, duration, duration_message, parsed, required};
use crate::storage;

fn algorithm_message(algorithm: Algorithm) -> i32 {
    match algorithm {
        Algorithm::RoundRobin => storage::Algorithm::RoundRobin.into(),
        Algorithm::LeastConnections => storage::Algorithm::LeastConnections.into(),
        Algorithm::RandomTwo => storage::Algorithm::RandomTwo.into(),
        Algorithm::SourceHash => storage::Algorithm::SourceHash.into(),
        Algorithm::First => storage::Algorithm::First.into(),
    }
}

fn algorithm(number: i32) -> Result<Algorithm, DecodeError> {
    match storage::Algorithm::try_from(number) {
        Ok(storage::Algorithm::RoundRobin) => Ok(Algorithm::RoundRobin),
        Ok(storage::Algorithm::LeastConnections) => Ok(Algorithm::LeastConnections),
        Ok(storage::Algorithm::RandomTwo) => Ok(Algorithm::RandomTwo),
        Ok(storage::Algorithm::SourceHash) => Ok(Algorithm::SourceHash),
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
        let PoolPatch { algorithm, connect_timeout, connect_retries, on_down, all_down, health } = patch;
        let HealthPatch { kind, interval, fast_interval, timeout, rise, fall, jitter_percent, port } = health;
        let (check_kind, tls_check, http_check) = kind.as_ref().map(check::message).unwrap_or_default();
        Self {
            algorithm: algorithm.map(algorithm_message),
            connect_timeout: connect_timeout.map(duration_message),
            connect_retries: *connect_retries,
            check_kind,
            tls_check,
            http_check,
            on_down: on_down.map(on_down_message),
            all_down: all_down.map(all_down_message),
            interval: interval.map(duration_message),
            fast_interval: fast_interval.map(duration_message),
            timeout: timeout.map(duration_message),
            rise: *rise,
            fall: *fall,
            jitter_percent: *jitter_percent,
            port: port.map(port_message),
        }
    }
}

impl TryFrom<storage::PoolSpec> for PoolPatch {
    type Error = DecodeError;

    fn try_from(m: storage::PoolSpec) -> Result<Self, DecodeError> {
        let time = |field, message: Option<_>| -> Result<Option<Duration>, DecodeError> {
            message.map(|message| duration(field, message)).transpose()
        };
        Ok(Self {
            algorithm: m.algorithm.map(algorithm).transpose()?,
            connect_timeout: time("connect timeout", m.connect_timeout)?,
            connect_retries: m.connect_retries,
            on_down: m.on_down.map(on_down).transpose()?,
            all_down: m.all_down.map(all_down).transpose()?,
            health: HealthPatch {
                kind: check::kind(m.check_kind, m.tls_check, m.http_check)?,
                interval: time("health check interval", m.interval)?,
                fast_interval: time("health check fast interval", m.fast_interval)?,
                timeout: time("health check timeout", m.timeout)?,
                rise: m.rise,
                fall: m.fall,
                jitter_percent: m.jitter_percent,
                port: m.port.map(port).transpose()?,
            },
        })
    }
}

impl From<&PoolSpec> for storage::PoolSpec {
    fn from(spec: &PoolSpec) -> Self {
        let PoolSpec { algorithm, health, connect_timeout, connect_retries, on_down, all_down } = spec;
        let HealthCheck { kind, interval, fast_interval, timeout, rise, fall, jitter_percent, port } = health;
        // Settings are a patch in which everything is set, so both share one encoding.
        Self::from(&PoolPatch {
            algorithm: Some(*algorithm),
            connect_timeout: Some(*connect_timeout),
            connect_retries: Some(*connect_retries),
            // Defaults are left out: they are what logs mean that were written before there was a choice.
            on_down: Some(*on_down).filter(|on_down| *on_down != OnDown::default()),
            all_down: Some(*all_down).filter(|all_down| *all_down != AllDown::default()),
            health: HealthPatch {
                kind: Some(kind.clone()),
                interval: Some(*interval),
                fast_interval: Some(*fast_interval),
                timeout: Some(*timeout),
                rise: Some(*rise),
                fall: Some(*fall),
                jitter_percent: Some(*jitter_percent),
                port: Some(*port),
            },
        })
    }
}

impl TryFrom<storage::PoolSpec> for PoolSpec {
    type Error = DecodeError;

    fn try_from(message: storage::PoolSpec) -> Result<Self, DecodeError> {
        let PoolPatch { algorithm, connect_timeout, connect_retries, on_down, all_down, health } =
            message.try_into()?;
        let HealthPatch { kind, interval, fast_interval, timeout, rise, fall, jitter_percent, port } = health;
        Ok(Self {
            algorithm: required("pool", "balance algorithm", algorithm)?,
            connect_timeout: required("pool", "connect timeout", connect_timeout)?,
            connect_retries: required("pool", "connect retries", connect_retries)?,
            on_down: on_down.unwrap_or_default(),
            all_down: all_down.unwrap_or_default(),
            health: HealthCheck {
                kind: required("pool", "health check kind", kind)?,
                interval: required("pool", "health check interval", interval)?,
                fast_interval: required("pool", "health check fast interval", fast_interval)?,
                timeout: required("pool", "health check timeout", timeout)?,
                rise: required("pool", "health check rise", rise)?,
                fall: required("pool", "health check fall", fall)?,
                jitter_percent: required("pool", "health check jitter", jitter_percent)?,
                port: required("pool", "health check port", port)?,
            },
        })
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
        Ok(Self {
            name: parsed("pool name", &message.name, PoolName::parse)?,
            spec: required("pool", "settings", message.spec)?.try_into()?,
            revision: message.revision,
        })
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
