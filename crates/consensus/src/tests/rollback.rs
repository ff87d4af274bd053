//! A voter whose disk was put back from a copy: it is noticed, helps nobody, and is filled again.

use std::time::Duration;

use super::cluster::{Cluster, PATIENCE, TIMING, create_pool, proposal, until};
use crate::{DEFAULT_WAIT, RaftState, Timing};

async fn write(cluster: &Cluster, at: usize, pools: &[&str]) {
    for pool in pools {
        cluster.at(at).propose(proposal(create_pool(pool)), DEFAULT_WAIT).await.unwrap();
    }
}

/// Three voters, of which the second one to lead is never `victim`; `victim` has stopped, and its disk is back at what it was
/// before four more writes.
async fn put_back(cluster: &mut Cluster) -> (usize, usize) {
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    write(cluster, leader, &["before"]).await;
    cluster.converged(&[0, 1, 2]).await;
    cluster.stop(victim).await;
    let copy = cluster.copy(victim);
    cluster.start(victim).await;
    write(cluster, leader, &["a", "b", "c", "d"]).await;
    cluster.converged(&[0, 1, 2]).await;
    cluster.stop(victim).await;
    cluster.put_back(victim, &copy);
    (leader, victim)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_went_back_is_filled_again_by_the_same_leader() {
    let mut cluster = Cluster::of(3).await;
    let (leader, victim) = put_back(&mut cluster).await;
    let term = cluster.at(leader).status().term;
    cluster.start(victim).await;
    cluster.converged(&[0, 1, 2]).await;
    until("end of the abstention", || cluster.at(victim).abstains().is_none().then_some(())).await;
    assert_eq!(cluster.at(leader).status().term, term, "nobody had to be elected for that");
    write(&cluster, leader, &["after"]).await;
    assert!(cluster.pools(victim).contains(&"d".to_owned()));
    cluster.at(leader).transfer(Some(cluster.id(victim))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_it_helps_nobody_and_answers_no_reads() {
    let mut cluster = Cluster::of(3).await;
    let (leader, victim) = put_back(&mut cluster).await;
    let third = 3 - leader - victim;
    // The one that led before knows, and does not lead.
    cluster.at(leader).transfer(Some(cluster.id(third))).await.unwrap();
    cluster.converged(&[leader, third]).await;
    cluster.stop(third).await;
    until("loss of the leader", || cluster.at(leader).role().borrow().leader.is_none().then_some(())).await;
    cluster.start(victim).await;
    let why = cluster.at(victim).abstains().unwrap();
    assert!(why.contains("its disk went back in time"), "{why}");
    assert!(why.contains("has seen it store entry"), "{why}");
    let refused = cluster.at(victim).read(Duration::from_millis(50)).await.unwrap_err();
    assert!(refused.to_string().contains("answers no reads"), "{refused}");
    // Longer than any election takes.
    let term = cluster.at(victim).status().term;
    tokio::time::sleep(4 * TIMING.election_max).await;
    assert_eq!(cluster.at(victim).status().term, term, "it neither stood nor voted");
    assert!(cluster.at(victim).abstains().is_some());
    cluster.start(third).await;
    cluster.converged(&[0, 1, 2]).await;
    until("end of the abstention", || cluster.at(victim).abstains().is_none().then_some(())).await;
}

/// Neither may help to elect anybody but the one of whom both know that it has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_disks_that_went_back_go_on_with_the_third() {
    let mut cluster = Cluster::of(3).await;
    let knows = cluster.leader().await;
    let (leads, third) = ((knows + 1) % 3, (knows + 2) % 3);
    let mut copies = Vec::new();
    for at in [leads, third] {
        cluster.stop(at).await;
        copies.push(cluster.copy(at));
        cluster.start(at).await;
    }
    let leader = cluster.leader().await;
    if leader != knows {
        cluster.at(leader).transfer(Some(cluster.id(knows))).await.unwrap();
    }
    cluster.leader().await;
    write(&cluster, knows, &["a", "b"]).await;
    cluster.converged(&[0, 1, 2]).await;
    cluster.at(knows).transfer(Some(cluster.id(leads))).await.unwrap();
    cluster.leader().await;
    for (at, copy) in [leads, third].into_iter().zip(&copies) {
        cluster.stop(at).await;
        cluster.put_back(at, copy);
    }
    for at in [leads, third] {
        cluster.start(at).await;
        assert!(cluster.at(at).abstains().is_some());
    }
    cluster.converged(&[0, 1, 2]).await;
    assert!(cluster.pools(third).contains(&"b".to_owned()), "nothing is lost");
    until("end of all abstentions", || (0..3).all(|at| cluster.at(at).abstains().is_none()).then_some(()))
        .await;
    let leader = cluster.leader().await;
    write(&cluster, leader, &["after"]).await;
}

/// One that is not answered by anybody who knows more goes on as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_no_reason_to_abstain() {
    let mut cluster = Cluster::of(3).await;
    for at in 0..3 {
        let leader = cluster.leader().await;
        write(&cluster, leader, &[["x", "y", "z"][at]]).await;
        cluster.stop(at).await;
        cluster.start(at).await;
        assert_eq!(cluster.at(at).abstains(), None);
    }
    cluster.leader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_nobody_takes_is_taken_back() {
    let timing =
        Timing { election_min: Duration::from_millis(500), election_max: Duration::from_secs(1), ..TIMING };
    let cluster = Cluster::with_timing(3, timing).await;
    let leader = cluster.leader().await;
    let target = (leader + 1) % 3;
    let term = cluster.at(leader).status().term;
    // It answers all the same until the leader notices.
    cluster.isolate(target, true);
    let started = tokio::time::Instant::now();
    let refused = cluster.at(leader).transfer(Some(cluster.id(target))).await.unwrap_err();
    assert!(refused.to_string().contains("this member leads on"), "{refused}");
    assert!(started.elapsed() < PATIENCE);
    let status = cluster.at(leader).status();
    assert_eq!(status.state, RaftState::Leader);
    assert!(status.term > term);
    write(&cluster, leader, &["after"]).await;
    cluster.at(leader).read(DEFAULT_WAIT).await.unwrap();
    cluster.isolate(target, false);
    cluster.converged(&[0, 1, 2]).await;
}

/// Three voters, of which the second one to lead is never the victim, and a process of the victim that is put back in its
/// place as it was before four more writes: a virtual machine that is resumed from an older image of its memory and disk.
/// No start asks anybody then.
async fn put_memory_back(cluster: &mut Cluster, lead_on: bool) -> (usize, usize) {
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    let third = 3 - leader - victim;
    write(cluster, leader, &["before"]).await;
    cluster.converged(&[0, 1, 2]).await;
    let before = cluster.fork(victim).await;
    write(cluster, leader, &["a", "b", "c", "d"]).await;
    cluster.converged(&[0, 1, 2]).await;
    if !lead_on {
        cluster.at(leader).transfer(Some(cluster.id(third))).await.unwrap();
        cluster.converged(&[0, 1, 2]).await;
    }
    cluster.stop(third).await;
    if lead_on {
        // What it is asked for now is on these two alone.
        write(cluster, leader, &["e"]).await;
    }
    cluster.stop(victim).await;
    cluster.resume(victim, before);
    (leader, victim)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_that_went_back_is_filled_again_and_counts_only_for_what_it_has() {
    let mut cluster = Cluster::of(3).await;
    let (leader, victim) = put_memory_back(&mut cluster, true).await;
    let third = 3 - leader - victim;
    assert!(!cluster.pools(victim).contains(&"d".to_owned()), "it knows what it knew");
    // A quorum is these two.
    write(&cluster, leader, &["after"]).await;
    cluster.converged(&[leader, victim]).await;
    for pool in ["before", "d", "e", "after"] {
        assert!(cluster.pools(victim).contains(&pool.to_owned()), "{pool} is on one disk alone");
    }
    until("end of the abstention", || cluster.at(victim).abstains().is_none().then_some(())).await;
    cluster.start(third).await;
    cluster.converged(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_that_went_back_helps_nobody_while_no_leader_can_fill_it() {
    let mut cluster = Cluster::of(3).await;
    let (knows, victim) = put_memory_back(&mut cluster, false).await;
    let third = 3 - knows - victim;
    let why = until("its abstention", || cluster.at(victim).abstains()).await;
    assert!(why.contains("has seen it store entry"), "{why}");
    let refused = cluster.at(victim).read(Duration::from_millis(50)).await.unwrap_err();
    assert!(refused.to_string().contains("answers no reads"), "{refused}");
    until("loss of the leader", || cluster.at(knows).role().borrow().leader.is_none().then_some(())).await;
    assert!(cluster.at(victim).abstains().is_some());
    cluster.start(third).await;
    cluster.converged(&[0, 1, 2]).await;
    until("end of the abstention", || cluster.at(victim).abstains().is_none().then_some(())).await;
}
