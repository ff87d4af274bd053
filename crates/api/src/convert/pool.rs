//! Pools.

use trestle_model::{
    Algorithm, AllDown, Command, HealthCheck, HealthPatch, InitialState, Invalid, OnDown, OnPrimaryUp, Pool,
    PoolName, PoolPatch, PoolSpec, SendProxy, Violations,
};

use super::check;
use super::name::pool_name;
use super::{Write, duration, etag, field, finish, parse_etag, parse_pool_name};
use crate::v1;

const ALGORITHMS: &str = "ALGORITHM_ROUND_ROBIN (1), ALGORITHM_LEAST_CONNECTIONS (2), ALGORITHM_RANDOM_TWO (3), \
                          ALGORITHM_SOURCE_HASH (4), ALGORITHM_FIRST (5) or ALGORITHM_SOURCE_PORT_HASH (6)";
const ON_DOWN: &str = "ON_DOWN_CLOSE (1) or ON_DOWN_KEEP (2)";
const ON_PRIMARY_UP: &str = "ON_PRIMARY_UP_KEEP (1) or ON_PRIMARY_UP_CLOSE (2)";
const ALL_DOWN: &str = "ALL_DOWN_REFUSE (1) or ALL_DOWN_FAIL_OPEN (2)";
const SEND_PROXY: &str = "SEND_PROXY_OFF (1), SEND_PROXY_V1 (2) or SEND_PROXY_V2 (3)";
const INITIAL_STATE: &str =
    "INITIAL_STATE_UNKNOWN (1), INITIAL_STATE_HEALTHY (2) or INITIAL_STATE_UNHEALTHY (3)";
const OUTPUT_ONLY: &[&str] = &["backend_count", "revision", "etag", "name"];
const PATHS: &[&str] = &[
    "algorithm",
    "connect_timeout",
    "connect_retries",
    "on_down",
    "on_primary_up",
    "all_down",
    "minimum_healthy",
    "queue_length",
    "queue_timeout",
    "slow_start",
    "stickiness",
    "idle_timeout",
    "max_lifetime",
    "close_spread_percent",
    "dead_peer_timeout",
    "send_proxy",
    "health_check.kind",
    "health_check.interval",
    "health_check.fast_interval",
    "health_check.timeout",
    "health_check.rise",
    "health_check.fall",
    "health_check.jitter_percent",
    "health_check.port",
    "health_check.initial_state",
];

fn render_algorithm(algorithm: Algorithm) -> v1::Algorithm {
    match algorithm {
        Algorithm::RoundRobin => v1::Algorithm::RoundRobin,
        Algorithm::LeastConnections => v1::Algorithm::LeastConnections,
        Algorithm::RandomTwo => v1::Algorithm::RandomTwo,
        Algorithm::SourceHash => v1::Algorithm::SourceHash,
        Algorithm::SourcePortHash => v1::Algorithm::SourcePortHash,
        Algorithm::First => v1::Algorithm::First,
    }
}

fn render_health(health: &HealthCheck) -> v1::HealthCheck {
    let initial_state = match health.initial_state {
        InitialState::Unknown => v1::InitialState::Unknown,
        InitialState::Healthy => v1::InitialState::Healthy,
        InitialState::Unhealthy => v1::InitialState::Unhealthy,
    };
    v1::HealthCheck {
        kind: Some(check::render(&health.kind)),
        interval: Some(duration(health.interval)),
        fast_interval: Some(duration(health.fast_interval)),
        timeout: Some(duration(health.timeout)),
        rise: Some(health.rise),
        fall: Some(health.fall),
        jitter_percent: Some(health.jitter_percent),
        port: health.port.map_or(0, |port| port.get().into()),
        initial_state: initial_state.into(),
    }
}

/// Renders a pool.
pub fn pool(pool: &Pool, backends: usize) -> v1::Pool {
    let spec = &pool.spec;
    let on_down = match spec.on_down {
        OnDown::Close => v1::OnDown::Close,
        OnDown::Keep => v1::OnDown::Keep,
    };
    let on_primary_up = match spec.on_primary_up {
        OnPrimaryUp::Keep => v1::OnPrimaryUp::Keep,
        OnPrimaryUp::Close => v1::OnPrimaryUp::Close,
    };
    let all_down = match spec.all_down {
        AllDown::Refuse => v1::AllDown::Refuse,
        AllDown::FailOpen => v1::AllDown::FailOpen,
    };
    let send_proxy = match spec.send_proxy {
        SendProxy::Off => v1::SendProxy::Off,
        SendProxy::V1 => v1::SendProxy::V1,
        SendProxy::V2 => v1::SendProxy::V2,
    };
    v1::Pool {
        name: pool_name(&pool.name),
        algorithm: render_algorithm(spec.algorithm).into(),
        health_check: Some(render_health(&spec.health)),
        connect_timeout: Some(duration(spec.connect_timeout)),
        connect_retries: Some(spec.connect_retries),
        on_down: on_down.into(),
        on_primary_up: on_primary_up.into(),
        all_down: all_down.into(),
        minimum_healthy: Some(spec.minimum_healthy),
        queue_length: Some(spec.queue_length),
        queue_timeout: Some(duration(spec.queue_timeout)),
        slow_start: Some(duration(spec.slow_start)),
        stickiness: Some(duration(spec.stickiness)),
        idle_timeout: Some(duration(spec.idle_timeout)),
        max_lifetime: Some(duration(spec.max_lifetime)),
        close_spread_percent: Some(spec.close_spread_percent),
        dead_peer_timeout: Some(duration(spec.dead_peer_timeout)),
        send_proxy: send_proxy.into(),
        backend_count: u32::try_from(backends).unwrap_or(u32::MAX),
        revision: pool.revision,
        etag: etag(pool.revision),
    }
}

fn parse_algorithm(number: i32, v: &mut Violations) -> Algorithm {
    match field::known("pool.algorithm", number, ALGORITHMS, v) {
        None | Some(v1::Algorithm::Unspecified) => Algorithm::default(),
        Some(v1::Algorithm::RoundRobin) => Algorithm::RoundRobin,
        Some(v1::Algorithm::LeastConnections) => Algorithm::LeastConnections,
        Some(v1::Algorithm::RandomTwo) => Algorithm::RandomTwo,
        Some(v1::Algorithm::SourceHash) => Algorithm::SourceHash,
        Some(v1::Algorithm::SourcePortHash) => Algorithm::SourcePortHash,
        Some(v1::Algorithm::First) => Algorithm::First,
    }
}

fn parse_health(health: &v1::HealthCheck, v: &mut Violations) -> HealthCheck {
    let default = HealthCheck::default();
    let mut time = |name: &str, given: Option<&prost_types::Duration>| {
        field::duration(&format!("pool.health_check.{name}"), given, v)
    };
    let interval = time("interval", health.interval.as_ref()).unwrap_or(default.interval);
    let fast_interval = time("fast_interval", health.fast_interval.as_ref());
    let timeout = time("timeout", health.timeout.as_ref()).unwrap_or(default.timeout);
    let initial_state = "pool.health_check.initial_state";
    HealthCheck {
        kind: health.kind.as_ref().map_or(default.kind, |kind| check::parse(kind, v)),
        interval,
        fast_interval: fast_interval.unwrap_or(default.fast_interval.min(interval)),
        timeout,
        rise: health.rise.unwrap_or(default.rise),
        fall: health.fall.unwrap_or(default.fall),
        jitter_percent: health.jitter_percent.unwrap_or(default.jitter_percent),
        port: field::port("pool.health_check.port", health.port, v).flatten(),
        initial_state: match field::known(initial_state, health.initial_state, INITIAL_STATE, v) {
            Some(v1::InitialState::Healthy) => InitialState::Healthy,
            Some(v1::InitialState::Unhealthy) => InitialState::Unhealthy,
            Some(v1::InitialState::Unknown | v1::InitialState::Unspecified) | None => InitialState::Unknown,
        },
    }
}

/// The settings that a message stands for: what is not set has its default.
fn parse(pool: &v1::Pool, v: &mut Violations) -> PoolSpec {
    let default = PoolSpec::default();
    let algorithm = parse_algorithm(pool.algorithm, v);
    let mut time = |name: &str, given: Option<&prost_types::Duration>| {
        field::duration(&format!("pool.{name}"), given, v)
    };
    let connect_timeout = time("connect_timeout", pool.connect_timeout.as_ref());
    let queue_timeout = time("queue_timeout", pool.queue_timeout.as_ref());
    let slow_start = time("slow_start", pool.slow_start.as_ref());
    let stickiness = time("stickiness", pool.stickiness.as_ref());
    let idle_timeout = time("idle_timeout", pool.idle_timeout.as_ref());
    let max_lifetime = time("max_lifetime", pool.max_lifetime.as_ref());
    let dead_peer_timeout = time("dead_peer_timeout", pool.dead_peer_timeout.as_ref());
    PoolSpec {
        algorithm,
        connect_timeout: connect_timeout.unwrap_or(default.connect_timeout),
        connect_retries: pool.connect_retries.unwrap_or(default.connect_retries),
        on_down: match field::known("pool.on_down", pool.on_down, ON_DOWN, v) {
            Some(v1::OnDown::Keep) => OnDown::Keep,
            Some(v1::OnDown::Close | v1::OnDown::Unspecified) | None => OnDown::Close,
        },
        on_primary_up: match field::known("pool.on_primary_up", pool.on_primary_up, ON_PRIMARY_UP, v) {
            Some(v1::OnPrimaryUp::Close) => OnPrimaryUp::Close,
            Some(v1::OnPrimaryUp::Keep | v1::OnPrimaryUp::Unspecified) | None => OnPrimaryUp::Keep,
        },
        all_down: match field::known("pool.all_down", pool.all_down, ALL_DOWN, v) {
            Some(v1::AllDown::FailOpen) => AllDown::FailOpen,
            Some(v1::AllDown::Refuse | v1::AllDown::Unspecified) | None => AllDown::Refuse,
        },
        minimum_healthy: pool.minimum_healthy.unwrap_or(default.minimum_healthy),
        queue_length: pool.queue_length.unwrap_or(default.queue_length),
        queue_timeout: queue_timeout.unwrap_or(default.queue_timeout),
        slow_start: slow_start.unwrap_or(default.slow_start),
        stickiness: stickiness.unwrap_or(default.stickiness),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
        max_lifetime: max_lifetime.unwrap_or(default.max_lifetime),
        close_spread_percent: pool.close_spread_percent.unwrap_or(default.close_spread_percent),
        dead_peer_timeout: dead_peer_timeout.unwrap_or(default.dead_peer_timeout),
        send_proxy: match field::known("pool.send_proxy", pool.send_proxy, SEND_PROXY, v) {
            Some(v1::SendProxy::V1) => SendProxy::V1,
            Some(v1::SendProxy::V2) => SendProxy::V2,
            Some(v1::SendProxy::Off | v1::SendProxy::Unspecified) | None => SendProxy::Off,
        },
        health: parse_health(&pool.health_check.clone().unwrap_or_default(), v),
    }
}

/// The change that a mask asks for: a field that is named and not set goes back to its default.
fn patch(spec: PoolSpec, paths: &[&str]) -> PoolPatch {
    let named = |path: &str| paths.contains(&path);
    let health = spec.health;
    PoolPatch {
        algorithm: named("algorithm").then_some(spec.algorithm),
        connect_timeout: named("connect_timeout").then_some(spec.connect_timeout),
        connect_retries: named("connect_retries").then_some(spec.connect_retries),
        on_down: named("on_down").then_some(spec.on_down),
        on_primary_up: named("on_primary_up").then_some(spec.on_primary_up),
        all_down: named("all_down").then_some(spec.all_down),
        minimum_healthy: named("minimum_healthy").then_some(spec.minimum_healthy),
        queue_length: named("queue_length").then_some(spec.queue_length),
        queue_timeout: named("queue_timeout").then_some(spec.queue_timeout),
        slow_start: named("slow_start").then_some(spec.slow_start),
        stickiness: named("stickiness").then_some(spec.stickiness),
        idle_timeout: named("idle_timeout").then_some(spec.idle_timeout),
        max_lifetime: named("max_lifetime").then_some(spec.max_lifetime),
        close_spread_percent: named("close_spread_percent").then_some(spec.close_spread_percent),
        dead_peer_timeout: named("dead_peer_timeout").then_some(spec.dead_peer_timeout),
        send_proxy: named("send_proxy").then_some(spec.send_proxy),
        health: HealthPatch {
            kind: named("health_check.kind").then_some(health.kind),
            interval: named("health_check.interval").then_some(health.interval),
            fast_interval: named("health_check.fast_interval").then_some(health.fast_interval),
            timeout: named("health_check.timeout").then_some(health.timeout),
            rise: named("health_check.rise").then_some(health.rise),
            fall: named("health_check.fall").then_some(health.fall),
            jitter_percent: named("health_check.jitter_percent").then_some(health.jitter_percent),
            port: named("health_check.port").then_some(health.port),
            initial_state: named("health_check.initial_state").then_some(health.initial_state),
        },
    }
}

/// Parses the creation of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_pool(request: &v1::CreatePoolRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = v.take("pool_id", &request.pool_id, PoolName::parse(&request.pool_id));
    let spec = parse(&request.pool.clone().unwrap_or_default(), &mut v);
    spec.check(&mut v);
    let command = name.map(|name| Command::CreatePool { name, spec });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// The oneof's own name is no field, and protobuf's JSON mapping knows only its members.
fn kind_paths(mask: Option<&prost_types::FieldMask>) -> Option<prost_types::FieldMask> {
    let rename = |path: &String| match path.as_str() {
        "health_check.tcp"
        | "health_check.none"
        | "health_check.tls"
        | "health_check.http"
        | "health_check.grpc"
        | "health_check.exchange" => "health_check.kind".to_owned(),
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
    let patch = patch(parse(&message, &mut v), &paths);
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
    use trestle_model::{CheckKind, defaults};

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
