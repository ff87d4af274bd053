use std::fs;

use futures_util::TryStreamExt as _;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::{Opened, content_of, entry, identity, large_entry, log_id, vote};
use crate::raft_types::{LogEntry, Membership, Payload, PeerNode};
use crate::store::{OpenError, PROPOSAL_MAX, open};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    let members = [(7, PeerNode { peer_address: "10.0.0.7:7481".to_owned() })];
    let nodes: std::collections::BTreeMap<_, _> = members.into_iter().collect();
    let membership = Membership::new(vec![[7].into()], nodes).unwrap();
    let first = LogEntry { log_id: log_id(1, 0), payload: Payload::Membership(membership) };
    let blank = LogEntry { log_id: log_id(1, 1), payload: Payload::Blank };
    opened.append([first, blank, entry(1, 2), entry(1, 3)]).await.unwrap();
    opened.log.save_vote(&vote(4)).await.unwrap();
    opened.log.save_committed(Some(log_id(1, 2))).await.unwrap();
    let before = opened.content().await;
    assert_eq!(before.3.len(), 4);
    opened.close().await;
    assert_eq!(content_of(dir.path()).await, before);
    let mut again = Opened::open(dir.path()).unwrap();
    assert_eq!(again.log.read_committed().await.unwrap(), Some(log_id(1, 2)));
    again.close().await;
}

#[tokio::test]
async fn truncated_and_purged_entries_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    opened.append((0..20).map(|index| entry(1, index))).await.unwrap();
    opened.log.truncate_after(Some(log_id(1, 11))).await.unwrap();
    opened.append((12..15).map(|index| entry(2, index))).await.unwrap();
    opened.log.purge(log_id(1, 4)).await.unwrap();
    let before = opened.content().await;
    assert_eq!((before.0, before.1), (Some(log_id(1, 4)), Some(log_id(2, 14))));
    assert_eq!(
        before.3.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(),
        (5..15).collect::<Vec<_>>()
    );
    opened.close().await;
    assert_eq!(content_of(dir.path()).await, before);

    // As after a snapshot that is ahead of the log.
    let mut opened = Opened::open(dir.path()).unwrap();
    opened.log.purge(log_id(3, 100)).await.unwrap();
    opened.append([entry(3, 101)]).await.unwrap();
    opened.log.truncate_after(Some(log_id(3, 100))).await.unwrap();
    opened.close().await;
    let (purged, last, _, entries) = content_of(dir.path()).await;
    assert_eq!((purged, last, entries), (Some(log_id(3, 100)), Some(log_id(3, 100)), vec![]));
}

#[tokio::test]
async fn an_entry_that_leaves_a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    opened.append([entry(1, 0)]).await.unwrap();
    let refused = opened.append([entry(1, 2)]).await.unwrap_err().to_string();
    assert!(refused.contains("next index is 1"), "{refused}");
    opened.close().await;
}

#[tokio::test]
async fn the_log_of_another_member_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    opened.append([entry(1, 0)]).await.unwrap();
    opened.close().await;
    let data = std::sync::Arc::new(crate::data_dir::DataDir::open(dir.path()).unwrap());
    let other = "f".repeat(32);
    let stranger =
        crate::Identity { cluster_id: trestle_model::ClusterId::parse(&other).unwrap(), ..identity() };
    let error = open(&data, &stranger).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::OtherOwner { .. }), "{error}");
    assert!(error.to_string().contains(&other), "{error}");
    let error = crate::store::create(&data, &stranger).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::OtherOwner { .. }), "{error}");
}

#[tokio::test]
async fn a_join_that_was_interrupted_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    Opened::create(dir.path()).close().await;
    let mut again = Opened::create(dir.path());
    again.append([entry(1, 0)]).await.unwrap();
    again.close().await;
    assert_eq!(content_of(dir.path()).await.3.len(), 1);
}

#[tokio::test]
async fn the_largest_records_make_no_files_that_sled_never_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    let large = |index| large_entry(1, index, PROPOSAL_MAX - 64);
    for batch in 0..8_u64 {
        opened.append((batch * 3..batch * 3 + 3).map(large)).await.unwrap();
        if batch > 2 {
            opened.log.purge(log_id(1, batch * 3 - 4)).await.unwrap();
        }
    }
    let before = opened.content().await;
    assert_eq!(before.3, (18..24).map(large).collect::<Vec<_>>());
    opened.close().await;
    assert_eq!(fs::read_dir(dir.path().join("store/blobs")).unwrap().count(), 0);
    assert_eq!(content_of(dir.path()).await, before);
}

#[tokio::test]
async fn what_the_memory_has_no_room_for_is_read_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Opened::create(dir.path());
    let mixed = |index: u64| large_entry(1, index, if index.is_multiple_of(3) { 900_000 } else { 10 });
    for index in 0..30 {
        opened.append([mixed(index)]).await.unwrap();
    }
    let expected: Vec<_> = (0..30).map(mixed).collect();
    assert_eq!(opened.content().await.3, expected);
    let mut reader = opened.log.get_log_reader().await;
    // Two of the large ones and what is between and behind them, but never nothing.
    assert_eq!(reader.limited_get_log_entries(1, 30).await.unwrap(), expected[1..9]);
    assert_eq!(reader.limited_get_log_entries(3, 4).await.unwrap(), expected[3..4]);
    let stream = reader.entries_stream(2..29).await;
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap(), expected[2..29]);
    // Replaced ones are not found on the disk by mistake.
    opened.log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    opened.append([entry(2, 5)]).await.unwrap();
    let content = opened.content().await;
    assert_eq!(content.3, [&expected[..5], &[entry(2, 5)]].concat());
    opened.close().await;
    assert_eq!(content_of(dir.path()).await, content);
    // The file has no piece of those that were longer.
    let mut again = Opened::open(dir.path()).unwrap();
    again.append([large_entry(2, 6, 5000)]).await.unwrap();
    again.close().await;
    assert_eq!(content_of(dir.path()).await.3.last(), Some(&large_entry(2, 6, 5000)));
}
