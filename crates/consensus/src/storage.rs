//! Opening everything durable that Raft runs on: log, snapshots, state machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;
use trestle_model::TransportSecurity;

use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::replica::{Replica, StatePublisher};
use crate::snapshot::SnapshotFiles;
use crate::store::{self, LogClosed, LogStore, OpenError, SyncedIndex};

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
    /// When the system refuses, or something is damaged, of a newer format, of a feature level that this program does not know,
    /// or another member's.
    pub(crate) fn open(
        dir: &Arc<DataDir>,
        identity: &Identity,
        published: StatePublisher,
        feature_level_max: u32,
    ) -> Result<Self, OpenError> {
        let files = SnapshotFiles::open(dir, identity.owner(dir))?;
        let (log, closed) = store::open(dir, identity)?;
        let restored = files.newest(log.purged())?;
        let stored = restored.as_ref().map_or(0, |restored| restored.machine.state.feature_level);
        let in_log = log.highest_level();
        let (index, level) = in_log.filter(|(_, level)| *level > stored).unwrap_or((0, stored));
        if level > feature_level_max {
            let place =
                if index > 0 { format!("log entry {index}: ") } else { "the newest snapshot: ".to_owned() };
            let what =
                format!("{place}feature level {level}, and this version knows up to {feature_level_max}");
            return Err(OpenError::Unknown { file: dir.path().to_owned(), what });
        }
        Ok(Self { log, replica: Replica::new(files, restored, published), closed })
    }
}

/// The disk's side of Raft: kept here until Raft takes it, and closed from here after Raft has ended.
#[derive(Default)]
pub(crate) struct StorageSlot {
    unused: Mutex<Option<Storage>>,
    closed: Mutex<Option<LogClosed>>,
    max_synced: RwLock<Option<watch::Receiver<SyncedIndex>>>,
}

impl StorageSlot {
    fn unused(&self) -> MutexGuard<'_, Option<Storage>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> MutexGuard<'_, Option<LogClosed>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the storage until Raft takes it.
    pub(crate) fn put(&self, storage: Storage) {
        *self.max_synced.write().unwrap_or_else(PoisonError::into_inner) = Some(storage.log.max_synced());
        *self.unused() = Some(storage);
    }

    /// What Raft runs on; `None` when it has it already, or there is none.
    pub(crate) fn take(&self) -> Option<(LogStore, Replica)> {
        let Storage { log, replica, closed } = self.unused().take()?;
        *self.closed() = Some(closed);
        Some((log, replica))
    }

    /// What tells that the files are closed, once Raft has ended. Storage that Raft has not taken is dropped.
    pub(crate) fn close(&self) -> Option<LogClosed> {
        let unused = self.unused().take().map(|Storage { closed, .. }| closed);
        unused.or_else(|| self.closed().take())
    }

    /// The members with their peer addresses by the newest membership in the log, before Raft has the log.
    pub(crate) fn members(&self) -> Option<BTreeMap<u64, String>> {
        let membership = self.unused().as_ref()?.log.membership()?;
        Some(membership.nodes().map(|(id, node)| (*id, node.peer_address.clone())).collect())
    }

    /// What ports accept by the newest entry that says so, before Raft has the log; `None` when no entry does.
    pub(crate) fn transport(&self) -> Option<TransportSecurity> {
        self.unused().as_ref()?.log.transport()
    }

    /// The most that was ever durable here in this process; `None` while the member is empty.
    pub(crate) fn max_synced(&self) -> Option<watch::Receiver<SyncedIndex>> {
        self.max_synced.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same now; the default while the member is empty.
    pub(crate) fn synced(&self) -> SyncedIndex {
        self.max_synced().map(|synced| *synced.borrow()).unwrap_or_default()
    }
}
