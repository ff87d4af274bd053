//! Opening everything durable that Raft runs on: log, snapshots, state machine.

use std::sync::Arc;

use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::replica::{Replica, StatePublisher};
use crate::snapshot::SnapshotFiles;
use crate::store::{self, LogClosed, LogStore, OpenError};

/// What openraft is given, and when it is closed again.
pub(crate) struct Storage {
    /// The log.
    pub(crate) log: LogStore,
    /// The state machine, restored from the newest snapshot; openraft replays the log into it.
    pub(crate) replica: Replica,
    /// Resolves when the log's files are closed, which is after Raft was shut down and dropped.
    pub(crate) closed: LogClosed,
}

impl Storage {
    /// Creates the storage of an empty member that joins or founds a cluster, then makes `identity` durable. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be written, or holds another member's log.
    pub(crate) fn create(
        dir: &Arc<DataDir>,
        identity: &Identity,
        published: StatePublisher,
    ) -> Result<Self, OpenError> {
        let files = SnapshotFiles::open(dir, identity.owner(dir))?;
        // The log first: an identity without a log would later be taken for a member that lost it.
        let (log, closed) = store::create(dir, identity)?;
        identity.write(dir)?;
        Ok(Self { log, replica: Replica::new(files, None, published), closed })
    }

    /// Opens the storage of a member that has an identity. Blocks.
    ///
    /// # Errors
    /// When the system refuses, or something is damaged, of a newer format, or another member's.
    pub(crate) fn open(
        dir: &Arc<DataDir>,
        identity: &Identity,
        published: StatePublisher,
    ) -> Result<Self, OpenError> {
        let files = SnapshotFiles::open(dir, identity.owner(dir))?;
        let (log, closed) = store::open(dir, identity)?;
        let restored = files.newest(log.purged())?;
        Ok(Self { log, replica: Replica::new(files, restored, published), closed })
    }
}
