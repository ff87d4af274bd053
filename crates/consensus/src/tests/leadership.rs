//! What a member says of its own leadership.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, PATIENCE, TIMING, create_pool, proposal, until};
use crate::{DEFAULT_WAIT, LeaderTerm, RaftState, Timing};

fn leads(cluster: &Cluster, at: usize) -> Option<LeaderTerm> {
    cluster.at(at).leadership().borrow().leads
}

/// The leadership of a member that leads, or will in a moment.
async fn leadership(cluster: &Cluster, at: usize) -> LeaderTerm {
    until("an leadership", || leads(cluster, at)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_believes_to_lead_but_no_quorum_confirms_it() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    until("an answer", || leads(&cluster, old)?.quorum_acked).await;
    cluster.isolate(old, true);
    let new = cluster.leader_among(&others).await;
    let elected = Instant::now();
    let stands = leads(&cluster, old).unwrap();
    let acked = stands.quorum_acked.unwrap();
    until("silence", || (acked.elapsed() > 5 * TIMING.election_max).then_some(())).await;
    assert_eq!(cluster.at(old).status().state, RaftState::Leader);
    assert_eq!(leads(&cluster, old), Some(stands));
    let successor = leadership(&cluster, new).await;
    assert!(successor.term > stands.term && !successor.by_transfer, "{successor:?}");
    assert!(successor.quorum_acked.unwrap() > elected);
    for at in others.iter().filter(|at| **at != new) {
        assert_eq!(leads(&cluster, *at), None);
    }
    cluster.isolate(old, false);
    until("the end of its leadership", || leads(&cluster, old).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_told_from_an_election_after_silence() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    assert!(!leadership(&cluster, first).await.transferring);
    cluster.at(first).transfer(Some(cluster.id(second))).await.unwrap();
    assert_eq!(cluster.leader().await, second);
    let by_transfer = leadership(&cluster, second).await;
    assert!(by_transfer.by_transfer && !by_transfer.transferring, "{by_transfer:?}");
    cluster.stop(second).await;
    let next = cluster.leader_among(&[first, third]).await;
    let by_election = leadership(&cluster, next).await;
    assert!(by_election.term > by_transfer.term && !by_election.by_transfer, "{by_election:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_finds_no_votes_is_seen_and_does_not_end_in_a_lockout() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    for at in 0..3 {
        cluster.vote_guard(at).close(true);
    }
    let term = leadership(&cluster, first).await.term;
    let member = cluster.at(first).clone();
    let moving = tokio::spawn(async move { member.transfer(None).await });
    until("a transfer", || leads(&cluster, first).filter(|l| l.transferring && l.term == term)).await;
    moving.await.unwrap().unwrap_err();
    for at in 0..3 {
        cluster.vote_guard(at).close(false);
    }
    until("another term", || (leads(&cluster, cluster_leader(&cluster)?)?.term > term).then_some(())).await;
}

fn cluster_leader(cluster: &Cluster) -> Option<usize> {
    (0..3).filter(|at| leads(cluster, *at).is_some()).max_by_key(|at| leads(cluster, *at).map(|l| l.term))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_voter_is_its_own_quorum() {
    let cluster = Cluster::of(1).await;
    let first = until("an leadership", || leads(&cluster, 0)?.quorum_acked).await;
    until("a renewal", || (leads(&cluster, 0)?.quorum_acked? > first).then_some(())).await;
    assert!(cluster.at(0).targets().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_sees_the_first_entry_of_a_new_term() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    cluster.at(first).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    cluster.at(first).transfer(None).await.unwrap();
    let term = cluster.at(cluster.leader().await).status().term;
    // No command follows.
    for at in 0..3 {
        until("the term", || (cluster.at(at).view().borrow().applied_term == term).then_some(())).await;
    }
    for at in 0..3 {
        cluster.stop(at).await;
    }
    for at in 0..3 {
        cluster.start(at).await;
    }
    let again = cluster.at(cluster.leader().await).status().term;
    assert!(again > term);
    for at in 0..3 {
        until("the term", || (cluster.at(at).view().borrow().applied_term == again).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_for_another_term_writes_nothing() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let term = leadership(&cluster, first).await.term;
    let last = |at: usize| cluster.at(at).status().last_log_index;
    cluster.at(first).propose_in_term(proposal(create_pool("a")), term, DEFAULT_WAIT).await.unwrap();
    cluster.converged(&[0, 1, 2]).await;
    let before = last(first);
    for (at, term) in [(first, term - 1), (first, term + 1), ((first + 1) % 3, term)] {
        let refused =
            cluster.at(at).propose_in_term(proposal(create_pool("b")), term, DEFAULT_WAIT).await.unwrap_err();
        assert_eq!(refused.to_status().code(), tonic::Code::Unavailable, "{refused}");
    }
    assert_eq!(last(first), before);
    // Led by the same member again, the old term is still over.
    let (second, _) = cluster.at(first).transfer(None).await.unwrap();
    let second = (0..3).find(|at| cluster.id(*at) == second).unwrap();
    cluster.leader().await;
    // On a busy machine one that has just lost leadership may not stand in time.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = cluster.at(second).transfer(Some(cluster.id(first))).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    assert_eq!(cluster.leader().await, first);
    cluster.at(first).propose(proposal(create_pool("c")), DEFAULT_WAIT).await.unwrap();
    let before = last(first);
    cluster.at(first).propose_in_term(proposal(create_pool("b")), term, DEFAULT_WAIT).await.unwrap_err();
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!((last(first), cluster.pools(first)), (before, vec!["a".to_owned(), "c".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_can_go_to_the_others_that_answer() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let (dead, left) = ((leader + 1) % 3, (leader + 2) % 3);
    until("both", || (cluster.at(leader).targets().len() == 2).then_some(())).await;
    assert!(cluster.at(left).targets().is_empty());
    cluster.stop(dead).await;
    let only = [cluster.id(left)];
    until("the one left", || (cluster.at(leader).targets() == only).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run it alone"]
async fn pace() {
    let cluster = Cluster::direct(3, Timing::default()).await;
    let leader = cluster.leader().await;
    let mut leadership = cluster.at(leader).leadership();
    let (mut ages, mut gaps, mut last) = (Vec::new(), Vec::new(), Instant::now());
    let end = last + Duration::from_secs(10);
    while Instant::now() < end {
        leadership.changed().await.unwrap();
        let Some(acked) = leadership.borrow_and_update().leads.and_then(|leads| leads.quorum_acked) else {
            continue;
        };
        ages.push(acked.elapsed());
        gaps.push(last.elapsed());
        last = Instant::now();
    }
    for (what, times) in [("from sending to the reader", &mut ages), ("between two", &mut gaps)] {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 1000];
        println!("{what}: p50 {:?} p99 {:?} max {:?} of {}", at(500), at(990), at(1000), times.len());
    }
}
