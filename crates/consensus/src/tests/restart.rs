//! A voter that restarts has forgotten what it promised.

use std::time::Duration;

use tokio::time::Instant;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::storage;
use trestle_model::{ClusterId, MemberId};

use super::cluster::{Cluster, TIMING, create_pool, proposal};
use crate::{DEFAULT_WAIT, RaftState, Timing};

/// A vote of a candidate with a higher term and the whole log, as a rival would ask for it.
fn rival(to: proto::Destination, cluster: &Cluster, at: usize) -> proto::VoteRequest {
    let status = cluster.at(at).status();
    let leader = |term| storage::LeaderId { term, member_id: cluster.id(at).0 };
    proto::VoteRequest {
        to: Some(to),
        vote: Some(storage::Vote { leader: Some(leader(status.term + 1)), committed: false }),
        last_log_id: Some(storage::LogId {
            leader: Some(leader(status.term)),
            index: status.last_log_index + 100,
        }),
        leadership_transfer: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_voter_gives_no_vote_before_its_lease_has_passed() {
    // Long, so that the questions below certainly come within it.
    let timing =
        Timing { election_min: Duration::from_secs(2), election_max: Duration::from_secs(3), ..TIMING };
    let mut cluster = Cluster::with_timing(3, timing).await;
    let leader = cluster.leader().await;
    let voter = (leader + 1) % 3;
    let to = proto::Destination {
        cluster_id: cluster.at(voter).identity().unwrap().cluster_id.to_string(),
        member_id: cluster.id(voter).0,
        vote_refusal_ms: timing.vote_refusal_ms(),
        ..Default::default()
    };
    let asks = rival(to, &cluster, (leader + 2) % 3);
    // The leader must not renew the lease after the restart: the promise from before is what counts.
    cluster.stop(voter).await;
    cluster.isolate(leader, true);
    let opened = Instant::now();
    cluster.open(voter).await;
    let member = cluster.at(voter).clone();
    let starting = tokio::spawn(async move { member.start().await.map(|()| Instant::now()) });

    let address = format!("http://{}", cluster.spec(voter).peer_address);
    let mut service = RaftServiceClient::connect(address).await.unwrap();
    let mut refusals = 0;
    loop {
        let answer = service.vote(asks.clone()).await;
        match answer {
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                refusals += 1;
            }
            Ok(_) => {
                assert!(opened.elapsed() >= timing.lease(), "answered after {:?}", opened.elapsed());
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refusals > 0);
    assert!(starting.await.unwrap().unwrap() - opened >= timing.lease());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_promised_nothing_starts_at_once() {
    let timing =
        Timing { election_min: Duration::from_secs(1000), election_max: Duration::from_secs(2000), ..TIMING };
    let mut cluster = Cluster::empty(timing);
    cluster.place().await;
    let id = ClusterId::parse(&"11".repeat(16)).unwrap();
    cluster.at(0).adopt(id.clone(), MemberId(9), Default::default()).await.unwrap();
    cluster.stop(0).await;
    // With a vote it would wait for 2200 s.
    cluster.start(0).await;
    assert_eq!(cluster.at(0).identity().map(|i| (i.cluster_id, i.member_id)), Some((id, MemberId(9))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_another_member_or_cluster_is_refused() {
    let cluster = Cluster::of(1).await;
    let address = format!("http://{}", cluster.spec(0).peer_address);
    let mut service = RaftServiceClient::connect(address).await.unwrap();
    let mine = cluster.at(0).identity().unwrap().cluster_id.to_string();
    for (cluster_id, member_id) in [("00".repeat(16), 1), (mine, 2)] {
        let to = proto::Destination {
            cluster_id,
            member_id,
            vote_refusal_ms: TIMING.vote_refusal_ms(),
            ..Default::default()
        };
        let refused = service.vote(rival(to.clone(), &cluster, 0)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        let append = proto::AppendEntriesRequest { to: Some(to), ..Default::default() };
        let refused = service.append_entries(append).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    }
    cluster.at(0).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_with_another_timing_are_not_heard() {
    let cluster = Cluster::of(1).await;
    let address = format!("http://{}", cluster.spec(0).peer_address);
    let mut service = RaftServiceClient::connect(address).await.unwrap();
    let cluster_id = cluster.at(0).identity().unwrap().cluster_id.to_string();
    let mine = TIMING.vote_refusal_ms();
    for vote_refusal_ms in [0, mine - 1, mine + 1] {
        let to = proto::Destination {
            cluster_id: cluster_id.clone(),
            member_id: 1,
            vote_refusal_ms,
            ..Default::default()
        };
        let refused = service.vote(rival(to, &cluster, 0)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        assert!(refused.message().ends_with("give all members the same profile"), "{refused}");
    }
    let to = proto::Destination { cluster_id, member_id: 1, vote_refusal_ms: mine, ..Default::default() };
    service.vote(rival(to, &cluster, 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_member_takes_one_identity_and_keeps_it() {
    let mut cluster = Cluster::empty(TIMING);
    cluster.place().await;
    assert_eq!(cluster.at(0).status().state, RaftState::Empty);
    assert!(cluster.at(0).start().await.is_err());
    let id = |digits: &str| ClusterId::parse(&digits.repeat(16)).unwrap();
    cluster.at(0).adopt(id("aa"), MemberId(7), Default::default()).await.unwrap();
    cluster.at(0).adopt(id("aa"), MemberId(7), Default::default()).await.unwrap();
    assert!(cluster.at(0).adopt(id("aa"), MemberId(8), Default::default()).await.is_err());
    assert!(cluster.at(0).adopt(id("bb"), MemberId(7), Default::default()).await.is_err());
    assert!(cluster.at(0).bootstrap(id("cc"), cluster.spec(0), Box::new(|_| Ok(None))).await.is_err());
    cluster.stop(0).await;
    cluster.start(0).await;
    assert_eq!(cluster.id(0), MemberId(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_goes_on_where_it_stopped() {
    let mut cluster = Cluster::empty(TIMING);
    cluster.place().await;
    // As if the process had died between its identity and the first entry.
    let first = ClusterId::parse(&"aa".repeat(16)).unwrap();
    cluster.at(0).adopt(first.clone(), MemberId(1), Default::default()).await.unwrap();
    cluster.stop(0).await;
    cluster.start(0).await;
    cluster.found().await;
    assert_eq!(cluster.at(0).view().borrow().state.cluster_id, Some(first));
    let second = ClusterId::parse(&"bb".repeat(16)).unwrap();
    assert!(cluster.at(0).bootstrap(second, cluster.spec(0), Box::new(|_| Ok(None))).await.is_err());
}
