//! What the configuration says about this member as a holder of virtual IPs: its own checks, and its lease thread.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LocalCheckConfig;
use super::checked::{Config, SettingReader, boolean};

const INTERVAL_DEFAULT: Duration = Duration::from_secs(2);
const INTERVAL_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const RISE_DEFAULT: u32 = 2;
const FALL_DEFAULT: u32 = 3;
const TIMES_MAX: u32 = 100;

/// What is this member's own about holding virtual IPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipConfig {
    /// A program whose exit code says whether this member is fit to hold virtual IPs: 0 means that it is. `None` for no
    /// such check.
    pub check: Option<PathBuf>,
    /// A service of this machine that must answer for this member to be fit. `None` for no such check. Both checks may be
    /// given; each has a rise and fall of its own, and while either fails the member is unfit.
    pub local_check: Option<LocalCheckConfig>,
    /// Time between two starts of a check. Default 2 s; 100 ms to 1 h.
    pub check_interval: Duration,
    /// How long a run may take before it is ended, which counts as a failure. Default 1 s, or the interval if that is
    /// shorter; 10 ms to the interval.
    pub check_timeout: Duration,
    /// Successes in a row after which a member that was found unfit is fit. Default 2; up to 100.
    pub check_rise: NonZeroU32,
    /// Failures in a row after which it is unfit. Default 3; up to 100.
    pub check_fall: NonZeroU32,
    /// Whether the thread that renews the lease runs ahead of every thread without real-time priority (SCHED_FIFO). Default
    /// false; needs CAP_SYS_NICE or a limit on real-time priority of at least 1.
    pub real_time: bool,
}

impl Default for VipConfig {
    fn default() -> Self {
        Self {
            check: None,
            local_check: None,
            check_interval: INTERVAL_DEFAULT,
            check_timeout: TIMEOUT_DEFAULT,
            check_rise: NonZeroU32::MIN.saturating_add(RISE_DEFAULT - 1),
            check_fall: NonZeroU32::MIN.saturating_add(FALL_DEFAULT - 1),
            real_time: false,
        }
    }
}

fn program(text: &str) -> Result<Option<PathBuf>, String> {
    match Path::new(text) {
        _ if text.is_empty() => Ok(None),
        path if path.is_absolute() => Ok(Some(path.to_owned())),
        _ => {
            Err("must be the path of a program from the root on, as in /etc/trestle/check.sh; empty for none"
                .to_owned())
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if INTERVAL_BOUNDS.contains(&interval) => Ok(interval),
        _ => Err("must be a time of 100ms to 1h, as in 2s".to_owned()),
    }
}

fn timeout(text: &str, interval: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(timeout) if (TIMEOUT_MIN..=interval).contains(&timeout) => Ok(timeout),
        _ => Err(format!(
            "must be a time of 10ms to vip.check_interval ({}), as in 100ms",
            humantime::format_duration(interval)
        )),
    }
}

fn times(text: &str) -> Result<NonZeroU32, String> {
    let times = text.parse().ok().filter(|times| *times <= TIMES_MAX).and_then(NonZeroU32::new);
    times.ok_or_else(|| format!("must be 1 to {TIMES_MAX}"))
}

impl SettingReader<'_> {
    /// The keys of the table `vip`; `own` are this member's own ports.
    pub(super) fn vip(&mut self, own: &[SocketAddr]) -> Option<VipConfig> {
        let shown = |time: Duration| humantime::format_duration(time).to_string();
        let check = self.read("vip.check", "", program);
        let local_check = self.local_check(own);
        let check_interval = self.read("vip.check_interval", &shown(INTERVAL_DEFAULT), interval);
        // Measured against the longest interval where the one given is a mistake of its own.
        let longest = check_interval.unwrap_or(*INTERVAL_BOUNDS.end());
        let default = TIMEOUT_DEFAULT.min(longest);
        let check_timeout = self.read("vip.check_timeout", &shown(default), |text| timeout(text, longest));
        let check_rise = self.read("vip.check_rise", &RISE_DEFAULT.to_string(), times);
        let check_fall = self.read("vip.check_fall", &FALL_DEFAULT.to_string(), times);
        let real_time = self.read("vip.real_time", "false", boolean);
        Some(VipConfig {
            check: check?,
            local_check: local_check?,
            check_interval: check_interval?,
            check_timeout: check_timeout?,
            check_rise: check_rise?,
            check_fall: check_fall?,
            real_time: real_time?,
        })
    }
}

impl Config {
    /// The keys of this file, as a table of TOML.
    pub(super) fn write_vip(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vip = &self.vip;
        writeln!(f, "\n[vip]")?;
        writeln!(f, "check = {:?}", vip.check.as_deref().unwrap_or(Path::new("")))?;
        let local = vip.local_check.as_ref();
        writeln!(f, "local_check = {:?}", local.map_or("", |check| &check.url))?;
        let ca = local.and_then(|check| check.ca_file.as_deref());
        writeln!(f, "local_check_ca = {:?}", ca.unwrap_or(Path::new("")))?;
        writeln!(f, "check_interval = \"{}\"", humantime::format_duration(vip.check_interval))?;
        writeln!(f, "check_timeout = \"{}\"", humantime::format_duration(vip.check_timeout))?;
        writeln!(f, "check_rise = {}", vip.check_rise)?;
        writeln!(f, "check_fall = {}", vip.check_fall)?;
        write!(f, "real_time = {}", vip.real_time)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::{Invalid, Violations};

    use super::super::RawConfig;
    use super::*;

    fn check(toml: &str) -> Result<VipConfig, Invalid> {
        let mut v = Violations::new();
        let given = RawConfig::from_toml(Path::new("t.toml"), &format!("name = \"m1\"\n{toml}"), &mut v);
        Config::check(&given, v).map(|config| config.vip)
    }

    #[test]
    fn the_table_is_read_and_shown() {
        assert_eq!(check(""), Ok(VipConfig::default()));
        assert_eq!(check("[vip]"), Ok(VipConfig::default()));
        let text = "\n[vip]\ncheck = \"/bin/true\"\nlocal_check = \"https://127.0.0.1:6443/readyz\"\n\
                    local_check_ca = \"/ca.pem\"\ncheck_interval = \"500ms\"\ncheck_timeout = \"100ms\"\ncheck_rise = 1\ncheck_fall = 5\nreal_time = true";
        let given = RawConfig::from_toml(Path::new("t.toml"), text, &mut Violations::new());
        let config = Config::check(&given, Violations::new()).unwrap();
        let milliseconds = Duration::from_millis;
        assert_eq!(config.vip.check.as_deref(), Some(Path::new("/bin/true")));
        assert_eq!(
            (config.vip.check_interval, config.vip.check_timeout),
            (milliseconds(500), milliseconds(100))
        );
        assert_eq!((config.vip.check_rise.get(), config.vip.check_fall.get()), (1, 5));
        assert!(config.vip.real_time);
        let shown = config.to_string();
        assert!(shown.ends_with(text), "{shown}");
        let again = RawConfig::from_toml(Path::new("t.toml"), &shown, &mut Violations::new());
        assert_eq!(Config::check(&again, Violations::new()).unwrap().vip, config.vip);
    }

    #[test]
    fn a_short_interval_shortens_the_timeout_that_is_not_given() {
        let vip = check("[vip]\ncheck_interval = \"300ms\"\n").unwrap();
        assert_eq!(vip.check_timeout, Duration::from_millis(300));
    }

    #[test]
    fn every_mistake_is_listed() {
        let text = "[vip]\ncheck = \"check.sh\"\ncheck_interval = \"50ms\"\ncheck_timeout = \"2h\"\ncheck_rise = 0\n\
                    check_fall = 101\nreal_time = \"no\"\nchekc = \"/bin/true\"\n";
        let found = check(text).unwrap_err();
        assert_eq!(found.0.len(), 7, "{found:#?}");
        let said = found.to_string();
        for part in [
            "vip.check (t.toml:3)",
            "t.toml:9",
            "vip.chekc",
            "did you mean \"vip.check\"?",
            "must be a time of 100ms to 1h",
            "must be 1 to 100",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let late = check("[vip]\ncheck_interval = \"1s\"\ncheck_timeout = \"2s\"\n").unwrap_err().to_string();
        assert!(late.contains("10ms to vip.check_interval (1s)"), "{late}");
        for no_table in ["vip = 3", "[vip.check]\na = 1", "[vips]\ncheck = \"/bin/true\""] {
            assert!(check(no_table).is_err(), "{no_table}");
        }
    }
}
