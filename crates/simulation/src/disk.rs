//! A disk that has what was synced, and what else it likes of the rest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use trestle_consensus::simulation::{DiskOp, DiskReader, DiskTable, KeyedRecord, LogDisk, MarkFile};

use crate::draws::Draws;

type Tables = BTreeMap<(bool, Vec<u8>), Vec<u8>>;

/// What lies on a disk. It outlives the process, and a copy of it can be put back.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskContent {
    pub(crate) exists: bool,
    durable: Tables,
    /// Applied and not synced, in order.
    unsynced: VecDeque<DiskOp>,
    /// What a process that reads it now finds.
    current: Tables,
    durable_mark: Option<Vec<u8>>,
    mark: Option<Vec<u8>>,
    /// Syncs from now on that fail; a process that had one must end.
    pub(crate) fails: bool,
    /// A disk that lies: a sync does nothing.
    pub(crate) lies: bool,
    /// How long a sync takes: milliseconds from and to.
    pub(crate) sync_ms: (u64, u64),
    pub(crate) syncs: u64,
}

/// A member's disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<DiskContent>>);

fn key(op: &DiskOp) -> (bool, Vec<u8>) {
    match op {
        DiskOp::Put { table, key, .. } | DiskOp::Remove { table, key } => {
            (*table == DiskTable::Meta, key.clone())
        }
    }
}

fn apply(tables: &mut Tables, op: &DiskOp) {
    match op {
        DiskOp::Put { record, .. } => drop(tables.insert(key(op), record.clone())),
        DiskOp::Remove { .. } => drop(tables.remove(&key(op))),
    }
}

impl DiskContent {
    /// The machine loses power: of what was not synced any beginning is left, and the next record may be torn.
    pub(crate) fn lose_power(&mut self, draws: &mut Draws) {
        let kept = draws.below(self.unsynced.len() + 1);
        for op in self.unsynced.drain(..kept) {
            apply(&mut self.durable, &op);
        }
        let next = self.unsynced.pop_front();
        if let Some(DiskOp::Put { table: DiskTable::Log, key, record }) = next
            && draws.chance(300)
            && self.durable.range((false, key.clone())..(true, Vec::new())).next().is_none()
        {
            let torn = record[..draws.below(record.len())].to_vec();
            self.durable.insert((false, key), torn);
        }
        self.unsynced.clear();
        self.current = self.durable.clone();
        if draws.chance(500) {
            self.durable_mark = self.mark.clone();
        }
        self.mark = self.durable_mark.clone();
    }
}

impl SimulatedDisk {
    pub(crate) fn content(&self) -> MutexGuard<'_, DiskContent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read_mark(&self) -> io::Result<Vec<u8>> {
        self.content().mark.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn has_mark(&self) -> bool {
        self.content().mark.is_some()
    }
}

impl LogDisk for SimulatedDisk {
    fn apply(&mut self, ops: Vec<DiskOp>) -> io::Result<()> {
        let content = &mut *self.content();
        for op in ops {
            apply(&mut content.current, &op);
            content.unsynced.push_back(op);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let content = &mut *self.content();
        content.syncs += 1;
        if content.fails {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if !content.lies {
            for op in content.unsynced.drain(..) {
                apply(&mut content.durable, &op);
            }
        }
        Ok(())
    }

    fn scan(
        &self,
        table: DiskTable,
        each: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let current = self.content().current.clone();
        for ((_, key), record) in
            current.into_iter().filter(|((meta, _), _)| *meta == (table == DiskTable::Meta))
        {
            if each(key, record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        Arc::new(Reader(Arc::downgrade(&self.0)))
    }
}

/// Reads without keeping the disk.
struct Reader(Weak<Mutex<DiskContent>>);

impl DiskReader for Reader {
    fn read(&self, first: &[u8], last: &[u8]) -> io::Result<Vec<KeyedRecord>> {
        let disk = self.0.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
        let content = disk.lock().unwrap_or_else(PoisonError::into_inner);
        let records = content.current.range((false, first.to_vec())..=(false, last.to_vec()));
        Ok(records.map(|((_, key), record)| (key.clone(), record.clone())).collect())
    }
}

impl MarkFile for SimulatedDisk {
    fn write(&self, mark: &[u8]) -> io::Result<()> {
        self.content().mark = Some(mark.to_vec());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let content = &mut *self.content();
        if content.fails {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if !content.lies {
            content.durable_mark = content.mark.clone();
        }
        Ok(())
    }
}
