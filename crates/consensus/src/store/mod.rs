//! The log on disk: entries, vote, and what is purged and committed.
//!
//! Everything that is not purged is also in memory, and openraft reads only that; the disk is written by one thread
//! (see [`writer`]) and read once, at start (see [`recovery`]).

mod backlog;
mod closed;
mod disk;
mod error;
mod layout;
mod log_probe;
mod log_store;
mod memory;
pub(crate) mod record;
mod recovery;
mod sled_disk;
mod synced_index;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use backlog::LogWork;
pub(crate) use closed::ClosedLog;
pub use disk::{DiskOp, DiskReader, DiskTable, KeyedRecord, LogDisk};
pub use error::OpenError;
pub(crate) use error::StorageOwner;
pub(crate) use log_probe::LogProbe;
pub(crate) use log_store::{LogClosed, LogReader, LogStore, create, open};
pub use synced_index::MarkFile;
pub(crate) use synced_index::SyncedIndex;

/// Most bytes of an encoded proposal, with where it came from: two thirds of what etcd takes.
pub(crate) const PROPOSAL_MAX: usize = 1 << 20;
