//! The time by which this member judges and signs certificates, and what is wrong with its clock.

use std::time::{Duration, Instant, SystemTime};

use trestle_identity::{VerificationTime, time_text};
use trestle_model::defaults::CLOCK_TOLERANCE;

use super::cluster_trust::ClusterTrust;
use super::quorum_clock::QuorumTime;

/// How far a clock may be ahead of the log's time before nothing is signed by it alone: a day, as the log's time follows the clocks.
const FAR_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// How far clocks are apart, in words.
fn span(apart: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match apart.as_secs() {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

impl ClusterTrust {
    /// What a quorum of them show now.
    pub(super) fn quorum_time(&self) -> QuorumTime {
        self.quorum_clock().time(SystemTime::now(), Instant::now())
    }

    /// The time that the log has come to; `None` before it has any.
    fn log_time(&self) -> Option<SystemTime> {
        let since = Duration::from_millis(self.state().time_ms);
        SystemTime::UNIX_EPOCH.checked_add(since).filter(|_| !since.is_zero())
    }

    /// The time by which certificates are judged here.
    pub(crate) fn now(&self) -> VerificationTime {
        let clock = SystemTime::now();
        let quorum = match self.quorum_clock().time(clock, Instant::now()) {
            QuorumTime::Agreed(time) => Some(time),
            QuorumTime::Differ | QuorumTime::Unheard => None,
        };
        VerificationTime::in_cluster(clock, self.log_time(), quorum)
    }

    /// The same in milliseconds since the beginning of 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let since = self.now().time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time by which certificates are signed here.
    ///
    /// # Errors
    /// In words, when this machine's clock may be wrong: what was signed by it would be of no use, or for too long.
    pub(super) fn signing_time(&self) -> Result<SystemTime, String> {
        let (clock, log) = (SystemTime::now(), self.log_time());
        let is_far_ahead =
            log.is_some_and(|log| clock.duration_since(log).is_ok_and(|ahead| ahead > FAR_AHEAD));
        if is_far_ahead && !matches!(self.quorum_time(), QuorumTime::Agreed(_)) {
            return Err(format!(
                "it is {}, and no quorum of the members' clocks says which is right: set the clock of this machine right, or see that \
                 other members answer",
                self.now()
            ));
        }
        Ok(self.now().time())
    }

    /// How far this machine's clock is ahead of what a quorum of the voters' clocks agree on, in seconds; negative where it is behind.
    pub(crate) fn clock_skew(&self) -> Option<f64> {
        let clock = SystemTime::now();
        let QuorumTime::Agreed(agreed) = self.quorum_clock().time(clock, Instant::now()) else { return None };
        Some(match clock.duration_since(agreed) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        })
    }

    /// What is wrong with this machine's clock, or with that of others, in a sentence.
    pub(crate) fn clock_problem(&self) -> Option<String> {
        let clock = SystemTime::now();
        let agreed = match self.quorum_clock().time(clock, Instant::now()) {
            QuorumTime::Agreed(agreed) => agreed,
            QuorumTime::Unheard => return None,
            QuorumTime::Differ => {
                return Some(format!(
                    "its clock shows {}, and no quorum of the members' clocks agree on the time: set the clocks right; until then \
                     certificates of users are judged by each member's own, and none may be signed",
                    time_text(clock)
                ));
            }
        };
        let (apart, way) = match clock.duration_since(agreed) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        (apart > CLOCK_TOLERANCE).then(|| {
            format!(
                "its clock shows {} and is {} {way} what a quorum of the members' clocks agree on, {}: set it right; until then \
                 certificates are judged and signed by theirs",
                time_text(clock),
                span(apart),
                time_text(agreed)
            )
        })
    }
}
