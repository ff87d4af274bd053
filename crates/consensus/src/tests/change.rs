//! Members that come, go and hand over.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use trestle_model::{Command, MemberId};

use super::cluster::{Cluster, TIMING, create_pool, proposal, until, unwatched};
use crate::raft_types::{Membership, Payload, PeerNode};
use crate::{DEFAULT_WAIT, MembershipStep, RaftState, RemovalOutcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_as_a_learner_and_is_promoted() {
    let mut cluster = Cluster::of(1).await;
    for i in 0..20 {
        cluster.at(0).propose(proposal(create_pool(&format!("p{i}"))), DEFAULT_WAIT).await.unwrap();
    }
    let new = cluster.place().await;
    let (sender, mut progress) = mpsc::channel(100);
    let member = cluster.at(0).add(cluster.spec(new), None, &sender).await.unwrap();
    drop(sender);
    let mut steps = Vec::new();
    while let Some(progress) = progress.recv().await {
        steps.push(progress.step);
    }
    steps.dedup();
    assert_eq!(steps, [MembershipStep::Allocated, MembershipStep::Adopted, MembershipStep::CatchingUp]);
    cluster.converged(&[0, new]).await;
    assert_eq!(cluster.at(new).status().state, RaftState::Learner);
    assert_eq!(cluster.pools(new).len(), 20);
    let warnings = cluster.at(0).promote(member.id, &unwatched()).await.unwrap();
    assert!(warnings[0].contains("2 voters"), "{warnings:?}");
    until("a vote", || (cluster.at(new).status().state == RaftState::Follower).then_some(())).await;
    // Promoting a voter is no error; taking it in again is.
    cluster.at(0).promote(member.id, &unwatched()).await.unwrap();
    assert!(cluster.at(0).add(cluster.spec(new), None, &unwatched()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_in_goes_on_where_it_stopped() {
    let mut cluster = Cluster::of(1).await;
    let new = cluster.place().await;
    // As if the leader had died after it allocated the id.
    let allocated =
        cluster.at(0).propose(proposal(Command::AddMember(cluster.spec(new))), DEFAULT_WAIT).await.unwrap();
    let member = cluster.at(0).add(cluster.spec(new), None, &unwatched()).await.unwrap();
    assert_eq!(member.id, MemberId(allocated.revision));
    let again = cluster.at(0).add(cluster.spec(new), None, &unwatched()).await.unwrap();
    assert_eq!(again, member);
    assert_eq!(cluster.id(new), member.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_run_is_not_taken_in() {
    let mut cluster = Cluster::of(1).await;
    let new = cluster.place().await;
    cluster.stop(new).await;
    let refused = cluster.at(0).add(cluster.spec(new), None, &unwatched()).await.unwrap_err();
    assert!(refused.to_string().contains("\"m1\""), "{refused}");
    assert!(cluster.at(0).status().learners.is_empty());
    cluster.start(new).await;
    cluster.at(0).add(cluster.spec(new), None, &unwatched()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_where_it_is_told_to() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let target = (first + 1) % 3;
    let follower = cluster.at(target).transfer(None).await.unwrap_err();
    assert_eq!(follower.to_status().code(), tonic::Code::Unavailable, "{follower}");
    let nobody = cluster.at(first).transfer(Some(MemberId(99))).await.unwrap_err();
    assert!(nobody.to_string().contains("does not vote"), "{nobody}");
    let (leader, term) = cluster.at(first).transfer(Some(cluster.id(target))).await.unwrap();
    assert_eq!(leader, cluster.id(target));
    assert_eq!(cluster.leader().await, target);
    assert_eq!(cluster.at(target).status().term, term);
    let (leader, _) = cluster.at(target).transfer(None).await.unwrap();
    assert_ne!(leader, cluster.id(target));
    cluster.at(target).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_told_and_stays_out() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    let id = cluster.id(gone);
    let RemovalOutcome::Done { warnings, .. } = cluster.at(leader).remove(id, None).await.unwrap() else {
        panic!("moved")
    };
    assert!(warnings[0].contains("2 voters"), "{warnings:?}");
    assert!(cluster.at(gone).was_removed());
    assert_eq!(cluster.at(gone).status().state, RaftState::Removed);
    let missing = cluster.at(leader).remove(id, None).await.unwrap_err();
    assert_eq!(missing.to_status().code(), tonic::Code::NotFound);
    cluster.stop(gone).await;
    cluster.start(gone).await;
    assert!(cluster.at(gone).was_removed());
    assert!(cluster.at(gone).start().await.is_err());
    cluster.at(leader).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_member_is_replaced_and_learns_of_it_when_it_is_back() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    let id = cluster.id(lost);
    cluster.stop(lost).await;
    let leader = cluster.leader().await;
    assert!(matches!(cluster.at(leader).remove(id, None).await.unwrap(), RemovalOutcome::Done { .. }));
    let new = cluster.place().await;
    let new_id = cluster.join(new).await;
    assert!(new_id > id);
    cluster.at(new).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    let rest: Vec<usize> = cluster.running();
    cluster.converged(&rest).await;
    // Nobody told it; it finds out when it asks for a vote.
    cluster.start(lost).await;
    until("the removal", || cluster.at(lost).was_removed().then_some(())).await;
    // The removal is on disk before Raft has ended.
    until("the end of Raft", || (cluster.at(lost).status().state == RaftState::Removed).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_first() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let id = cluster.id(first);
    assert_eq!(cluster.at(first).remove(id, None).await.unwrap(), RemovalOutcome::LeadershipMustMove);
    assert_eq!(cluster.leader().await, first);
    let (to, _) = cluster.at(first).transfer(None).await.unwrap();
    let second = cluster.leader().await;
    assert_eq!(cluster.id(second), to);
    assert!(matches!(cluster.at(second).remove(id, None).await.unwrap(), RemovalOutcome::Done { .. }));
    assert!(cluster.at(first).was_removed());
    assert_eq!(cluster.at(second).status().voters.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::of(1).await;
    let only = cluster.at(0).remove(cluster.id(0), None).await.unwrap_err();
    assert!(only.to_string().contains("only voter"), "{only}");
    for _ in 0..2 {
        let new = cluster.place().await;
        cluster.join(new).await;
    }
    let leader = cluster.leader().await;
    let (dead, healthy) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(dead).await;
    let healthy = cluster.id(healthy);
    // The dead one counts as answering until its last acknowledgement is old enough.
    let old = |at: &std::time::Instant| at.elapsed() > TIMING.patience();
    until("silence", || {
        (cluster.at(leader).status().heard.values().filter(|at| old(at)).count() == 1).then_some(())
    })
    .await;
    let refused = cluster.at(leader).remove(healthy, None).await.unwrap_err();
    assert!(refused.to_string().contains("1 answer now and 2 must"), "{refused}");
    cluster.at(leader).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_changes_no_membership() {
    let mut cluster = Cluster::of(2).await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 2;
    let id = cluster.id(lost);
    cluster.stop(lost).await;
    let silent = |at: std::time::Instant| at.elapsed() > TIMING.patience();
    until("silence", || cluster.at(leader).status().last_quorum_ack.is_none_or(silent).then_some(())).await;
    let refused = cluster.at(leader).remove(id, None).await.unwrap_err();
    assert_eq!(refused.to_status().code(), tonic::Code::Unavailable, "{refused}");
    assert_eq!(cluster.at(leader).status().voters.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_finishes_a_change_of_voters_that_was_half_done() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let leaving = (first + 1) % 3;
    let ids: BTreeSet<u64> = (0..3).map(|at| cluster.id(at).0).collect();
    let left: BTreeSet<u64> = ids.iter().copied().filter(|id| *id != cluster.id(leaving).0).collect();
    let nodes: BTreeMap<u64, PeerNode> = (0..3)
        .map(|at| (cluster.id(at).0, PeerNode { peer_address: cluster.spec(at).peer_address.to_string() }))
        .collect();
    // The first half of a removal, as a leader leaves it that is deposed then.
    let joint = Membership::new(vec![ids, left.clone()], nodes).unwrap();
    let raft = cluster.at(first).core().shared.raft.handle().unwrap();
    raft.append_membership(joint, Payload::Blank, []).await.unwrap();
    drop(raft);
    until("the joint voters", || cluster.at(first).role().borrow().joint.then_some(())).await;
    let second = (first + 2) % 3;
    cluster.at(first).transfer(Some(cluster.id(second))).await.unwrap();
    until("one set of voters", || {
        let role = cluster.at(second).role().borrow().clone();
        (!role.joint && role.voters.keys().map(|id| id.0).eq(left.iter().copied())).then_some(())
    })
    .await;
}
