//! A leader that is cut off.

use std::time::Duration;

use tonic::Code;

use super::cluster::{Cluster, create_pool, named, proposal, until};
use crate::DEFAULT_WAIT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_answers_neither_reads_nor_writes() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    cluster.isolate(old, true);
    cluster.leader_among(&others).await;

    let short = Duration::from_millis(500);
    // The majority goes on, and the isolated leader must not show a state from before.
    cluster.at(others[0]).propose(proposal(create_pool("new")), DEFAULT_WAIT).await.unwrap();
    let read = cluster.at(old).read(short).await.unwrap_err();
    assert_eq!(read.to_status().code(), Code::Unavailable, "{read}");
    // Whatever else would let it: by Raft's word it leads.
    let confirmed = cluster.at(old).core.reads.confirmed(None, tokio::time::Instant::now() + short).await;
    assert_eq!(confirmed.ok(), None);
    let wrote = cluster.at(old).propose(proposal(create_pool("lost")), short).await.unwrap_err();
    assert!(matches!(wrote.to_status().code(), Code::Unavailable | Code::DeadlineExceeded), "{wrote}");
    assert!(
        cluster
            .at(old)
            .status()
            .last_quorum_ack
            .is_none_or(|at| at.elapsed() > super::cluster::TIMING.lease())
    );

    cluster.isolate(old, false);
    cluster.converged(&[0, 1, 2]).await;
    for at in 0..3 {
        assert_eq!(cluster.pools(at), ["new"], "at {at}");
    }
    cluster.at(old).propose(proposal(create_pool("again")), DEFAULT_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_cut_off_is_unknown_without_a_request_id_and_goes_on_with_one() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let client = cluster.at(old).clone();
    cluster.isolate(old, true);
    // Both reach the leader's log before its lease runs out.
    let anonymous = tokio::spawn({
        let client = client.clone();
        async move { client.propose(proposal(create_pool("anonymous")), Duration::from_secs(2)).await }
    });
    let known = tokio::spawn(async move {
        client.propose(named("n", create_pool("known")), Duration::from_secs(30)).await
    });
    let unknown = anonymous.await.unwrap().unwrap_err();
    assert_eq!(unknown.to_status().code(), Code::DeadlineExceeded, "{unknown}");
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    cluster.leader_among(&others).await;
    cluster.isolate(old, false);
    known.await.unwrap().unwrap();
    cluster.converged(&[0, 1, 2]).await;
    until("the known write", || cluster.pools(old).contains(&"known".to_owned()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_follower_comes_back_without_deposing_the_leader() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let term = cluster.at(leader).status().term;
    cluster.isolate(follower, true);
    until("a candidate", || cluster.at(follower).role().borrow().leader.is_none().then_some(())).await;
    for i in 0..10 {
        cluster.at(leader).propose(proposal(create_pool(&format!("p{i}"))), DEFAULT_WAIT).await.unwrap();
    }
    cluster.isolate(follower, false);
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!(cluster.at(leader).status().term, term);
    assert_eq!(cluster.leader().await, leader);
}
