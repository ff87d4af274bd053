//! Keys and records of the log store.

use trestle_api::storage;

use super::disk::{DiskOp, DiskTable};
use super::record::{RecordError, seal, unseal};
use crate::identity::Identity;
use crate::raft_types::{LogEntry, LogId, Vote};
use crate::wire;

pub(super) const VOTE: &[u8] = b"vote";
pub(super) const PURGED: &[u8] = b"purged";
pub(super) const COMMITTED: &[u8] = b"committed";
/// Whose log this is: an `Identity`, as in the identity file when the log was created.
pub(super) const OWNER: &[u8] = b"owner";

fn put_meta(key: &[u8], record: Vec<u8>) -> DiskOp {
    DiskOp::Put { table: DiskTable::Meta, key: key.to_vec(), record }
}

pub(super) fn entry_key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

pub(super) fn entry_index(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Writes an entry; says how many bytes its record has.
pub(super) fn put_entry(entry: &LogEntry) -> (DiskOp, usize) {
    let record = seal(&wire::entry_message(entry));
    let bytes = record.len();
    (DiskOp::Put { table: DiskTable::Log, key: entry_key(entry.log_id.index), record }, bytes)
}

/// Decodes the record of the entry at `index`.
pub(super) fn decode_entry(index: u64, record: &[u8]) -> Result<LogEntry, RecordError> {
    let message: storage::LogEntry = unseal(record)?;
    let entry = wire::entry(message).map_err(|e| RecordError::Content(e.to_string()))?;
    if entry.log_id.index != index {
        return Err(RecordError::OtherEntry(entry.log_id.index));
    }
    Ok(entry)
}

pub(super) fn remove_entry(index: u64) -> DiskOp {
    DiskOp::Remove { table: DiskTable::Log, key: entry_key(index) }
}

pub(super) fn put_vote(vote: &Vote) -> DiskOp {
    put_meta(VOTE, seal(&wire::vote_message(vote)))
}

fn log_id_record(id: &LogId) -> Vec<u8> {
    let message: storage::LogId = wire::log_id_message(id);
    seal(&message)
}

pub(super) fn put_purged(id: &LogId) -> DiskOp {
    put_meta(PURGED, log_id_record(id))
}

pub(super) fn put_committed(id: &LogId) -> DiskOp {
    put_meta(COMMITTED, log_id_record(id))
}

pub(super) fn put_owner(identity: &Identity) -> DiskOp {
    put_meta(OWNER, seal(&identity.message()))
}
