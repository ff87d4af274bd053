//! The time by which certificates are judged. A machine's clock may be years off, and must then neither let in whoever's time is over nor
//! refuse everybody, as far as something is known that is better.

use std::fmt;
use std::time::{Duration, SystemTime};

use trestle_model::defaults::{BUILT_AFTER, CLOCK_TOLERANCE};

use crate::verify::time_text;

/// How far a clock may be ahead of the log's time, which follows at some distance, before both are told.
const LOG_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// What a time was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// This machine's clock.
    Clock,
    /// The clocks of a quorum of the voters.
    Quorum,
    /// The cluster's log.
    Log,
    /// The program.
    Build,
}

/// A time by which certificates are judged: shown, it says what it was taken from, and this machine's clock with it where that is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationTime {
    time: SystemTime,
    source: Source,
    clock: SystemTime,
    /// The log's time, where the clock is far ahead of it.
    log: Option<SystemTime>,
}

/// How far two times are apart.
fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|earlier| earlier.duration())
}

impl VerificationTime {
    /// Of a process that knows no cluster's time: this machine's clock, but no time before the program was made.
    pub fn by_clock(clock: SystemTime) -> Self {
        Self::in_cluster(clock, None, None)
    }

    /// Of a member: this machine's clock, or what a quorum of the voters' clocks agree on where that is another time; in any case no time
    /// before the log's, and none before the program was made. A quorum counts only when it has just been asked: a member that is cut off
    /// has nothing but its clock and its log.
    pub fn in_cluster(clock: SystemTime, log: Option<SystemTime>, quorum: Option<SystemTime>) -> Self {
        let (mut time, mut source) = (clock, Source::Clock);
        if let Some(agreed) = quorum.filter(|agreed| apart(*agreed, clock) > CLOCK_TOLERANCE) {
            (time, source) = (agreed, Source::Quorum);
        }
        let floors = [(log, Source::Log), (SystemTime::UNIX_EPOCH.checked_add(BUILT_AFTER), Source::Build)];
        for (floor, from) in floors {
            if let Some(floor) = floor.filter(|floor| *floor > time) {
                (time, source) = (floor, from);
            }
        }
        let log = log.filter(|log| clock.duration_since(*log).is_ok_and(|ahead| ahead > LOG_BEHIND));
        Self { time, source, clock, log }
    }

    /// The time itself.
    pub fn time(self) -> SystemTime {
        self.time
    }
}

impl fmt::Display for VerificationTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&time_text(self.time))?;
        let clock = time_text(self.clock);
        match (self.source, self.log) {
            (Source::Clock, None) => f.write_str(" by the clock of this machine"),
            (Source::Clock, Some(log)) => write!(
                f,
                " by the clock of this machine, while the cluster's log has come to {}",
                time_text(log)
            ),
            (Source::Quorum, _) => write!(
                f,
                " by the clocks of a quorum of the members, and {clock} by the clock of this machine"
            ),
            (Source::Log, _) => {
                write!(f, " at the least by the cluster's log, and {clock} by the clock of this machine")
            }
            (Source::Build, _) => write!(
                f,
                " at the least, when this program was made, and {clock} by the clock of this machine"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEARS: Duration = Duration::from_secs(3650 * 24 * 3600);

    /// 2027-01-15T08:00:00Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn told(clock: SystemTime, log: Option<SystemTime>, quorum: Option<SystemTime>) -> String {
        VerificationTime::in_cluster(clock, log, quorum).to_string()
    }

    #[test]
    fn a_clock_that_others_agree_with_counts_to_the_second() {
        let second = Duration::from_secs(1);
        for quorum in [None, Some(now() + second), Some(now() - CLOCK_TOLERANCE)] {
            let judged = VerificationTime::in_cluster(now(), Some(now() - second), quorum);
            assert_eq!(judged.time(), now());
            assert_eq!(judged.to_string(), "2027-01-15T08:00:00Z by the clock of this machine");
        }
    }

    #[test]
    fn a_quorum_that_agrees_on_another_time_is_believed_rather_than_the_clock() {
        for clock in [now() + YEARS, now() - YEARS, now() + 2 * CLOCK_TOLERANCE] {
            let judged = VerificationTime::in_cluster(clock, Some(now() - DAY), Some(now()));
            assert_eq!(judged.time(), now());
        }
        assert_eq!(
            told(now() + YEARS, Some(now() - DAY), Some(now())),
            "2027-01-15T08:00:00Z by the clocks of a quorum of the members, and 2037-01-12T08:00:00Z by the clock of this machine"
        );
    }

    #[test]
    fn without_a_quorum_the_newest_of_clock_log_and_build_counts() {
        assert_eq!(
            told(SystemTime::UNIX_EPOCH, Some(now()), None),
            "2027-01-15T08:00:00Z at the least by the cluster's log, and 1970-01-01T00:00:00Z by the clock of this machine"
        );
        assert_eq!(
            told(now() + YEARS, Some(now()), None),
            "2037-01-12T08:00:00Z by the clock of this machine, while the cluster's log has come to 2027-01-15T08:00:00Z"
        );
        assert!(
            VerificationTime::by_clock(SystemTime::UNIX_EPOCH)
                .to_string()
                .starts_with("2026-04-16T00:00:00Z at the least, when this program was made")
        );
        // Whoever agrees on a time before that of the log is wrong with the others.
        let judged = VerificationTime::in_cluster(now() - YEARS, Some(now()), Some(now() - YEARS));
        assert_eq!(judged.time(), now());
    }
}
