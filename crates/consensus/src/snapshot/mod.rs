//! Snapshots: the whole state machine in one checksummed file, so that the log before it can go.

mod files;
mod payload;

pub(crate) use files::{RestoredSnapshot, SnapshotFiles};
pub(crate) use payload::{SnapshotError, decode, encode};

/// Log entries after which the state machine is written out.
pub(crate) const SNAPSHOT_EVERY: u64 = 10_000;
/// Log entries kept below a snapshot, so that a member that lags a little needs no snapshot.
pub(crate) const LOG_KEPT: u64 = 1_000;

#[cfg(test)]
mod tests;
