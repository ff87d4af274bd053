//! What the log store needs of a disk, and nothing more: another library can be put behind it.

use std::io;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskTable {
    /// Log entries; the key is the index as eight bytes, big-endian, so that keys sort as indexes do.
    Log,
    /// Everything else, by name.
    Meta,
}

/// A key with its sealed record.
pub(crate) type KeyedRecord = (Vec<u8>, Vec<u8>);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskOp {
    /// Writes a record.
    Put {
        /// Where.
        table: DiskTable,
        /// Its key.
        key: Vec<u8>,
        /// The sealed record.
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
/// applied, and at least those before the last [`sync`](Self::sync) that succeeded.
pub(crate) trait LogDisk: Send + 'static {
    /// Applies changes in order. They need not be durable yet.
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()>;

    /// Makes everything that was applied survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;

    /// All records of a table in the order of keys.
    fn load(&self, table: DiskTable) -> io::Result<Vec<KeyedRecord>>;
}
