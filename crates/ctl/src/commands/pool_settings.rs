//! Settings of a pool as options, for creation and update alike.

use clap::{Args, ValueEnum};
use trestle_api::v1;

use crate::input::Input;

/// How a pool picks a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    /// Each backend in turn, in proportion to its weight
    RoundRobin,
    /// The backend with the fewest connections for its weight
    LeastConnections,
}

/// What a health check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Connect and close again
    Tcp,
    /// No check
    None,
}

/// Settings of a pool; those that are not given get their default on creation and stay as they are in an update.
#[derive(Debug, Default, Args)]
pub(crate) struct PoolSettings {
    /// How a backend is picked [default: round-robin]
    #[arg(long, value_name = "ALGORITHM")]
    pub(crate) algorithm: Option<Algorithm>,
    /// How backends are checked [default: tcp]
    #[arg(long, value_name = "CHECK")]
    pub(crate) health: Option<Check>,
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

impl PoolSettings {
    /// The settings as the API takes them, and the paths of those that were given.
    pub(crate) fn message(&self, input: &mut Input) -> (v1::Pool, Vec<String>) {
        let mut given = Given::default();
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
        if let Some(algorithm) = given.note("algorithm", self.algorithm) {
            pool.set_algorithm(match algorithm {
                Algorithm::RoundRobin => v1::Algorithm::RoundRobin,
                Algorithm::LeastConnections => v1::Algorithm::LeastConnections,
            });
        }
        let (interval, fast, timeout) =
            ("health_check.interval", "health_check.fast_interval", "health_check.timeout");
        pool.health_check = Some(v1::HealthCheck {
            kind: self.kind(&mut given),
            interval: duration(&mut given, interval, "--health-interval", &self.health_interval),
            fast_interval: duration(&mut given, fast, "--health-fast-interval", &self.health_fast_interval),
            timeout: duration(&mut given, timeout, "--health-timeout", &self.health_timeout),
            rise: given.note("health_check.rise", self.health_rise),
            fall: given.note("health_check.fall", self.health_fall),
            jitter_percent: given.note("health_check.jitter_percent", self.health_jitter_percent),
            port: given.note("health_check.port", self.health_port).unwrap_or_default().into(),
        });
        (pool, given.paths)
    }

    fn kind(&self, given: &mut Given) -> Option<v1::health_check::Kind> {
        match self.health? {
            Check::Tcp => given.note("health_check.tcp", Some(v1::health_check::Kind::Tcp(v1::TcpCheck {}))),
            Check::None => {
                given.note("health_check.none", Some(v1::health_check::Kind::None(v1::NoCheck {})))
            }
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

    #[test]
    fn only_what_is_given_is_in_the_mask() {
        let settings = PoolSettings {
            algorithm: Some(Algorithm::LeastConnections),
            health: Some(Check::None),
            health_interval: Some("5s".to_owned()),
            health_port: Some(0),
            ..PoolSettings::default()
        };
        let mut input = Input::default();
        let (pool, mut paths) = settings.message(&mut input);
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
            health: Some(Check::Tcp),
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
        let (pool, mut paths) = settings.message(&mut Input::default());
        paths.sort();
        assert_eq!(
            paths,
            [
                "algorithm",
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
            ]
        );
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
        settings.message(&mut input);
        let text = input.finish().unwrap_err().render();
        assert_eq!(
            text,
            "error: --connect-timeout \"soon\": must be a duration with a unit, as in 500ms, 2s or 1m30s\n\
             error: --health-interval \"5\": must be a duration with a unit, as in 500ms, 2s or 1m30s"
        );
    }
}
