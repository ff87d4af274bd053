//! Pools.

use std::time::Duration;

use trestle_model::{
    Algorithm, AllDown, CheckKind, Command, HealthCheck, HealthPatch, Invalid, OnDown, Pool, PoolName,
    PoolPatch, PoolSpec, Port, Violations, defaults,
};

use super::check;
use super::name::pool_name;
use super::{Write, duration, etag, field, finish, parse_etag, parse_pool_name};
use crate::v1;

const ALGORITHMS: &str = "ALGORITHM_ROUND_ROBIN (1), ALGORITHM_LEAST_CONNECTIONS (2), ALGORITHM_RANDOM_TWO (3), \
                          ALGORITHM_SOURCE_HASH (4) or ALGORITHM_FIRST (5)";
const ON_DOWN: &str = "ON_DOWN_CLOSE (1) or ON_DOWN_KEEP (2)";
const ALL_DOWN: &str = "ALL_DOWN_REFUSE (1) or ALL_DOWN_FAIL_OPEN (2)";
const OUTPUT_ONLY: &[&str] = &["backend_count", "revision", "etag", "name"];
const PATHS: &[&str] = &[
    "algorithm",
    "connect_timeout",
    "connect_retries",
    "on_down",
    "all_down",
    "health_check.kind",
    "health_check.interval",
    "health_check.fast_interval",
    "health_check.timeout",
    "health_check.rise",
    "health_check.fall",
    "health_check.jitter_percent",
    "health_check.port",
];

/// Renders a pool.
pub fn pool(pool: &Pool, backends: usize) -> v1::Pool {
    let (spec, health) = (&pool.spec, &pool.spec.health);
    let kind = check::render(&health.kind);
    let on_down = match spec.on_down {
        OnDown::Close => v1::OnDown::Close,
        OnDown::Keep => v1::OnDown::Keep,
    };
    let all_down = match spec.all_down {
        AllDown::Refuse => v1::AllDown::Refuse,
        AllDown::FailOpen => v1::AllDown::FailOpen,
    };
    let algorithm = match spec.algorithm {
        Algorithm::RoundRobin => v1::Algorithm::RoundRobin,
        Algorithm::LeastConnections => v1::Algorithm::LeastConnections,
        Algorithm::RandomTwo => v1::Algorithm::RandomTwo,
        Algorithm::SourceHash => v1::Algorithm::SourceHash,
        Algorithm::First => v1::Algorithm::First,
    };
    v1::Pool {
        name: pool_name(&pool.name),
        algorithm: algorithm.into(),
        health_check: Some(v1::HealthCheck {
            kind: Some(kind),
            interval: Some(duration(health.interval)),
            fast_interval: Some(duration(health.fast_interval)),
            timeout: Some(duration(health.timeout)),
            rise: Some(health.rise),
            fall: Some(health.fall),
            jitter_percent: Some(health.jitter_percent),
            port: health.port.map_or(0, |port| port.get().into()),
        }),
        connect_timeout: Some(duration(spec.connect_timeout)),
        connect_retries: Some(spec.connect_retries),
        on_down: on_down.into(),
        all_down: all_down.into(),
        backend_count: u32::try_from(backends).unwrap_or(u32::MAX),
        revision: pool.revision,
        etag: etag(pool.revision),
    }
}

/// What a message sets, field by field; `None` is not set (or a mistake, which is noted).
#[derive(Default)]
struct Given {
    algorithm: Option<Algorithm>,
    connect_timeout: Option<Duration>,
    connect_retries: Option<u32>,
    on_down: OnDown,
    all_down: AllDown,
    kind: Option<CheckKind>,
    interval: Option<Duration>,
    fast_interval: Option<Duration>,
    timeout: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
    jitter_percent: Option<u32>,
    port: Option<Port>,
}

fn given(pool: &v1::Pool, v: &mut Violations) -> Given {
    let algorithm = field::known("pool.algorithm", pool.algorithm, ALGORITHMS, v);
    let health = pool.health_check.clone().unwrap_or_default();
    Given {
        algorithm: algorithm.and_then(|algorithm| match algorithm {
            v1::Algorithm::Unspecified => None,
            v1::Algorithm::RoundRobin => Some(Algorithm::RoundRobin),
            v1::Algorithm::LeastConnections => Some(Algorithm::LeastConnections),
            v1::Algorithm::RandomTwo => Some(Algorithm::RandomTwo),
            v1::Algorithm::SourceHash => Some(Algorithm::SourceHash),
            v1::Algorithm::First => Some(Algorithm::First),
        }),
        connect_timeout: field::duration("pool.connect_timeout", pool.connect_timeout.as_ref(), v),
        connect_retries: pool.connect_retries,
        on_down: match field::known("pool.on_down", pool.on_down, ON_DOWN, v) {
            Some(v1::OnDown::Keep) => OnDown::Keep,
            Some(v1::OnDown::Close | v1::OnDown::Unspecified) | None => OnDown::Close,
        },
        all_down: match field::known("pool.all_down", pool.all_down, ALL_DOWN, v) {
            Some(v1::AllDown::FailOpen) => AllDown::FailOpen,
            Some(v1::AllDown::Refuse | v1::AllDown::Unspecified) | None => AllDown::Refuse,
        },
        kind: health.kind.as_ref().map(|kind| check::parse(kind, v)),
        interval: field::duration("pool.health_check.interval", health.interval.as_ref(), v),
        fast_interval: field::duration("pool.health_check.fast_interval", health.fast_interval.as_ref(), v),
        timeout: field::duration("pool.health_check.timeout", health.timeout.as_ref(), v),
        rise: health.rise,
        fall: health.fall,
        jitter_percent: health.jitter_percent,
        port: field::port("pool.health_check.port", health.port, v).flatten(),
    }
}

impl Given {
    /// The settings of a new pool.
    fn into_spec(self) -> PoolSpec {
        let default = HealthCheck::default();
        let interval = self.interval.unwrap_or(default.interval);
        PoolSpec {
            algorithm: self.algorithm.unwrap_or_default(),
            connect_timeout: self.connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
            connect_retries: self.connect_retries.unwrap_or(defaults::CONNECT_RETRIES),
            on_down: self.on_down,
            all_down: self.all_down,
            health: HealthCheck {
                kind: self.kind.unwrap_or(default.kind),
                interval,
                fast_interval: self.fast_interval.unwrap_or(default.fast_interval.min(interval)),
                timeout: self.timeout.unwrap_or(default.timeout),
                rise: self.rise.unwrap_or(default.rise),
                fall: self.fall.unwrap_or(default.fall),
                jitter_percent: self.jitter_percent.unwrap_or(default.jitter_percent),
                port: self.port,
            },
        }
    }

    /// The change that a mask asks for: a field that is named and not set goes back to its default.
    fn into_patch(self, paths: &[&str]) -> PoolPatch {
        let named = |path: &str| paths.contains(&path);
        let spec = self.into_spec();
        let health = spec.health;
        PoolPatch {
            algorithm: named("algorithm").then_some(spec.algorithm),
            connect_timeout: named("connect_timeout").then_some(spec.connect_timeout),
            connect_retries: named("connect_retries").then_some(spec.connect_retries),
            on_down: named("on_down").then_some(spec.on_down),
            all_down: named("all_down").then_some(spec.all_down),
            health: HealthPatch {
                kind: named("health_check.kind").then_some(health.kind),
                interval: named("health_check.interval").then_some(health.interval),
                fast_interval: named("health_check.fast_interval").then_some(health.fast_interval),
                timeout: named("health_check.timeout").then_some(health.timeout),
                rise: named("health_check.rise").then_some(health.rise),
                fall: named("health_check.fall").then_some(health.fall),
                jitter_percent: named("health_check.jitter_percent").then_some(health.jitter_percent),
                port: named("health_check.port").then_some(health.port),
            },
        }
    }
}

/// Parses the creation of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_pool(request: &v1::CreatePoolRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = v.take("pool_id", &request.pool_id, PoolName::parse(&request.pool_id));
    let spec = given(&request.pool.clone().unwrap_or_default(), &mut v).into_spec();
    spec.check(&mut v);
    let command = name.map(|name| Command::CreatePool { name, spec });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// The oneof's own name is no field, and protobuf's JSON mapping knows only its members.
fn kind_paths(mask: Option<&prost_types::FieldMask>) -> Option<prost_types::FieldMask> {
    let rename = |path: &String| match path.as_str() {
        "health_check.tcp" | "health_check.none" | "health_check.tls" | "health_check.http" => {
            "health_check.kind".to_owned()
        }
        _ => path.clone(),
    };
    mask.map(|mask| prost_types::FieldMask { paths: mask.paths.iter().map(rename).collect() })
}

/// Parses the change of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_pool(request: &v1::UpdatePoolRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let message = request.pool.clone().unwrap_or_default();
    let name = parse_pool_name("pool.name", &message.name, &mut v);
    let expect = parse_etag("pool.etag", &message.etag, &mut v);
    let paths = field::mask(kind_paths(request.update_mask.as_ref()).as_ref(), PATHS, OUTPUT_ONLY, &mut v);
    let patch = given(&message, &mut v).into_patch(&paths);
    // Bounds of what changes; the state checks again how it fits with what stays.
    PoolSpec::default().patched(&patch).check(&mut v);
    let command = name.map(|name| Command::UpdatePool { name, patch, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the deletion of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_pool(request: &v1::DeletePoolRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_pool_name("name", &request.name, &mut v);
    let expect = parse_etag("etag", &request.etag, &mut v);
    let command = name.map(|name| Command::DeletePool { name, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(pool: v1::Pool) -> v1::CreatePoolRequest {
        v1::CreatePoolRequest { pool_id: "web".to_owned(), pool: Some(pool), ..Default::default() }
    }

    #[test]
    fn nothing_set_means_defaults() {
        let write = create_pool(&request(v1::Pool::default())).unwrap();
        let expected =
            Command::CreatePool { name: PoolName::parse("web").unwrap(), spec: PoolSpec::default() };
        assert_eq!(write.proposal.command, expected);
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let pool = v1::Pool {
            algorithm: 99,
            connect_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            connect_retries: Some(11),
            health_check: Some(v1::HealthCheck { fall: Some(0), port: 65536, ..Default::default() }),
            ..Default::default()
        };
        let bad =
            v1::CreatePoolRequest { pool_id: "a/b".to_owned(), request_id: " ".to_owned(), ..request(pool) };
        let fields: Vec<_> = create_pool(&bad).unwrap_err().0.into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "pool_id",
                "pool.algorithm",
                "pool.connect_timeout",
                "pool.health_check.port",
                "pool.connect_retries",
                "pool.health_check.fall",
                "request_id"
            ]
        );
    }

    #[test]
    fn an_update_changes_what_the_mask_names() {
        let update = |paths: &[&str]| v1::UpdatePoolRequest {
            pool: Some(v1::Pool {
                name: "pools/web".to_owned(),
                connect_retries: Some(1),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            }),
            ..Default::default()
        };
        let patch = |paths: &[&str]| match update_pool(&update(paths)).unwrap().proposal.command {
            Command::UpdatePool { patch, .. } => patch,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(patch(&["connect_retries"]), PoolPatch { connect_retries: Some(1), ..Default::default() });
        assert_eq!(patch(&["health_check.tcp"]).health.kind, Some(CheckKind::Tcp));
        assert_eq!(patch(&["*"]).health.rise, Some(defaults::CHECK_RISE));
        assert!(update_pool(&update(&[])).is_err());
        assert!(update_pool(&update(&["colour"])).is_err());
    }

    #[test]
    fn the_same_request_has_the_same_fingerprint() {
        let one = v1::CreatePoolRequest { request_id: "1".to_owned(), ..request(v1::Pool::default()) };
        let other = v1::CreatePoolRequest { pool_id: "api".to_owned(), ..one.clone() };
        let print = |r: &v1::CreatePoolRequest| create_pool(r).unwrap().proposal.request.unwrap().fingerprint;
        assert_eq!(print(&one), print(&one.clone()));
        assert_ne!(print(&one), print(&other));
    }
}
