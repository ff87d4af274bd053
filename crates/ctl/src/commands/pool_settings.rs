//! Settings of a pool as options, for creation and update alike.

use clap::{Args, ValueEnum};
use trestle_api::v1;

use super::check_settings::{CheckFlags, CheckSettings, mask_path};
use crate::input::Input;

/// How a pool picks a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    /// Each backend in turn, in proportion to its weight
    RoundRobin,
    /// The backend with the fewest connections for its weight
    LeastConnections,
    /// Of two backends drawn at random, the one with fewer connections for its weight
    RandomTwo,
    /// The same backend for the same client address, on every member
    SourceHash,
    /// The first usable backend in the order of names
    First,
}

/// What happens to connections to a backend that is found unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDown {
    /// Reset both legs, so that clients connect again, to another backend
    Close,
    /// Leave them alone
    Keep,
}

/// What happens to new connections while every backend is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AllDown {
    /// Reset them at once
    Refuse,
    /// Try the backends all the same
    FailOpen,
}

/// Settings of a pool; those that are not given get their default on creation and stay as they are in an update.
#[derive(Debug, Default, Args)]
pub(crate) struct PoolSettings {
    /// How a backend is picked [default: round-robin]
    #[arg(long, value_name = "ALGORITHM")]
    pub(crate) algorithm: Option<Algorithm>,
    /// What happens to connections to a backend that is found unhealthy [default: close]
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_down: Option<OnDown>,
    /// What happens to new connections while every backend is unhealthy [default: refuse]
    #[arg(long, value_name = "POLICY")]
    pub(crate) all_down: Option<AllDown>,
    #[command(flatten)]
    pub(crate) check: CheckSettings,
    /// Time between two checks, 50ms to 1h [default: 2s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_interval: Option<String>,
    /// Time between two checks while the last result contradicts the verdict, 50ms to 1h [default: 500ms]
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_fast_interval: Option<String>,
    /// How long one check may take, 10ms to 60s [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_timeout: Option<String>,
    /// Successes in a row that make a backend healthy, 1 to 100 [default: 2]
    #[arg(long, value_name = "COUNT")]
    pub(crate) health_rise: Option<u32>,
    /// Failures in a row that make a backend unhealthy, 1 to 100 [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub(crate) health_fall: Option<u32>,
    /// Part of the interval by which each check is moved at random, 0 to 50 [default: 10]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) health_jitter_percent: Option<u32>,
    /// Port that is checked; 0 is the backend's own [default: 0]
    #[arg(long, value_name = "PORT")]
    pub(crate) health_port: Option<u16>,
    /// How long one connect to a backend may take, 10ms to 60s [default: 2s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) connect_timeout: Option<String>,
    /// Further backends tried after a failed connect, 0 to 10 [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub(crate) connect_retries: Option<u32>,
}

/// A pool's settings as they were given.
pub(crate) struct PoolChange {
    /// The settings as the API takes them.
    pub(crate) pool: v1::Pool,
    /// Paths of those that were given, as an update mask names them.
    pub(crate) paths: Vec<String>,
    /// Settings of a check whose kind was not given: they are for the check that the pool has.
    pub(crate) rest: Option<CheckFlags>,
}

impl PoolChange {
    /// Puts the settings that are left onto the check that the pool has, or has by default.
    pub(crate) fn complete(&mut self, check: v1::health_check::Kind, input: &mut Input) {
        let Some(flags) = self.rest.take() else { return };
        let kind = flags.onto(check, input);
        self.paths.push(mask_path(&kind).to_owned());
        self.pool.health_check.get_or_insert_default().kind = Some(kind);
    }
}

impl PoolSettings {
    /// What was given.
    pub(crate) fn change(&self, input: &mut Input) -> PoolChange {
        let mut given = Given::default();
        let (kind, rest) = self.kind(&mut given, input);
        let mut duration = |given: &mut Given, path, label, text: &Option<String>| {
            given.note(path, text.as_ref().map(|text| input.duration(label, text)))
        };
        let mut pool = v1::Pool {
            connect_timeout: duration(
                &mut given,
                "connect_timeout",
                "--connect-timeout",
                &self.connect_timeout,
            ),
            connect_retries: given.note("connect_retries", self.connect_retries),
            ..v1::Pool::default()
        };
        let (interval, fast, timeout) =
            ("health_check.interval", "health_check.fast_interval", "health_check.timeout");
        pool.health_check = Some(v1::HealthCheck {
            kind,
            interval: duration(&mut given, interval, "--health-interval", &self.health_interval),
            fast_interval: duration(&mut given, fast, "--health-fast-interval", &self.health_fast_interval),
            timeout: duration(&mut given, timeout, "--health-timeout", &self.health_timeout),
            rise: given.note("health_check.rise", self.health_rise),
            fall: given.note("health_check.fall", self.health_fall),
            jitter_percent: given.note("health_check.jitter_percent", self.health_jitter_percent),
            port: given.note("health_check.port", self.health_port).unwrap_or_default().into(),
        });
        self.set_policies(&mut given, &mut pool);
        PoolChange { pool, paths: given.paths, rest }
    }

    fn set_policies(&self, given: &mut Given, pool: &mut v1::Pool) {
        if let Some(algorithm) = given.note("algorithm", self.algorithm) {
            pool.set_algorithm(match algorithm {
                Algorithm::RoundRobin => v1::Algorithm::RoundRobin,
                Algorithm::LeastConnections => v1::Algorithm::LeastConnections,
                Algorithm::RandomTwo => v1::Algorithm::RandomTwo,
                Algorithm::SourceHash => v1::Algorithm::SourceHash,
                Algorithm::First => v1::Algorithm::First,
            });
        }
        if let Some(on_down) = given.note("on_down", self.on_down) {
            pool.set_on_down(match on_down {
                OnDown::Close => v1::OnDown::Close,
                OnDown::Keep => v1::OnDown::Keep,
            });
        }
        if let Some(all_down) = given.note("all_down", self.all_down) {
            pool.set_all_down(match all_down {
                AllDown::Refuse => v1::AllDown::Refuse,
                AllDown::FailOpen => v1::AllDown::FailOpen,
            });
        }
    }

    /// The check if its kind was given, or else the settings for one.
    fn kind(
        &self,
        given: &mut Given,
        input: &mut Input,
    ) -> (Option<v1::health_check::Kind>, Option<CheckFlags>) {
        let flags = self.check.flags(input);
        match self.check.health {
            Some(check) => {
                let kind = flags.onto(check.plain(), input);
                let path = mask_path(&kind);
                (given.note(path, Some(kind)), None)
            }
            None => (None, (!flags.is_empty()).then_some(flags)),
        }
    }
}

/// Collects the paths of what was given, as an update mask names them.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) paths: Vec<String>,
}

impl Given {
    /// Hands a value on, and notes its path if there is one.
    pub(crate) fn note<T>(&mut self, path: &str, value: Option<T>) -> Option<T> {
        if value.is_some() {
            self.paths.push(path.to_owned());
        }
        value
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::commands::check_settings::Check;

    fn check(health: Check) -> CheckSettings {
        CheckSettings { health: Some(health), ..CheckSettings::default() }
    }

    #[test]
    fn only_what_is_given_is_in_the_mask() {
        let settings = PoolSettings {
            algorithm: Some(Algorithm::LeastConnections),
            check: check(Check::None),
            health_interval: Some("5s".to_owned()),
            health_port: Some(0),
            ..PoolSettings::default()
        };
        let mut input = Input::default();
        let PoolChange { pool, mut paths, .. } = settings.change(&mut input);
        input.finish().unwrap();
        paths.sort();
        assert_eq!(paths, ["algorithm", "health_check.interval", "health_check.none", "health_check.port"]);
        assert_eq!(pool.algorithm(), v1::Algorithm::LeastConnections);
        let check = pool.health_check.unwrap();
        assert_eq!(check.kind, Some(v1::health_check::Kind::None(v1::NoCheck {})));
        assert_eq!(check.interval.unwrap().seconds, 5);
        assert_eq!((check.rise, check.timeout, pool.connect_retries), (None, None, None));
    }

    #[test]
    fn every_setting_has_its_path() {
        let text = || Some("1s".to_owned());
        let settings = PoolSettings {
            algorithm: Some(Algorithm::RoundRobin),
            check: check(Check::Tcp),
            on_down: Some(OnDown::Keep),
            all_down: Some(AllDown::FailOpen),
            health_interval: text(),
            health_fast_interval: text(),
            health_timeout: text(),
            health_rise: Some(1),
            health_fall: Some(1),
            health_jitter_percent: Some(0),
            health_port: Some(80),
            connect_timeout: text(),
            connect_retries: Some(0),
        };
        let PoolChange { pool, mut paths, .. } = settings.change(&mut Input::default());
        paths.sort();
        assert_eq!(
            paths,
            [
                "algorithm",
                "all_down",
                "connect_retries",
                "connect_timeout",
                "health_check.fall",
                "health_check.fast_interval",
                "health_check.interval",
                "health_check.jitter_percent",
                "health_check.port",
                "health_check.rise",
                "health_check.tcp",
                "health_check.timeout",
                "on_down",
            ]
        );
        assert_eq!((pool.on_down(), pool.all_down()), (v1::OnDown::Keep, v1::AllDown::FailOpen));
        assert_eq!(pool.health_check.unwrap().port, 80);
    }

    #[test]
    fn all_durations_that_are_wrong_are_told() {
        let settings = PoolSettings {
            health_interval: Some("5".to_owned()),
            connect_timeout: Some("soon".to_owned()),
            ..PoolSettings::default()
        };
        let mut input = Input::default();
        settings.change(&mut input);
        let text = input.finish().unwrap_err().render();
        assert_eq!(
            text,
            "error: --connect-timeout \"soon\": must be a duration with a unit, as in 500ms, 2s or 1m30s\n\
             error: --health-interval \"5\": must be a duration with a unit, as in 500ms, 2s or 1m30s"
        );
    }

    #[test]
    fn settings_of_a_check_wait_for_its_kind() {
        let path = CheckSettings { health_path: Some("/readyz".to_owned()), ..CheckSettings::default() };
        let mut input = Input::default();
        let mut change = PoolSettings { check: path, ..PoolSettings::default() }.change(&mut input);
        assert!(change.paths.is_empty() && change.rest.is_some());
        change.complete(Check::Https.plain(), &mut input);
        input.finish().unwrap();
        assert_eq!(change.paths, ["health_check.http"]);
        let kind = change.pool.health_check.unwrap().kind;
        assert!(
            matches!(kind, Some(v1::health_check::Kind::Http(http)) if http.path == "/readyz" && http.tls.is_some())
        );
    }
}
