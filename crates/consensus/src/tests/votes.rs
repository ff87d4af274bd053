//! Who gives a vote, and who does not.

use std::time::Duration;

use openraft::RaftNetworkFactory;
use openraft::network::{RPCOption, RaftNetworkV2};
use openraft::raft::VoteRequest;
use tonic::transport::Channel;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;

use super::cluster::{Cluster, TIMING, until};
use crate::raft_types::{LeaderId, LogId, PeerNode, TypeConfig, Vote};
use crate::{Timing, wire};

/// Elections that take longer than any test: what was heard stays fresh, and nobody stands by itself.
pub(super) const LONG: Timing =
    Timing { election_min: Duration::from_secs(1000), election_max: Duration::from_secs(2000), ..TIMING };

/// Notes at the leader that it has begun to hand over to `target`, as before Raft tells the others.
pub(super) fn begin_transfer(cluster: &Cluster, leader: usize, target: usize) {
    let leader_id = LeaderId { term: cluster.at(leader).status().term, node_id: cluster.id(leader).0 };
    cluster
        .at(leader)
        .core()
        .shared
        .quorum
        .record_transfer(&Vote { leader_id, committed: true }, cluster.id(target).0);
}

/// A call for a vote for a term that nobody had, by a candidate with more of the log than anybody.
pub(super) fn request(cluster: &Cluster, candidate: usize, by_transfer: bool) -> VoteRequest<TypeConfig> {
    let status = cluster.at(candidate).status();
    let leader = |term| LeaderId { term, node_id: cluster.id(candidate).0 };
    VoteRequest {
        vote: Vote { leader_id: leader(status.term + 1), committed: false },
        last_log_id: Some(LogId::new(leader(status.term), status.last_log_index + 100)),
        leadership_transfer: by_transfer,
    }
}

pub(super) fn destination(cluster: &Cluster, at: usize) -> proto::Destination {
    let identity = cluster.at(at).identity().unwrap();
    proto::Destination {
        cluster_id: identity.cluster_id.to_string(),
        member_id: identity.member_id.0,
        vote_refusal_ms: cluster.at(at).timing().vote_refusal_ms(),
        ..Default::default()
    }
}

pub(super) async fn service(cluster: &Cluster, at: usize) -> RaftServiceClient<Channel> {
    RaftServiceClient::connect(format!("http://{}", cluster.spec(at).peer_address)).await.unwrap()
}

pub(super) async fn ask(
    cluster: &Cluster,
    voter: usize,
    request: &VoteRequest<TypeConfig>,
) -> proto::VoteResponse {
    let message = wire::vote_request_message(destination(cluster, voter), request);
    service(cluster, voter).await.vote(message).await.unwrap().into_inner()
}

/// Tells `voter` that the leader hands over to `target`, as the leader would.
async fn tell_of_transfer(cluster: &Cluster, leader: usize, voter: usize, target: usize) {
    let leader_id = LeaderId { term: cluster.at(voter).status().term, node_id: cluster.id(leader).0 };
    let message = proto::TransferLeaderRequest {
        to: Some(destination(cluster, voter)),
        from_leader: Some(wire::vote_message(&Vote { leader_id, committed: true })),
        to_member_id: cluster.id(target).0,
        last_log_id: None,
    };
    service(cluster, voter).await.transfer_leader(message).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_heard_a_leader_lately_elects_no_other_even_after_a_transfer_began() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (voter, candidate) = ((leader + 1) % 3, (leader + 2) % 3);
    begin_transfer(&cluster, leader, candidate);
    tell_of_transfer(&cluster, leader, voter, candidate).await;
    cluster.isolate(leader, true);
    let plain = request(&cluster, candidate, false);
    let asked_before = cluster.vote_guard(voter).asked();
    let answer = ask(&cluster, voter, &plain).await;
    assert!(!answer.vote_granted);
    // What it answers instead is its own: the vote for the leader, and its log.
    let answer = wire::vote_response(answer).unwrap();
    assert_eq!(answer.vote.leader_id.node_id, cluster.id(leader).0);
    assert_eq!(answer.last_log_id.unwrap().index, cluster.at(voter).status().last_log_index);
    assert_eq!(cluster.vote_guard(voter).asked(), asked_before);
    // Raft has forgotten the leader's lease, and would vote.
    let raft = cluster.at(voter).core().shared.raft.handle().unwrap();
    assert!(raft.vote(plain).await.unwrap().vote_granted);
    // The one whom the leader named is elected at once, by the leader's own word.
    let named = VoteRequest {
        vote: Vote {
            leader_id: LeaderId {
                term: cluster.at(candidate).status().term + 2,
                node_id: cluster.id(candidate).0,
            },
            committed: false,
        },
        ..request(&cluster, candidate, true)
    };
    assert!(!ask(&cluster, voter, &named).await.vote_granted);
    cluster.isolate(leader, false);
    granted(&cluster, voter, &named).await;
}

/// Asks until the vote is given: the way to the leader, whom the voter asks, may have to be opened anew.
async fn granted(cluster: &Cluster, voter: usize, request: &VoteRequest<TypeConfig>) {
    let deadline = tokio::time::Instant::now() + super::cluster::PATIENCE;
    while !ask(cluster, voter, request).await.vote_granted {
        assert!(tokio::time::Instant::now() < deadline, "no vote for {request:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_heard_a_leader_lately_asks_nobody() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (voter, candidate) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.isolate(leader, true);
    let core = cluster.at(candidate).core();
    let mut network = core.network(&core.shared.member.identity().unwrap());
    let node = PeerNode { peer_address: cluster.spec(voter).peer_address.to_string() };
    let mut peer = network.new_client(cluster.id(voter).0, &node).await;
    let option = || RPCOption::new(Duration::from_secs(10));
    for pre_vote in [false, true] {
        let plain = request(&cluster, candidate, false);
        let answer =
            if pre_vote { peer.pre_vote(plain, option()).await } else { peer.vote(plain, option()).await };
        let refused = answer.unwrap_err().to_string();
        assert!(refused.contains("no election yet"), "{refused}");
    }
    cluster.isolate(leader, false);
    begin_transfer(&cluster, leader, candidate);
    let named = request(&cluster, candidate, true);
    let deadline = tokio::time::Instant::now() + super::cluster::PATIENCE;
    while !peer.vote(named.clone(), option()).await.unwrap().vote_granted {
        assert!(tokio::time::Instant::now() < deadline, "no vote for the one that the leader named");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vote_guard_learns_what_became_of_each_vote_that_it_allowed() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (voter, candidate) = ((leader + 1) % 3, (leader + 2) % 3);
    begin_transfer(&cluster, leader, candidate);
    let wanted = request(&cluster, candidate, true);
    let term = wanted.vote.leader_id.term;
    // Raft refuses a candidate that lacks a part of the log.
    let behind = VoteRequest { last_log_id: None, ..wanted.clone() };
    assert!(!ask(&cluster, voter, &behind).await.vote_granted);
    assert_eq!(cluster.vote_guard(voter).told(), [(term, false)]);
    // A closed guard is told nothing, and Raft does not learn of the candidate.
    cluster.vote_guard(voter).close(true);
    let refused = wire::vote_response(ask(&cluster, voter, &wanted).await).unwrap();
    assert!(!refused.vote_granted);
    assert_eq!(refused.vote.leader_id.node_id, cluster.id(leader).0);
    assert_eq!(cluster.vote_guard(voter).told(), [(term, false)]);
    cluster.vote_guard(voter).close(false);
    assert!(ask(&cluster, voter, &wanted).await.vote_granted);
    assert_eq!(cluster.vote_guard(voter).told(), [(term, false), (term, true)]);
    assert_eq!(cluster.vote_guard(voter).asked(), [term, term, term]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_guard_that_refuses_prevents_an_election() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|at| *at != first).collect();
    for at in &others {
        cluster.vote_guard(*at).close(true);
    }
    cluster.stop(first).await;
    let asked = || others.iter().map(|at| cluster.vote_guard(*at).asked().len()).sum::<usize>();
    until("calls for votes", || (asked() >= 3).then_some(())).await;
    for at in &others {
        assert_eq!(cluster.at(*at).leadership().borrow().leads, None);
        assert!(cluster.vote_guard(*at).told().is_empty());
    }
    for at in &others {
        cluster.vote_guard(*at).close(false);
    }
    let second = cluster.leader_among(&others).await;
    let voter = others.iter().copied().find(|at| *at != second).unwrap();
    let term = cluster.at(second).status().term;
    assert!(
        cluster.vote_guard(voter).told().contains(&(term, true)),
        "{:?}",
        cluster.vote_guard(voter).told()
    );
}
