//! Entries of the largest size.

use std::time::{Duration, Instant};

use tokio::sync::oneshot::error::TryRecvError;
use trestle_model::Command;

use super::cluster::{Cluster, create_pool, proposal, until};
use crate::store::PROPOSAL_MAX;
use crate::{DEFAULT_WAIT, Timing};

/// Writes `count` entries of the largest size on the leader, one after the other; answers how long each took, and how old
/// the last answer of a quorum was meanwhile, which is looked at every few milliseconds.
async fn write_large(cluster: &Cluster, leader: usize, count: u64) -> (Vec<Duration>, Vec<Duration>) {
    let leadership = cluster.at(leader).leadership();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let watched = tokio::spawn(async move {
        let mut ages = Vec::new();
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let acked = leadership.borrow().leads.and_then(|leads| leads.quorum_acked);
            ages.push(acked.map_or(Duration::MAX, |at| at.elapsed()));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ages
    });
    let mut taken = Vec::new();
    for upload in 0..count {
        let bytes = vec![upload as u8; PROPOSAL_MAX - 256].into();
        let began = Instant::now();
        let piece = proposal(Command::StagePiece { upload, number: 0, bytes });
        cluster.at(leader).propose(piece, DEFAULT_WAIT).await.unwrap();
        taken.push(began.elapsed());
    }
    drop(stop);
    let mut ages = watched.await.unwrap();
    taken.sort();
    ages.sort();
    (taken, ages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_reach_everybody_and_cost_nobody_the_lead() {
    let timing = Timing::default();
    let mut cluster = Cluster::with_timing(3, timing).await;
    let leader = cluster.leader().await;
    let term = cluster.at(leader).status().term;
    let away = (leader + 1) % 3;
    cluster.stop(away).await;
    let (_, ages) = write_large(&cluster, leader, 12).await;
    assert_eq!(cluster.at(leader).status().term, term, "there was an election");
    assert!(ages.last().is_some_and(|oldest| *oldest < timing.election_max), "{:?}", ages.last());
    // What it has missed is read from the others' disks.
    cluster.start(away).await;
    cluster.at(leader).propose(proposal(create_pool("after")), DEFAULT_WAIT).await.unwrap();
    cluster.converged(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_entries_is_cut_by_its_size() {
    let cluster = Cluster::with_timing(1, Timing::default()).await;
    write_large(&cluster, 0, 40).await;
    let log = cluster.at(0).core().shared.raft.log().unwrap();
    until("smaller log", || (log.bytes() < 16 << 20).then_some(())).await;
    let snapshots = std::fs::read_dir(cluster.dir(0).join("snapshots")).unwrap().count();
    assert!(snapshots > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run it alone in a release build"]
async fn large_writes() {
    let cluster = Cluster::direct(3, Timing::default()).await;
    let leader = cluster.leader().await;
    let term = cluster.at(leader).status().term;
    let at = |of: &[Duration], part: f64| of[((of.len() - 1) as f64 * part) as usize];
    let (taken, ages) = write_large(&cluster, leader, 100).await;
    let elections = cluster.at(leader).status().term - term;
    println!(
        "100 writes of 1 MiB: p50 {:?}, p99 {:?}; age of the last answer of a quorum: p50 {:?}, p99 {:?}, max {:?}; {elections} \
         elections",
        at(&taken, 0.5),
        at(&taken, 0.99),
        at(&ages, 0.5),
        at(&ages, 0.99),
        at(&ages, 1.0)
    );
}
