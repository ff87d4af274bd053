#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use trestle_api::stored::machine_digest;
use trestle_model::{Command, Machine, PoolName, PoolSpec, Proposal, Request, RequestId};

use super::SnapshotFiles;
use super::payload::encode;
use crate::data_dir::DataDir;
use crate::raft_types::{LeaderId, LogId, Membership, PeerNode, SnapshotMeta, StoredMembership};
use crate::store::{OpenError, StorageOwner};

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn meta(term: u64, index: u64) -> SnapshotMeta {
    let nodes =
        std::collections::BTreeMap::from([(1, PeerNode { peer_address: "10.0.0.1:7481".to_owned() })]);
    let membership = Membership::new(vec![[1].into()], nodes).unwrap();
    SnapshotMeta {
        last_log_id: Some(log_id(term, index)),
        last_membership: StoredMembership::new(Some(log_id(1, 0)), membership),
    }
}

/// A machine after `index` entries.
fn machine(index: u64) -> Machine {
    let mut machine = Machine::default();
    for index in 1..=index {
        let name = PoolName::parse(&format!("pool-{index}")).unwrap();
        let request = Request { id: RequestId::parse(&format!("r{index}")).unwrap(), fingerprint: index };
        let command = Command::create((name, PoolSpec::default()));
        machine.apply(index, &Proposal { origin: None, request: Some(request), command }).unwrap();
    }
    machine
}

fn files() -> (TempDir, SnapshotFiles) {
    let dir = tempfile::tempdir().unwrap();
    let owner = StorageOwner { dir: dir.path().to_owned(), member: "east-1".to_owned() };
    let files = SnapshotFiles::open(&DataDir::open(dir.path()).unwrap(), owner).unwrap();
    (dir, files)
}

fn save(files: &SnapshotFiles, term: u64, index: u64) {
    let meta = meta(term, index);
    files.save(&meta, &encode(&meta, &machine(index))).unwrap();
}

#[test]
fn the_newest_snapshot_is_restored_and_two_are_kept() {
    let (dir, files) = files();
    assert!(files.newest(None).unwrap().is_none());
    for (term, index) in [(1, 9), (1, 10), (2, 100)] {
        save(&files, term, index);
    }
    let restored = files.newest(Some(log_id(2, 99))).unwrap().unwrap();
    assert_eq!(
        (restored.meta, machine_digest(&restored.machine)),
        (meta(2, 100), machine_digest(&machine(100)))
    );
    let mut names: Vec<_> =
        fs::read_dir(dir.path().join("snapshots")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1-10.snap", "2-100.snap"]);
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let (dir, files) = files();
    save(&files, 1, 2);
    let path = dir.path().join("snapshots/1-2.snap");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        for bytes in [&bytes[..], &good[..at]] {
            fs::write(&path, bytes).unwrap();
            let error = files.load(&log_id(1, 2)).unwrap_err().to_string();
            assert!(error.contains("1-2.snap is damaged"), "{at}: {error}");
        }
    }
}

#[test]
fn a_damaged_snapshot_is_passed_over_only_while_the_log_reaches_back() {
    let (dir, files) = files();
    save(&files, 1, 10);
    save(&files, 1, 20);
    let path = dir.path().join("snapshots/1-20.snap");
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, bytes).unwrap();

    let restored = files.newest(Some(log_id(1, 10))).unwrap().unwrap();
    assert_eq!(restored.meta, meta(1, 10));
    let error = files.newest(Some(log_id(1, 11))).unwrap_err().to_string();
    assert!(
        error.contains("1-20.snap is damaged") && error.contains("trestle member remove east-1"),
        "{error}"
    );

    fs::remove_file(&path).unwrap();
    let error = files.newest(Some(log_id(1, 11))).unwrap_err().to_string();
    assert!(error.contains("no snapshot reaches entry 11"), "{error}");
    fs::write(dir.path().join("snapshots/1-10.snap"), b"").unwrap();
    assert!(files.newest(None).unwrap().is_none());
}

#[test]
fn a_newer_format_is_not_passed_over() {
    let (dir, files) = files();
    save(&files, 1, 10);
    save(&files, 1, 20);
    let path = dir.path().join("snapshots/1-20.snap");
    let mut bytes = fs::read(&path).unwrap();
    bytes[11] = 2;
    let sum = Sha256::new().chain_update(&bytes[..20]).chain_update(&bytes[52..]).finalize();
    bytes[20..52].copy_from_slice(&sum);
    fs::write(&path, bytes).unwrap();
    let error = files.newest(None).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn what_an_interrupted_write_left_behind_is_no_snapshot() {
    let (dir, files) = files();
    save(&files, 1, 10);
    fs::write(dir.path().join("snapshots/1-20.snap.tmp"), b"half").unwrap();
    assert_eq!(files.newest(Some(log_id(1, 5))).unwrap().unwrap().meta, meta(1, 10));
}
