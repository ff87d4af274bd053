//! openraft's settings, and why they are as they are.

use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::snapshot::{LOG_KEPT, SNAPSHOT_EVERY};
use crate::timing::Timing;

/// When the log is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Entries after which the state machine is written out.
    pub snapshot_every: u64,
    /// Entries kept below a snapshot, for members that lag a little.
    pub kept: u64,
    /// Entries that are purged at once.
    pub purged_at_once: u64,
}

impl Default for LogBounds {
    fn default() -> Self {
        // One purge for many entries, not one for each.
        Self { snapshot_every: SNAPSHOT_EVERY, kept: LOG_KEPT, purged_at_once: 256 }
    }
}

/// Most entries of one append: with usual proposals a few dozen KiB. The log reader ends it earlier at 2 MiB.
const APPEND_ENTRIES_MAX: u64 = 256;

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The settings for `timing`.
///
/// # Errors
/// When the times contradict one another, for example an election time-out no longer than the heartbeat.
pub(crate) fn raft_config(cluster: &str, timing: &Timing, bounds: &LogBounds) -> Result<Config, ConfigError> {
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        max_payload_entries: APPEND_ENTRIES_MAX,
        // The network has its own time-outs; this one would only cut a snapshot short.
        install_snapshot_timeout: 600_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(bounds.snapshot_every),
        max_in_snapshot_log_to_keep: bounds.kept,
        // A member that lags by less is sent entries, which are still there; must exceed the snapshot interval.
        replication_lag_threshold: bounds.snapshot_every + bounds.kept,
        purge_batch_size: bounds.purged_at_once,
        // A leader that restarts must be elected: it does not know what happened in between (openraft #1511).
        enable_leader_restore: Some(false),
        // A member that was cut off comes back without deposing the leader.
        enable_pre_vote: Some(true),
        // A leader without a quorum falls silent in turns, so that members which hear only it can elect another
        // (openraft #2080). The least that openraft takes: a lease and an election.
        quorum_loss_probe_interval: Some(2 * millis(timing.election_max)),
        // A follower that has lost entries which it had acknowledged is filled again like an empty one, instead of being
        // taken for up to date until the next leader comes. What keeps it from voting meanwhile is in `recall`.
        allow_log_reversion: Some(true),
        ..Config::default()
    };
    config.validate()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_profile_is_valid() {
        for timing in [Timing::default(), Timing::fast(), Timing::wide()] {
            let config = raft_config("c", &timing, &LogBounds::default()).unwrap();
            assert_eq!(config.enable_leader_restore, Some(false));
            assert_eq!(config.enable_pre_vote, Some(true));
        }
    }
}
