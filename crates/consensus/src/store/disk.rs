//! What the log store needs of a disk, and nothing more: another library can be put behind it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTable {
    /// Log entries; the key is the index as eight bytes, big-endian, so that keys sort as indexes do.
    Log,
    /// Everything else, by name.
    Meta,
}

/// A key with its sealed record.
pub type KeyedRecord = (Vec<u8>, Vec<u8>);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// Writes a record where there is none, or in [`DiskTable::Meta`] over the one that is there.
    Put {
        /// Where.
        table: DiskTable,
        /// Its key.
        key: Vec<u8>,
        /// The sealed record, of whatever size.
        record: Vec<u8>,
    },
    /// Removes a record.
    Remove {
        /// Where.
        table: DiskTable,
        /// Its key.
        key: Vec<u8>,
    },
}

impl DiskOp {
    pub(super) fn table(&self) -> DiskTable {
        match self {
            DiskOp::Put { table, .. } | DiskOp::Remove { table, .. } => *table,
        }
    }
}

/// A durable, ordered map in two tables. After a crash it has a prefix of the changes in the order in which they were
/// applied, and at least those before the last [`sync`](Self::sync) that succeeded. A record is there as a whole or not at all.
pub trait LogDisk: Send + 'static {
    /// Applies changes in order. They need not be durable yet.
    ///
    /// # Errors
    /// When the disk refuses.
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()>;

    /// Makes everything that was applied survive a loss of power.
    ///
    /// # Errors
    /// When the disk refuses. What was applied may then be there or not.
    fn sync(&mut self) -> io::Result<()>;

    /// Hands the records of a table to `each` in the order of keys, one at a time, until it breaks off.
    ///
    /// # Errors
    /// When the disk refuses.
    fn scan(
        &self,
        table: DiskTable,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> ControlFlow<()>,
    ) -> io::Result<()>;

    /// Reads log entries while others are written. It keeps nothing open: once the disk is dropped, each read fails.
    fn reader(&self) -> Arc<dyn DiskReader>;
}

/// Reads what was applied.
pub trait DiskReader: Send + Sync + 'static {
    /// The records of [`DiskTable::Log`] with keys from `first` to `last`, both included, in order.
    ///
    /// # Errors
    /// When the disk refuses, or was dropped.
    fn read(&self, first: &[u8], last: &[u8]) -> io::Result<Vec<KeyedRecord>>;
}

impl LogDisk for Box<dyn LogDisk> {
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()> {
        (**self).apply(ops)
    }

    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }

    fn scan(
        &self,
        table: DiskTable,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        (**self).scan(table, each)
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        (**self).reader()
    }
}
