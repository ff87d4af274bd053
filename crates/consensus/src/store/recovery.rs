//! Reading the log at start: everything is checked, and only what was never acknowledged may be missing.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::path::Path;

use prost::Message;

use super::disk::{DiskOp, DiskTable, KeyedRecord, LogDisk};
use super::error::{OpenError, StorageOwner};
use super::layout;
use super::memory::MemoryLog;
use super::record::{self, RecordError, unseal};
use super::synced_index::SyncedIndex;
use crate::identity::Identity;
use crate::raft_types::{LogId, Vote};
use crate::wire;

/// What the disk holds.
pub(super) struct Recovered {
    /// The log.
    pub(super) log: MemoryLog,
    /// Whose log it is.
    pub(super) owner: Option<Identity>,
    /// Left-overs to remove: entries below the purge, and a torn last record.
    pub(super) sweep: Vec<DiskOp>,
}

/// Names the file in errors.
struct RecoveryReader<'a> {
    file: &'a Path,
    owner: &'a StorageOwner,
}

impl RecoveryReader<'_> {
    fn damaged(&self, what: impl Into<String>) -> OpenError {
        self.owner.damaged(self.file, what)
    }

    /// Hands the records of a table to `each`, one at a time, until it fails.
    fn scan(
        &self,
        disk: &impl LogDisk,
        table: DiskTable,
        mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let mut failed = None;
        let scanned = disk.scan(table, &mut |key, record| match each(key, record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        let scanned = scanned.map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                self.damaged(e.to_string())
            }
            _ => OpenError::io("read", self.file)(e),
        });
        failed.map_or(scanned, Err)
    }

    /// Why the record that `name` describes is refused.
    fn refused(&self, name: &str, error: &RecordError) -> OpenError {
        match error {
            RecordError::Newer(found) => OpenError::NewerFormat {
                file: self.file.to_owned(),
                found: u32::from(*found),
                known: u32::from(record::VERSION),
            },
            // It is as it was written, or its checksum would not hold.
            RecordError::Content(what) => self.unknown(format!("{name}: {what}")),
            e => self.damaged(format!("in {name}, {e}")),
        }
    }

    fn unknown(&self, what: String) -> OpenError {
        OpenError::Unknown { file: self.file.to_owned(), what }
    }

    fn meta<M: Message + Default, T, E: ToString>(
        &self,
        table: &[KeyedRecord],
        key: &[u8],
        decode: impl FnOnce(M) -> Result<T, E>,
    ) -> Result<Option<T>, OpenError> {
        let Some((_, record)) = table.iter().find(|(stored, _)| stored == key) else {
            return Ok(None);
        };
        let name = format!("record \"{}\"", String::from_utf8_lossy(key));
        let message = unseal(record).map_err(|e| self.refused(&name, &e))?;
        decode(message).map(Some).map_err(|e| self.unknown(format!("{name}: {}", e.to_string())))
    }
}

/// Reads and checks everything. `mark` is what must be there at least.
pub(super) fn recover(
    disk: &impl LogDisk,
    synced: SyncedIndex,
    file: &Path,
    owner: &StorageOwner,
) -> Result<Recovered, OpenError> {
    let reader = RecoveryReader { file, owner };
    let mut meta = Vec::new();
    reader.scan(disk, DiskTable::Meta, |key, record| {
        meta.push((key, record));
        Ok(())
    })?;
    let vote = reader.meta(&meta, layout::VOTE, wire::vote)?;
    let purged = reader.meta(&meta, layout::PURGED, wire::log_id)?;
    let mut log = MemoryLog::new(vote, purged);
    let committed: Option<LogId> = reader.meta(&meta, layout::COMMITTED, wire::log_id)?;
    let identity = reader.meta(&meta, layout::OWNER, Identity::decode)?;
    let sweep = read_entries(&reader, disk, synced, &mut log)?;
    // What lies beyond the last entry was never acknowledged by this member, even if others have committed it.
    log.committed = committed.min(log.last());
    check_synced_index(&reader, synced, &log)?;
    Ok(Recovered { log, owner: identity, sweep })
}

fn read_entries(
    reader: &RecoveryReader<'_>,
    disk: &impl LogDisk,
    synced: SyncedIndex,
    log: &mut MemoryLog,
) -> Result<Vec<DiskOp>, OpenError> {
    let mut sweep = Vec::new();
    let mut next = log.purged.map_or(0, |id| id.index.saturating_add(1));
    // A write that was interrupted may have left the last record torn, and no other.
    let mut torn: Option<(u64, RecordError)> = None;
    let damaged = |(index, error): &(u64, RecordError)| reader.refused(&format!("log entry {index}"), error);
    reader.scan(disk, DiskTable::Log, |key, record| {
        if let Some(torn) = &torn {
            return Err(damaged(torn));
        }
        let index = layout::entry_index(&key).ok_or_else(|| {
            reader.damaged(format!("the key of a log record has {} bytes instead of 8", key.len()))
        })?;
        if log.purged.is_some_and(|purged| index <= purged.index) {
            sweep.push(layout::remove_entry(index));
            return Ok(());
        }
        if index != next {
            return Err(reader.damaged(format!("log entry {next} is missing, the next one is {index}")));
        }
        next = index.saturating_add(1);
        match layout::decode_entry(index, &record) {
            Ok(entry) => {
                if log.last().is_some_and(|last| last >= entry.log_id) {
                    return Err(reader.damaged(format!("log entry {index} is older than the one before it")));
                }
                let written = entry.log_id;
                log.append(entry).map_err(|e| reader.damaged(e.to_string()))?;
                log.evict(Some(written));
                Ok(())
            }
            Err(error) if error.is_torn() && synced.last.is_none_or(|last| last.index < index) => {
                torn = Some((index, error));
                Ok(())
            }
            Err(error) => Err(damaged(&(index, error))),
        }
    })?;
    if let Some((index, error)) = torn {
        tracing::warn!(
            file = %reader.file.display(), index, %error,
            "dropping the last record of the log: its write was interrupted, and nobody was told of it"
        );
        sweep.push(layout::remove_entry(index));
    }
    Ok(sweep)
}

fn check_synced_index(
    reader: &RecoveryReader<'_>,
    synced: SyncedIndex,
    log: &MemoryLog,
) -> Result<(), OpenError> {
    if let Some(synced_at_least) = synced.last {
        let last = log.last();
        if last.is_none_or(|last| last.index < synced_at_least.index) {
            let end = last
                .map_or_else(|| "it is empty".to_owned(), |last| format!("it ends at entry {}", last.index));
            return Err(
                reader.damaged(format!("{end}, but entries up to {} were durable", synced_at_least.index))
            );
        }
        let found = log.log_id(synced_at_least.index);
        if found.is_some_and(|found| found != synced_at_least) {
            return Err(reader.damaged(format!(
                "entry {} is of term {} instead of {}",
                synced_at_least.index,
                found.map_or(0, |id| id.leader_id.term),
                synced_at_least.leader_id.term
            )));
        }
    }
    let reaches =
        |stored: Vote, synced_at_least| stored.partial_cmp(&synced_at_least).is_some_and(Ordering::is_ge);
    let older =
        |stored: Option<Vote>, synced_at_least| stored.is_none_or(|stored| !reaches(stored, synced_at_least));
    match synced.vote {
        Some(synced_at_least) if older(log.vote, synced_at_least) => {
            let found = log.vote.map_or_else(|| "is missing".to_owned(), |vote| format!("is {vote}"));
            Err(reader.damaged(format!("its vote {found}, but {synced_at_least} was durable")))
        }
        _ => Ok(()),
    }
}
