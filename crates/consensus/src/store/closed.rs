//! The log of a member that does not run, for a tool that has locked its data directory.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::LogDisk;
use super::error::OpenError;
use super::layout;
use super::log_store::{read, read_entries};
use super::memory::MemoryLog;
use super::synced_index::{SyncedIndex, SyncedIndexFile};
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::raft_types::{LogEntry, LogId, Vote};

/// The log, in memory and on the disk, without a thread that writes it.
pub(crate) struct ClosedLog {
    file: PathBuf,
    disk: Box<dyn LogDisk>,
    synced: SyncedIndexFile,
    log: MemoryLog,
}

impl std::fmt::Debug for ClosedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosedLog").field("log", &self.log).finish_non_exhaustive()
    }
}

impl ClosedLog {
    /// Opens and checks the log of a member that has an identity.
    pub(crate) fn open(dir: &Arc<DataDir>, identity: &Identity) -> Result<Self, OpenError> {
        let (file, disk, synced, log) = read(dir, identity)?;
        Ok(Self { file, disk, synced, log })
    }

    /// The last log entry that is only in a snapshot any more.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.log.purged
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.log.last()
    }

    /// The last entry that is known to be committed.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.log.committed
    }

    /// The vote.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.log.vote
    }

    /// All entries.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(crate) fn entries(&self) -> Result<Vec<LogEntry>, OpenError> {
        let all = read_entries(&*self.disk.reader(), 0, u64::MAX);
        all.map_err(OpenError::io("read", &self.file))
    }

    /// Adds entries and a vote, durably.
    pub(crate) fn append(&mut self, vote: &Vote, entries: &[LogEntry]) -> Result<(), OpenError> {
        let mut ops = vec![layout::put_vote(vote)];
        ops.extend(entries.iter().map(|entry| layout::put_entry(entry).0));
        let last = entries.last().map(|entry| entry.log_id).or(self.log.last());
        let wrote = self.disk.apply(ops).and_then(|()| self.disk.sync());
        let synced_at_least =
            wrote.and_then(|()| self.synced.advance(SyncedIndex { last, vote: Some(*vote) }));
        synced_at_least.map_err(OpenError::io("write", &self.file))
    }
}
