//! Settings of a pool as options, for creation and update alike.

use clap::Args;
use trestle_api::v1;
use trestle_model::{Algorithm, AllDown, OnDown, OnPrimaryUp, SendProxy};

use super::check_flags::CheckFlags;
use super::check_pace::PaceSettings;
use super::check_settings::{Check, CheckSettings, mask_path};
use super::choice::{choice, number};
use super::field_mask::FieldMaskBuilder;
use super::resource::{GivenChange, SettingsArgs};
use crate::input::Input;

/// Settings of a pool; those that are not given get their default on creation and stay as they are in an update.
#[derive(Debug, Default, Args)]
pub(crate) struct PoolSettings {
    /// How a backend is picked [default: round-robin]
    #[arg(long, value_name = "ALGORITHM", value_parser = choice::<Algorithm>())]
    pub(crate) algorithm: Option<Algorithm>,
    /// What happens to connections to a backend that is found unhealthy [default: close]
    #[arg(long, value_name = "POLICY", value_parser = choice::<OnDown>())]
    pub(crate) on_down: Option<OnDown>,
    /// What happens to connections to backups when a backend that is no backup is usable again [default: keep]
    #[arg(long, value_name = "POLICY", value_parser = choice::<OnPrimaryUp>())]
    pub(crate) on_primary_up: Option<OnPrimaryUp>,
    /// What happens to new connections while the pool is down [default: refuse]
    #[arg(long, value_name = "POLICY", value_parser = choice::<AllDown>())]
    pub(crate) all_down: Option<AllDown>,
    /// Healthy backends below which the pool is down, 1 to 20000 [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) minimum_healthy: Option<u32>,
    /// Time in which the share of a backend that became healthy or was enabled grows to its weight, up to 1h [default: off]
    #[arg(long, value_name = "DURATION|off")]
    pub(crate) slow_start: Option<String>,
    /// How long a client comes back to the backend that it had, after its last connection began or ended, up to 7days
    /// [default: off]
    #[arg(long, value_name = "DURATION|off")]
    pub(crate) stickiness: Option<String>,
    #[command(flatten)]
    pub(crate) connections: ConnectionSettings,
    #[command(flatten)]
    pub(crate) check: CheckSettings,
    #[command(flatten)]
    pub(crate) pace: PaceSettings,
}

/// Settings of a pool's connections.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Connections")]
pub(crate) struct ConnectionSettings {
    /// How long one connect to a backend may take, 10ms to 60s [default: 2s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) connect_timeout: Option<String>,
    /// Further backends tried after a failed connect, 0 to 10 [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub(crate) connect_retries: Option<u32>,
    /// Clients that may wait, on each member, while all backends have their --max-connections, 0 to 100000; those beyond
    /// are reset [default: 1000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) queue_length: Option<u32>,
    /// How long each of them waits before it is reset, 10ms to 10m [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) queue_timeout: Option<String>,
    /// Time without a byte in either direction after which a connection is reset, up to 365days [default: off]
    #[arg(long, value_name = "DURATION|off")]
    pub(crate) idle_timeout: Option<String>,
    /// Time after which a connection is reset, up to 365days; see --close-spread-percent [default: off]
    #[arg(long, value_name = "DURATION|off")]
    pub(crate) max_lifetime: Option<String>,
    /// The last part of --max-lifetime, of a drain's --deadline and of a member's shutdown_grace over which connections are
    /// reset, each at a moment of its own, 0 to 50 [default: 10]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) close_spread_percent: Option<u32>,
    /// Time without any answer from the system of a client or backend after which it counts as dead and the connection is
    /// reset, 5s to 15m; one that answers and does not read stays [default: 2m]
    #[arg(long, value_name = "DURATION")]
    pub(crate) dead_peer_timeout: Option<String>,
    /// PROXY protocol header that backends are sent first, which tells them the client's address [default: off]
    #[arg(long, value_name = "VERSION", value_parser = choice::<SendProxy>())]
    pub(crate) send_proxy: Option<SendProxy>,
}

impl SettingsArgs<v1::Pool> for PoolSettings {
    fn change(&self, input: &mut Input) -> GivenChange<v1::Pool> {
        let mut change = GivenChange::default();
        let mut mask = FieldMaskBuilder::default();
        let flags = self.check.flags(input);
        let kind = match self.check.health {
            Some(check) => Some(flags.onto(check.plain(), input)),
            None if flags.is_empty() => None,
            None => {
                change.additions.push(Box::new(|pool, change, input| set_check(flags, pool, change, input)));
                None
            }
        };
        mask.paths.extend(kind.as_ref().map(|kind| mask_path(kind).to_owned()));
        let check = v1::HealthCheck { kind, ..self.pace.check(&mut mask, input) };
        change.resource.health_check = Some(check);
        self.set_counts(&mut mask, &mut change.resource);
        self.set_durations(&mut mask, &mut change.resource, input);
        self.set_policies(&mut mask, &mut change.resource);
        change.paths = mask.paths;
        change
    }
}

/// Puts settings of a check whose kind was not given onto the check that the pool has, or has by default: the API replaces a
/// check as a whole.
fn set_check(flags: CheckFlags, pool: &v1::Pool, change: &mut GivenChange<v1::Pool>, input: &mut Input) {
    let check = pool.health_check.clone().and_then(|check| check.kind);
    let kind = flags.onto(check.unwrap_or_else(|| Check::Tcp.plain()), input);
    change.paths.push(mask_path(&kind).to_owned());
    change.resource.health_check.get_or_insert_default().kind = Some(kind);
}

impl PoolSettings {
    fn set_counts(&self, mask: &mut FieldMaskBuilder, pool: &mut v1::Pool) {
        pool.connect_retries = mask.set("connect_retries", self.connections.connect_retries);
        pool.queue_length = mask.set("queue_length", self.connections.queue_length);
        pool.minimum_healthy = mask.set("minimum_healthy", self.minimum_healthy);
        let spread = self.connections.close_spread_percent;
        pool.close_spread_percent = mask.set("close_spread_percent", spread);
    }

    fn set_durations(&self, mask: &mut FieldMaskBuilder, pool: &mut v1::Pool, input: &mut Input) {
        let c = &self.connections;
        let bounded = [
            ("connect_timeout", "--connect-timeout", &c.connect_timeout, &mut pool.connect_timeout),
            ("queue_timeout", "--queue-timeout", &c.queue_timeout, &mut pool.queue_timeout),
            ("dead_peer_timeout", "--dead-peer-timeout", &c.dead_peer_timeout, &mut pool.dead_peer_timeout),
        ];
        for (path, label, text, to) in bounded {
            *to = mask.set(path, text.as_ref().map(|text| input.duration(label, text)));
        }
        let may_be_off = [
            ("slow_start", "--slow-start", &self.slow_start, &mut pool.slow_start),
            ("stickiness", "--stickiness", &self.stickiness, &mut pool.stickiness),
            ("idle_timeout", "--idle-timeout", &c.idle_timeout, &mut pool.idle_timeout),
            ("max_lifetime", "--max-lifetime", &c.max_lifetime, &mut pool.max_lifetime),
        ];
        for (path, label, text, to) in may_be_off {
            *to = mask.set(path, text.as_ref().map(|text| input.duration_or_off(label, text)));
        }
    }

    fn set_policies(&self, mask: &mut FieldMaskBuilder, pool: &mut v1::Pool) {
        pool.algorithm = number(mask.set("algorithm", self.algorithm));
        pool.on_down = number(mask.set("on_down", self.on_down));
        pool.on_primary_up = number(mask.set("on_primary_up", self.on_primary_up));
        pool.all_down = number(mask.set("all_down", self.all_down));
        pool.send_proxy = number(mask.set("send_proxy", self.connections.send_proxy));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use trestle_model::InitialState;

    use super::*;

    fn check(health: Check) -> CheckSettings {
        CheckSettings { health: Some(health), ..CheckSettings::default() }
    }

    #[test]
    fn only_what_is_given_is_in_the_mask() {
        let settings = PoolSettings {
            algorithm: Some(Algorithm::LeastConnections),
            check: check(Check::None),
            pace: PaceSettings {
                health_interval: Some("5s".to_owned()),
                health_port: Some(0),
                ..PaceSettings::default()
            },
            ..PoolSettings::default()
        };
        let mut input = Input::default();
        let GivenChange { resource: pool, mut paths, .. } = settings.change(&mut input);
        input.finish().unwrap();
        paths.sort();
        assert_eq!(paths, ["algorithm", "health_check.interval", "health_check.none", "health_check.port"]);
        assert_eq!(pool.algorithm(), v1::Algorithm::LeastConnections);
        let check = pool.health_check.unwrap();
        assert_eq!(check.kind, Some(v1::health_check::Kind::None(v1::NoCheck {})));
        assert_eq!(check.interval.unwrap().seconds, 5);
        assert_eq!((check.rise, check.timeout, pool.connect_retries), (None, None, None));
    }

    const ALL_PATHS: [&str; 25] = [
        "algorithm",
        "all_down",
        "close_spread_percent",
        "connect_retries",
        "connect_timeout",
        "dead_peer_timeout",
        "health_check.fall",
        "health_check.fast_interval",
        "health_check.initial_state",
        "health_check.interval",
        "health_check.jitter_percent",
        "health_check.port",
        "health_check.rise",
        "health_check.tcp",
        "health_check.timeout",
        "idle_timeout",
        "max_lifetime",
        "minimum_healthy",
        "on_down",
        "on_primary_up",
        "queue_length",
        "queue_timeout",
        "send_proxy",
        "slow_start",
        "stickiness",
    ];

    #[test]
    fn every_setting_has_its_path() {
        let text = || Some("1s".to_owned());
        let settings = PoolSettings {
            algorithm: Some(Algorithm::SourcePortHash),
            on_down: Some(OnDown::Keep),
            on_primary_up: Some(OnPrimaryUp::Close),
            all_down: Some(AllDown::FailOpen),
            minimum_healthy: Some(2),
            slow_start: text(),
            stickiness: text(),
            connections: ConnectionSettings {
                connect_timeout: text(),
                connect_retries: Some(0),
                queue_length: Some(0),
                queue_timeout: text(),
                idle_timeout: text(),
                max_lifetime: Some("off".to_owned()),
                close_spread_percent: Some(0),
                dead_peer_timeout: text(),
                send_proxy: Some(SendProxy::V2),
            },
            check: check(Check::Tcp),
            pace: PaceSettings {
                health_interval: text(),
                health_fast_interval: text(),
                health_timeout: text(),
                health_rise: Some(1),
                health_fall: Some(1),
                health_jitter_percent: Some(0),
                health_port: Some(80),
                health_initial: Some(InitialState::Healthy),
            },
        };
        let GivenChange { resource: pool, mut paths, .. } = settings.change(&mut Input::default());
        paths.sort();
        assert_eq!(paths, ALL_PATHS);
        assert_eq!((pool.on_down(), pool.all_down()), (v1::OnDown::Keep, v1::AllDown::FailOpen));
        assert_eq!((pool.algorithm(), pool.send_proxy()), (v1::Algorithm::SourcePortHash, v1::SendProxy::V2));
        assert_eq!((pool.on_primary_up(), pool.close_spread_percent), (v1::OnPrimaryUp::Close, Some(0)));
        assert_eq!((pool.queue_length, pool.minimum_healthy), (Some(0), Some(2)));
        let seconds = [pool.slow_start, pool.stickiness, pool.idle_timeout, pool.max_lifetime];
        assert_eq!(seconds.map(|d| d.unwrap().seconds), [1, 1, 1, 0]);
        let check = pool.health_check.unwrap();
        assert_eq!((check.port, check.initial_state()), (80, v1::InitialState::Healthy));
    }

    #[test]
    fn all_durations_that_are_wrong_are_told() {
        let word = || Some("5".to_owned());
        let settings = PoolSettings {
            stickiness: word(),
            connections: ConnectionSettings {
                connect_timeout: Some("soon".to_owned()),
                ..ConnectionSettings::default()
            },
            pace: PaceSettings { health_interval: word(), ..PaceSettings::default() },
            ..PoolSettings::default()
        };
        let mut input = Input::default();
        settings.change(&mut input);
        let text = input.finish().unwrap_err().render();
        assert_eq!(
            text,
            "error: --health-interval \"5\": must be a duration with a unit, as in 500ms, 2s or 1m30s\n\
             error: --connect-timeout \"soon\": must be a duration with a unit, as in 500ms, 2s or 1m30s\n\
             error: --stickiness \"5\": must be off, or a duration with a unit, as in 500ms, 2s or 1m30s"
        );
    }

    #[test]
    fn settings_of_a_check_wait_for_its_kind() {
        let path = CheckSettings { health_path: Some("/readyz".to_owned()), ..CheckSettings::default() };
        let mut input = Input::default();
        let mut change = PoolSettings { check: path, ..PoolSettings::default() }.change(&mut input);
        assert!(change.paths.is_empty());
        let check = v1::HealthCheck { kind: Some(Check::Https.plain()), ..v1::HealthCheck::default() };
        let current = v1::Pool { health_check: Some(check), ..v1::Pool::default() };
        change.complete(&current, &mut input);
        input.finish().unwrap();
        assert_eq!(change.paths, ["health_check.http"]);
        let kind = change.resource.health_check.unwrap().kind;
        assert!(
            matches!(kind, Some(v1::health_check::Kind::Http(http)) if http.path == "/readyz" && http.tls.is_some())
        );
    }
}
