use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use openraft::errors::RaftError;
use openraft::storage::RaftLogStorage;
use openraft::{Config, Raft};
use tokio::sync::watch;
use trestle_model::{Command, PoolName, Proposal};

use super::suite::DiscardState;
use super::{Opened, content_of, entry, identity, log_id, vote};
use crate::data_dir::DataDir;
use crate::raft_types::{LogCommand, PeerNode};
use crate::replica::tests::NoPeers;
use crate::replica::{Replica, StatePublisher};
use crate::snapshot::SnapshotFiles;
use crate::store::disk::{DiskOp, DiskReader, DiskTable, LogDisk};
use crate::store::log_store::start;
use crate::store::memory::MemoryLog;
use crate::store::sled_disk::SledDisk;
use crate::store::synced_index::SyncedIndexFile;

/// sled, until the disk breaks.
struct Breaking {
    disk: SledDisk,
    broken: Arc<AtomicBool>,
    touched: Arc<AtomicUsize>,
}

impl LogDisk for Breaking {
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()> {
        self.touched.fetch_add(1, Ordering::SeqCst);
        self.disk.apply(ops)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.disk.sync()
    }

    fn scan(
        &self,
        table: DiskTable,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.disk.scan(table, each)
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        self.disk.reader()
    }
}

/// A log on a disk that works until `broken` is set; `touched` counts the writes.
struct Fragile {
    opened: Opened,
    broken: Arc<AtomicBool>,
    touched: Arc<AtomicUsize>,
}

async fn fragile(dir: &Path) -> Fragile {
    Opened::create(dir).close().await;
    let data = Arc::new(DataDir::open(dir).unwrap());
    let owner = identity().owner(&data);
    let disk = SledDisk::open(&data.join("store"), &owner).unwrap();
    let (broken, touched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let disk = Breaking { disk, broken: broken.clone(), touched: touched.clone() };
    let synced = SyncedIndexFile::open(&data, &owner).unwrap();
    let (log, closed) = start(&data, disk, synced, MemoryLog::default()).unwrap();
    Fragile { opened: Opened { log, closed }, broken, touched }
}

#[tokio::test]
async fn a_broken_disk_stops_raft() {
    let dir = tempfile::tempdir().unwrap();
    let Fragile { opened, broken, .. } = fragile(dir.path()).await;
    let snapshots = tempfile::tempdir().unwrap();
    let data = DataDir::open(snapshots.path()).unwrap();
    let files = SnapshotFiles::open(&data, identity().owner(&data)).unwrap();
    let published = StatePublisher {
        view: watch::channel(Arc::default()).0,
        history: Box::new(DiscardState),
        requests: Arc::default(),
    };
    let replica = Replica::new(files, None, published);
    let config = Arc::new(Config::default().validate().unwrap());
    let raft = Raft::new(7, config, NoPeers, opened.log, replica).await.unwrap();
    raft.initialize(BTreeMap::from([(7, PeerNode::default())])).await.unwrap();
    let deadline = Some(Duration::from_secs(10));
    raft.wait(deadline).current_leader(7, "it leads").await.unwrap();
    let proposal = || {
        let name = PoolName::parse("web").unwrap();
        LogCommand::from(Proposal { origin: None, request: None, command: Command::delete(name) })
    };
    raft.client_write(proposal()).await.unwrap();

    broken.store(true, Ordering::SeqCst);
    let error = raft.client_write(proposal()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, RaftError::Fatal(_)), "{error}");
    assert!(error.to_string().contains("the log cannot be written"), "{error}");
    // And it stays stopped, also for elections.
    let error = raft.trigger().elect(false).await.unwrap_err();
    assert!(error.to_string().contains("the log cannot be written"), "{error}");
    drop(raft);
    opened.closed.wait().await;
}

#[tokio::test]
async fn after_one_failed_sync_nothing_is_acknowledged_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let Fragile { mut opened, broken, touched } = fragile(dir.path()).await;
    opened.append([entry(1, 0)]).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let error = opened.append([entry(1, 1)]).await.unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    broken.store(false, Ordering::SeqCst);
    let before = touched.load(Ordering::SeqCst);
    opened.log.save_vote(&vote(9)).await.unwrap_err();
    opened.append([entry(1, 2)]).await.unwrap_err();
    assert_eq!(touched.load(Ordering::SeqCst), before);
    opened.close().await;

    let (_, last, vote, _) = content_of(dir.path()).await;
    assert!(last.is_some_and(|last| last.index <= 1), "{last:?}");
    assert_eq!(vote, None);
}

#[tokio::test]
async fn a_truncation_that_was_interrupted_leaves_a_log_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let Fragile { mut opened, broken, .. } = fragile(dir.path()).await;
    opened.append((0..10).map(|index| entry(1, index))).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    opened.log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    // What sled has not synced it still writes when it is closed.
    opened.close().await;
    let (_, last, _, _) = content_of(dir.path()).await;
    assert_eq!(last, Some(log_id(1, 4)));
}
