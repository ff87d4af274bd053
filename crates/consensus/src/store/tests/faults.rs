use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use openraft::storage::RaftLogStorage;

use super::{Opened, content_of, entry, identity, vote};
use crate::data_dir::DataDir;
use crate::store::disk::{LogDisk, Op, Table};
use crate::store::log_store::start;
use crate::store::mark::MarkFile;
use crate::store::memory::MemoryLog;
use crate::store::sled_disk::SledDisk;

/// sled, until the disk breaks.
struct Breaking {
    disk: SledDisk,
    broken: Arc<AtomicBool>,
    touched: Arc<AtomicUsize>,
}

impl LogDisk for Breaking {
    fn apply(&mut self, ops: Vec<Op>) -> io::Result<()> {
        self.touched.fetch_add(1, Ordering::SeqCst);
        self.disk.apply(ops)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.disk.sync()
    }

    fn load(&self, table: Table) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.disk.load(table)
    }
}

#[tokio::test]
async fn after_one_failed_sync_nothing_is_acknowledged_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    Opened::create(dir.path()).close().await;
    let data = Arc::new(DataDir::open(dir.path()).unwrap());
    let owner = identity().owner(&data);
    let disk = SledDisk::open(&data.join("store"), &owner).unwrap();
    let (broken, touched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let disk = Breaking { disk, broken: broken.clone(), touched: touched.clone() };
    let mark = MarkFile::open(dir.path(), &owner).unwrap();
    let (log, closed) = start(&data, disk, mark, MemoryLog::default()).unwrap();
    let mut opened = Opened { log, closed };

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
    drop(data);

    let (_, last, vote, _) = content_of(dir.path()).await;
    assert!(last.is_some_and(|last| last.index <= 1), "{last:?}");
    assert_eq!(vote, None);
}
