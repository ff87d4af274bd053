//! sled as the disk of the log.
//!
//! What sled 0.34 leaves to its user, found by reading it and by tracing its system calls: `flush` writes and calls
//! `sync_file_range`, which flushes neither the drive's cache nor the file's metadata, so the file is synced here on a
//! handle of our own; records above a quarter of a segment go to files that are never synced, so records are kept
//! small; a start that was interrupted can leave a `snap.*.generating` file that makes the next one fail; the cache
//! takes up to 1 GiB unless told otherwise; and some kinds of damage end in a panic instead of an error.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::{DiskOp, DiskTable, KeyedRecord, LogDisk};
use super::error::{OpenError, StorageOwner};
use crate::data_dir::sync_directory;

/// Records are read from memory; sled's cache only serves its own upkeep.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// sled gives its lock back from a thread of its own, a little after it is dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A sled database with a second handle on its file.
pub(crate) struct SledDisk {
    log: sled::Tree,
    meta: sled::Tree,
    db: sled::Db,
    file: File,
}

/// The file in which sled keeps everything, in the directory `store`.
pub(crate) fn db_file(store: &Path) -> PathBuf {
    store.join("db")
}

/// Runs sled and takes a panic for the damage that it is.
fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
    let text = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) => Err(e),
        Ok(Err(e)) => Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string())),
        Err(panic) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("sled gave up: {}", text(panic))))
        }
    }
}

/// Moves aside what an interrupted start left behind; sled takes it for damage.
fn set_half_written_aside(store: &Path) -> Result<(), OpenError> {
    let entries = fs::read_dir(store).map_err(OpenError::io("read", store))?;
    for entry in entries {
        let path = entry.map_err(OpenError::io("read", store))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let aside = path.with_file_name(format!("aside.{name}"));
            tracing::warn!(file = %path.display(), "setting aside a file that an interrupted start left half written");
            fs::rename(&path, aside).map_err(OpenError::io("rename", path))?;
        }
    }
    Ok(())
}

fn open_sled(store: &Path) -> io::Result<sled::Db> {
    let config = sled::Config::new().path(store).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match guarded(|| config.open()) {
            Err(e) if e.to_string().contains("could not acquire lock") && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

impl SledDisk {
    /// Opens or creates the database in the directory `store`.
    pub(crate) fn open(store: &Path, owner: &StorageOwner) -> Result<Self, OpenError> {
        fs::create_dir_all(store).map_err(OpenError::io("create", store))?;
        set_half_written_aside(store)?;
        let path = db_file(store);
        let failed = |e: io::Error| match e.kind() {
            // sled also reports damage as one of these two kinds.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => owner.damaged(&path, e.to_string()),
            _ => OpenError::io("open", &path)(e),
        };
        let db = open_sled(store).map_err(failed)?;
        let log = guarded(|| db.open_tree("log")).map_err(failed)?;
        let meta = guarded(|| db.open_tree("meta")).map_err(failed)?;
        let file = File::options().write(true).open(&path).map_err(OpenError::io("open", &path))?;
        // The names of new files must be durable too before anything in them counts.
        sync_directory(store).map_err(OpenError::io("sync", store))?;
        Ok(Self { log, meta, db, file })
    }

    fn tree(&self, table: DiskTable) -> &sled::Tree {
        match table {
            DiskTable::Log => &self.log,
            DiskTable::Meta => &self.meta,
        }
    }
}

impl LogDisk for SledDisk {
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()> {
        // A batch is atomic for one tree; batches in order keep the order between the trees.
        let mut ops = ops.into_iter().peekable();
        while let Some(table) = ops.peek().map(DiskOp::table) {
            let mut batch = sled::Batch::default();
            while let Some(op) = ops.next_if(|op| op.table() == table) {
                match op {
                    DiskOp::Put { key, record, .. } => batch.insert(key, record),
                    DiskOp::Remove { key, .. } => batch.remove(key),
                }
            }
            guarded(|| self.tree(table).apply_batch(batch))?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        guarded(|| self.db.flush())?;
        self.file.sync_data()
    }

    fn load(&self, table: DiskTable) -> io::Result<Vec<KeyedRecord>> {
        let tree = self.tree(table);
        guarded(|| {
            tree.iter().map(|pair| pair.map(|(key, record)| (key.to_vec(), record.to_vec()))).collect()
        })
    }
}
