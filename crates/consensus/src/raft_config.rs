//! openraft's settings, and why they are as they are.

use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::snapshot::{LOG_KEPT, SNAPSHOT_EVERY};
use crate::timing::Timing;

/// Most entries of one append: with usual proposals a few dozen KiB. The log reader ends it earlier at 2 MiB.
const APPEND_ENTRIES_MAX: u64 = 256;

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The settings for `timing`.
///
/// # Errors
/// When the times contradict one another, for example an election time-out no longer than the heartbeat.
pub(crate) fn raft_config(cluster: &str, timing: &Timing) -> Result<Config, ConfigError> {
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        max_payload_entries: APPEND_ENTRIES_MAX,
        // The network has its own time-outs; this one would only cut a snapshot short.
        install_snapshot_timeout: 600_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: LOG_KEPT,
        // A member that lags by less is sent entries, which are still there; must exceed the snapshot interval.
        replication_lag_threshold: SNAPSHOT_EVERY + LOG_KEPT,
        // One purge for many entries, not one for each.
        purge_batch_size: 256,
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
            let config = raft_config("c", &timing).unwrap();
            assert_eq!(config.enable_leader_restore, Some(false));
            assert_eq!(config.enable_pre_vote, Some(true));
        }
    }
}
