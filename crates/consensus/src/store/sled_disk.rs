//! sled as the disk of the log.
//!
//! What sled 0.34 leaves to its user, found by reading it and by tracing its system calls: `flush` writes and calls
//! `sync_file_range`, which flushes neither the drive's cache nor the file's metadata, so the file is synced here on a
//! handle of our own; pages above a quarter of a segment go to files that are never synced, so log records are written in
//! pieces; a start that was interrupted can leave a `snap.*.generating` file that makes the next one fail; the cache
//! takes up to 1 GiB unless told otherwise; and some kinds of damage end in a panic instead of an error.
//!
//! The pieces of a record have its key with a number after it. They are written in one batch, which sled recovers as a
//! whole or not at all, and the record's checksum is over all of them.

use std::any::Any;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::{ControlFlow, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sled::IVec;

use super::disk::{DiskOp, DiskReader, DiskTable, KeyedRecord, LogDisk};
use super::error::{OpenError, StorageOwner};
use crate::data_dir::sync_directory;

/// Records are read from memory, or once and in order; sled's cache only serves its own upkeep.
const CACHE_BYTES: u64 = 2 << 20;
/// sled gives its lock back from a thread of its own, a little after it is dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a piece. sled gathers up to 17 values in a page, and a page of more than 128 KiB goes to a file of its own, which
/// sled never syncs.
const PIECE_MAX: usize = 4096;
/// Bytes after which the next record begins another batch: sled holds a batch in memory until it is written.
const BATCH_MAX: usize = 1 << 20;
/// Changes after which the next record begins another batch. sled frees nothing of what a batch replaces before it has ended: the
/// removal of 10 000 entries at once, as after each snapshot, held some 30 MB for copies of its pages.
const BATCH_OPS_MAX: usize = 64;

/// A sled database.
struct Trees {
    log: sled::Tree,
    meta: sled::Tree,
    db: sled::Db,
}

/// A sled database with a second handle on its file.
pub(crate) struct SledDisk {
    trees: Arc<Trees>,
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

/// Waits until nobody has sled's lock on its file, or the patience is over. The data directory is this process's own, so
/// it can only be a database of this process that is being closed.
fn wait_for_lock(db: &Path) -> io::Result<()> {
    let file = match File::open(db) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock(),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

fn open_sled(store: &Path) -> io::Result<sled::Db> {
    wait_for_lock(&db_file(store))?;
    let config = sled::Config::new().path(store).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    guarded(|| config.open())
}

/// Frees pages that were replaced. sled leaves that to crossbeam-epoch, which does it too seldom for the one thread that writes.
fn free_replaced() {
    crossbeam_epoch::pin().flush();
}

fn piece_key(record: &[u8], number: usize) -> io::Result<Vec<u8>> {
    let number = u16::try_from(number)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a record of more than 256 MiB"))?;
    Ok([record, &number.to_be_bytes()].concat())
}

/// The key of the record to which a piece belongs.
fn record_key(piece: &[u8]) -> &[u8] {
    &piece[..piece.len().saturating_sub(2)]
}

/// The keys of all pieces of the records with keys from `first` to `last`.
fn pieces(first: &[u8], last: &[u8]) -> RangeInclusive<Vec<u8>> {
    [first, &[0; 2]].concat()..=[last, &[u8::MAX; 2]].concat()
}

/// Puts records together from their pieces, which come in the order of their keys. One that lacks a piece is told by its
/// checksum.
fn put_together(
    pieces: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
    each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> ControlFlow<()>,
) -> sled::Result<()> {
    let mut current: Option<KeyedRecord> = None;
    for piece in pieces {
        let (key, piece) = piece?;
        let key = record_key(&key);
        match &mut current {
            Some((open, record)) if open == key => record.extend_from_slice(&piece),
            _ => {
                if let Some((key, record)) = current.replace((key.to_vec(), piece.to_vec()))
                    && each(key, record).is_break()
                {
                    return Ok(());
                }
            }
        }
    }
    if let Some((key, record)) = current {
        let _: ControlFlow<()> = each(key, record);
    }
    Ok(())
}

/// Changes that go to sled together.
#[derive(Default)]
struct Pending {
    batch: sled::Batch,
    table: Option<DiskTable>,
    ops: usize,
    bytes: usize,
    writes: bool,
}

impl Pending {
    /// Whether a change can join the others. What is removed is looked up, so it must not be among what is still to be written.
    fn takes(&self, op: &DiskOp) -> bool {
        let removes = matches!(op, DiskOp::Remove { .. });
        self.table.is_none_or(|table| table == op.table())
            && self.ops < BATCH_OPS_MAX
            && self.bytes < BATCH_MAX
            && !(removes && self.writes)
    }
}

impl Trees {
    fn tree(&self, table: DiskTable) -> &sled::Tree {
        match table {
            DiskTable::Log => &self.log,
            DiskTable::Meta => &self.meta,
        }
    }

    /// Adds a change to those that are pending.
    fn add(&self, op: DiskOp, pending: &mut Pending) -> io::Result<()> {
        pending.table = Some(op.table());
        pending.ops += 1;
        match op {
            DiskOp::Put { table: DiskTable::Log, key, record } => {
                for (number, piece) in record.chunks(PIECE_MAX).enumerate() {
                    pending.batch.insert(piece_key(&key, number)?, piece);
                }
                pending.bytes += record.len();
                pending.writes = true;
            }
            DiskOp::Put { table: DiskTable::Meta, key, record } => pending.batch.insert(key, record),
            DiskOp::Remove { table: DiskTable::Log, key } => guarded(|| {
                for piece in self.log.range(pieces(&key, &key)).keys() {
                    pending.batch.remove(piece?);
                }
                Ok(())
            })?,
            DiskOp::Remove { table: DiskTable::Meta, key } => pending.batch.remove(key),
        }
        Ok(())
    }

    fn write(&self, pending: Pending) -> io::Result<()> {
        let Some(table) = pending.table else { return Ok(()) };
        guarded(|| self.tree(table).apply_batch(pending.batch))?;
        if pending.ops >= BATCH_OPS_MAX {
            free_replaced();
        }
        Ok(())
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
        Ok(Self { trees: Arc::new(Trees { log, meta, db }), file })
    }
}

impl LogDisk for SledDisk {
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()> {
        // A batch is atomic; batches in order keep the order between the tables.
        let mut pending = Pending::default();
        for op in ops {
            if !pending.takes(&op) {
                self.trees.write(std::mem::take(&mut pending))?;
            }
            self.trees.add(op, &mut pending)?;
        }
        self.trees.write(pending)
    }

    fn sync(&mut self) -> io::Result<()> {
        guarded(|| self.trees.db.flush())?;
        free_replaced();
        self.file.sync_data()
    }

    fn scan(
        &self,
        table: DiskTable,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        match table {
            DiskTable::Log => guarded(|| put_together(self.trees.log.iter(), each)),
            DiskTable::Meta => guarded(|| {
                for record in self.trees.meta.iter() {
                    let (key, record) = record?;
                    if each(key.to_vec(), record.to_vec()).is_break() {
                        break;
                    }
                }
                Ok(())
            }),
        }
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        Arc::new(SledReader(Arc::downgrade(&self.trees)))
    }
}

/// Reads while the writer writes. Only a weak pointer: the files are closed when the writer has ended.
struct SledReader(Weak<Trees>);

impl DiskReader for SledReader {
    fn read(&self, first: &[u8], last: &[u8]) -> io::Result<Vec<KeyedRecord>> {
        let trees =
            self.0.upgrade().ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed"))?;
        let mut records = Vec::new();
        guarded(|| {
            put_together(trees.log.range(pieces(first, last)), &mut |key, record| {
                records.push((key, record));
                ControlFlow::Continue(())
            })
        })?;
        Ok(records)
    }
}
