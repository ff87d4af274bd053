use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

use super::{Opened, content_of, entry, large_entry, log_id, vote};
use crate::store::{OpenError, record};
use crate::tests::copy_all;

/// A directory with entries 0 to 9 and a vote, closed.
async fn good() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    opened.append((0..10).map(|index| entry(1, index))).await.unwrap();
    opened.log.save_vote(&vote(3)).await.unwrap();
    opened.close().await;
    dir
}

/// Changes records behind the store's back.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Tree, &sled::Tree)) {
    let config = sled::Config::new().path(dir.join("store")).flush_every_ms(None);
    let start = Instant::now();
    // A process that another test is starting has the lock too, until it becomes another program.
    let db = loop {
        match config.open() {
            Ok(db) => break db,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    change(&db.open_tree("log").unwrap(), &db.open_tree("meta").unwrap());
    db.flush().unwrap();
}

fn flip(tree: &sled::Tree, key: impl AsRef<[u8]>, byte: usize) {
    let mut record = tree.get(&key).unwrap().unwrap().to_vec();
    record[byte] ^= 4;
    tree.insert(key, record).unwrap();
}

fn refused(dir: &Path) -> String {
    let error = Opened::open(dir).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    let text = error.to_string();
    for part in [
        "move ",
        "trestled join",
        "empty data directory",
        "trestle member remove east-1",
        "trestle member add HOST:PORT",
        "trestle member promote east-1",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    text
}

/// The key of a piece of an entry's record.
fn piece(index: u64, number: u16) -> Vec<u8> {
    [&index.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

/// The key of an entry's record that has one piece.
fn key(index: u64) -> Vec<u8> {
    piece(index, 0)
}

#[tokio::test]
async fn a_changed_record_is_refused_wherever_it_is() {
    for index in [0, 5, 9] {
        let dir = good().await;
        tamper(dir.path(), |log, _| flip(log, key(index), 20));
        let text = refused(dir.path());
        assert!(text.contains("store/db") && text.contains(&format!("log entry {index}")), "{text}");
    }
    for name in ["vote", "owner"] {
        let dir = good().await;
        tamper(dir.path(), |_, meta| flip(meta, name, 6));
        let text = refused(dir.path());
        assert!(text.contains("store/db") && text.contains(&format!("record \"{name}\"")), "{text}");
    }
}

#[tokio::test]
async fn a_torn_last_record_that_nobody_was_told_of_is_dropped() {
    let dir = good().await;
    let before = content_of(dir.path()).await;
    tamper(dir.path(), |log, _| {
        let whole = log.get(key(9)).unwrap().unwrap();
        log.insert(key(10), &whole[..whole.len() / 2]).unwrap();
    });
    assert_eq!(content_of(dir.path()).await, before);
    // And it stays away.
    tamper(dir.path(), |log, _| assert_eq!(log.get(key(10)).unwrap(), None));
    let mut opened = Opened::open(dir.path()).unwrap();
    opened.append([entry(4, 10)]).await.unwrap();
    opened.close().await;
    assert_eq!(content_of(dir.path()).await.1, Some(log_id(4, 10)));
}

#[tokio::test]
async fn a_record_that_lacks_a_piece_is_torn() {
    for missing in [0, 1, 24] {
        // Its last write was interrupted, and nobody was told of it: the mark is as before.
        let dir = good().await;
        let before = content_of(dir.path()).await;
        let synced = fs::read(dir.path().join("synced")).unwrap();
        let mut opened = Opened::open(dir.path()).unwrap();
        opened.append([large_entry(1, 10, 100_000)]).await.unwrap();
        opened.close().await;
        let after = fs::read(dir.path().join("synced")).unwrap();
        fs::write(dir.path().join("synced"), synced).unwrap();
        tamper(dir.path(), |log, _| assert!(log.remove(piece(10, missing)).unwrap().is_some()));
        assert_eq!(content_of(dir.path()).await, before, "{missing}");
        tamper(dir.path(), |log, _| assert_eq!(log.range(key(10)..).count(), 0));

        // It was durable.
        let mut opened = Opened::open(dir.path()).unwrap();
        opened.append([large_entry(1, 10, 100_000)]).await.unwrap();
        opened.close().await;
        assert_eq!(fs::read(dir.path().join("synced")).unwrap(), after);
        tamper(dir.path(), |log, _| assert!(log.remove(piece(10, missing)).unwrap().is_some()));
        assert!(refused(dir.path()).contains("in log entry 10, its checksum is"), "{missing}");
    }
}

#[tokio::test]
async fn what_only_a_newer_version_knows_asks_for_an_upgrade_and_stays() {
    use trestle_api::storage;
    let newer = |index: u64| storage::LogEntry {
        log_id: Some(crate::wire::log_id_message(&log_id(1, index))),
        payload: None,
    };
    // Also where a torn record would be dropped: this one is whole.
    for index in [9, 10] {
        let dir = good().await;
        let record = record::seal(&newer(index));
        tamper(dir.path(), |log, _| {
            log.insert(key(index), record.clone()).unwrap();
        });
        for _ in 0..2 {
            let error = Opened::open(dir.path()).map(|_| ()).unwrap_err();
            assert!(matches!(error, OpenError::Unknown { .. }) && error.is_damage(), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("upgrade this member") && text.contains(&format!("log entry {index}")),
                "{text}"
            );
            assert!(!text.contains("damaged"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_tail_that_was_durable_and_is_gone_is_noticed() {
    let dir = good().await;
    tamper(dir.path(), |log, _| assert!(log.remove(key(9)).unwrap().is_some()));
    let text = refused(dir.path());
    assert!(text.contains("ends at entry 8") && text.contains("up to 9"), "{text}");

    let dir = good().await;
    tamper(dir.path(), |log, _| log.clear().unwrap());
    assert!(refused(dir.path()).contains("it is empty"));
}

#[tokio::test]
async fn a_truncation_moves_the_mark_down() {
    let dir = good().await;
    let mut opened = Opened::open(dir.path()).unwrap();
    opened.log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    opened.close().await;
    assert_eq!(content_of(dir.path()).await.1, Some(log_id(1, 4)));
    tamper(dir.path(), |log, _| assert!(log.remove(key(4)).unwrap().is_some()));
    assert!(refused(dir.path()).contains("ends at entry 3"));
}

#[tokio::test]
async fn a_hole_is_refused() {
    let dir = good().await;
    tamper(dir.path(), |log, _| assert!(log.remove(key(4)).unwrap().is_some()));
    assert!(refused(dir.path()).contains("log entry 4 is missing, the next one is 5"));
}

#[tokio::test]
async fn an_entry_in_the_place_of_another_is_refused() {
    let dir = good().await;
    tamper(dir.path(), |log, _| {
        let three = log.get(key(3)).unwrap().unwrap();
        log.insert(key(4), three).unwrap();
    });
    assert!(refused(dir.path()).contains("says that it is entry 3"));
}

#[tokio::test]
async fn a_vote_that_went_back_is_refused() {
    let dir = good().await;
    tamper(dir.path(), |_, meta| assert!(meta.remove("vote").unwrap().is_some()));
    assert!(refused(dir.path()).contains("its vote is missing"));

    let dir = good().await;
    let old = record::seal(&crate::wire::vote_message(&vote(2)));
    tamper(dir.path(), |_, meta| {
        meta.insert("vote", old).unwrap();
    });
    assert!(refused(dir.path()).contains("its vote is"));
}

#[tokio::test]
async fn a_newer_record_is_not_called_damage() {
    let dir = good().await;
    tamper(dir.path(), |log, _| {
        let mut record = log.get(key(9)).unwrap().unwrap().to_vec();
        record[0] = 2;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&record[..1]);
        crc.update(&record[5..]);
        record[1..5].copy_from_slice(&crc.finalize().to_be_bytes());
        log.insert(key(9), record).unwrap();
    });
    let error = Opened::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn the_mark_itself_is_checked() {
    let dir = good().await;
    let synced = dir.path().join("synced");
    let mut bytes = fs::read(&synced).unwrap();
    bytes[30] ^= 1;
    fs::write(&synced, bytes).unwrap();
    assert!(refused(dir.path()).contains("synced is damaged"));
    fs::remove_file(&synced).unwrap();
    assert!(refused(dir.path()).contains("synced is damaged: it is missing"));
}

#[tokio::test]
async fn a_missing_log_is_not_taken_for_a_new_one() {
    let dir = good().await;
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let text = refused(dir.path());
    assert!(text.contains("store/db is damaged: it is missing"), "{text}");
}

#[tokio::test]
async fn a_half_written_file_of_an_interrupted_start_does_not_matter() {
    let dir = good().await;
    let before = content_of(dir.path()).await;
    let half = dir.path().join("store/snap.00000000000000FF.generating");
    fs::write(&half, b"half").unwrap();
    assert_eq!(content_of(dir.path()).await, before);
    assert!(!half.exists());
    assert!(dir.path().join("store/aside.snap.00000000000000FF.generating").exists());
}

/// Opens a copy with a changed `db` file: it must be refused, or nothing that counts was hit.
async fn refused_or_unharmed(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let before = content_of(dir).await;
    let other = tempfile::tempdir().unwrap();
    copy_all(dir, other.path());
    let db = other.path().join("store/db");
    let mut bytes = fs::read(&db).unwrap();
    change(&mut bytes);
    fs::write(&db, bytes).unwrap();
    match Opened::open(other.path()) {
        Err(error) => {
            assert!(error.to_string().contains(other.path().to_str().unwrap()), "{error}");
            true
        }
        Ok(mut opened) => {
            let after = opened.content().await;
            opened.close().await;
            assert_eq!(after, before);
            false
        }
    }
}

#[tokio::test]
async fn a_cut_database_file_is_refused_or_unharmed() {
    let dir = good().await;
    let bytes = fs::read(dir.path().join("store/db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refusals = 0;
    for part in 0..12 {
        let length = used * part / 12;
        refusals += usize::from(refused_or_unharmed(dir.path(), |bytes| bytes.truncate(length)).await);
    }
    assert!(refusals >= 6, "{refusals} of 12 cuts were noticed");
}

#[tokio::test]
async fn a_changed_bit_in_the_database_file_is_refused_or_harmless() {
    let dir = good().await;
    let bytes = fs::read(dir.path().join("store/db")).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut refusals = 0;
    for at in used.iter().step_by(used.len() / 60 + 1) {
        refusals += usize::from(refused_or_unharmed(dir.path(), |bytes| bytes[*at] ^= 1).await);
    }
    assert!(refusals > 0, "no changed bit was noticed");
}
