use std::ops::ControlFlow;
use std::path::Path;

use crate::store::StorageOwner;
use crate::store::disk::{DiskOp, DiskTable, KeyedRecord, LogDisk};
use crate::store::layout::entry_key;
use crate::store::sled_disk::SledDisk;

fn put(index: u64, bytes: usize) -> DiskOp {
    let record = vec![u8::try_from(index).unwrap(); bytes];
    DiskOp::Put { table: DiskTable::Log, key: entry_key(index), record }
}

fn remove(index: u64) -> DiskOp {
    DiskOp::Remove { table: DiskTable::Log, key: entry_key(index) }
}

fn open(dir: &Path) -> SledDisk {
    SledDisk::open(dir, &StorageOwner { dir: dir.to_owned(), member: "east-1".to_owned() }).unwrap()
}

/// The records, each as its index and its bytes.
fn records(disk: &SledDisk) -> Vec<(u64, usize)> {
    let known = |(key, record): KeyedRecord| {
        let index = u64::from_be_bytes(key.try_into().unwrap());
        assert!(record.iter().all(|byte| u64::from(*byte) == index), "{index}");
        (index, record.len())
    };
    let mut scanned = Vec::new();
    let mut each = |key, record| {
        scanned.push(known((key, record)));
        ControlFlow::Continue(())
    };
    disk.scan(DiskTable::Log, &mut each).unwrap();
    let read = disk.reader().read(&entry_key(0), &entry_key(u64::MAX)).unwrap();
    assert_eq!(read.into_iter().map(known).collect::<Vec<_>>(), scanned);
    scanned
}

#[test]
fn changes_of_a_record_that_come_together_are_made_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    disk.apply(vec![put(4, 10_000), put(5, 100_000), remove(5), put(5, 5000), put(6, 4096)]).unwrap();
    assert_eq!(records(&disk), [(4, 10_000), (5, 5000), (6, 4096)]);
    disk.apply(vec![remove(5), put(5, 10)]).unwrap();
    assert_eq!(records(&disk), [(4, 10_000), (5, 10), (6, 4096)]);
    disk.apply(vec![put(7, 50_000), remove(7), remove(4)]).unwrap();
    assert_eq!(records(&disk), [(5, 10), (6, 4096)]);
    disk.sync().unwrap();
    drop(disk);
    assert_eq!(records(&open(dir.path())), [(5, 10), (6, 4096)]);
}
