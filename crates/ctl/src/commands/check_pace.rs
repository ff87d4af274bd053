//! How often backends are checked, and what the results count, as options.

use clap::Args;
use trestle_api::v1;
use trestle_model::InitialState;

use super::choice::{choice, number};
use super::field_mask::FieldMaskBuilder;
use crate::input::Input;

/// Settings of a check that go with every kind.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health check")]
pub(crate) struct PaceSettings {
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
    /// What a backend counts as before its first check has ended [default: unknown]
    #[arg(long, value_name = "STATE", value_parser = choice::<InitialState>())]
    pub(crate) health_initial: Option<InitialState>,
}

impl PaceSettings {
    /// What was given, as a check without a kind.
    pub(super) fn check(&self, mask: &mut FieldMaskBuilder, input: &mut Input) -> v1::HealthCheck {
        let mut duration = |mask: &mut FieldMaskBuilder, path, label, text: &Option<String>| {
            mask.set(path, text.as_ref().map(|text| input.duration(label, text)))
        };
        let (interval, fast, timeout) =
            ("health_check.interval", "health_check.fast_interval", "health_check.timeout");
        let mut check = v1::HealthCheck {
            interval: duration(mask, interval, "--health-interval", &self.health_interval),
            fast_interval: duration(mask, fast, "--health-fast-interval", &self.health_fast_interval),
            timeout: duration(mask, timeout, "--health-timeout", &self.health_timeout),
            rise: mask.set("health_check.rise", self.health_rise),
            fall: mask.set("health_check.fall", self.health_fall),
            jitter_percent: mask.set("health_check.jitter_percent", self.health_jitter_percent),
            port: mask.set("health_check.port", self.health_port).unwrap_or_default().into(),
            ..v1::HealthCheck::default()
        };
        check.initial_state = number(mask.set("health_check.initial_state", self.health_initial));
        check
    }
}
