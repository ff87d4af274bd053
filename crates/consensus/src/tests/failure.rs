//! Members that end, and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trestle_api::stored::state_digest;

use super::cluster::{Cluster, create_pool, named, proposal, until};
use crate::{DEFAULT_WAIT, RaftState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_no_acknowledged_write_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|at| *at != first).collect();
    let (done, writer) = (Arc::new(AtomicBool::new(false)), cluster.at(others[0]).clone());
    let writing = tokio::spawn({
        let done = done.clone();
        async move {
            let mut acknowledged = Vec::new();
            for i in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("p{i}");
                // With a request id a write goes on through the election.
                writer.propose(named(&name, create_pool(&name)), Duration::from_secs(30)).await.unwrap();
                acknowledged.push(name);
            }
            acknowledged
        }
    });
    let view = cluster.at(others[0]).view();
    until("writes before", || (view.borrow().state.pools.len() > 50).then_some(())).await;
    cluster.stop(first).await;
    cluster.leader_among(&others).await;
    let before = view.borrow().state.pools.len();
    until("writes after", || (view.borrow().state.pools.len() > before + 50).then_some(())).await;
    done.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.unwrap();

    cluster.start(first).await;
    cluster.converged(&[0, 1, 2]).await;
    for at in 0..3 {
        let pools = cluster.pools(at);
        assert!(acknowledged.iter().all(|name| pools.contains(name)), "at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_come_back_with_what_they_had() {
    let mut cluster = Cluster::of(3).await;
    for i in 0..50 {
        cluster.at(i % 3).propose(proposal(create_pool(&format!("p{i}"))), DEFAULT_WAIT).await.unwrap();
    }
    let before = cluster.converged(&[0, 1, 2]).await;
    let ids: Vec<_> = (0..3).map(|at| cluster.id(at)).collect();
    for at in 0..3 {
        cluster.stop(at).await;
    }
    for at in 0..3 {
        cluster.start(at).await;
    }
    cluster.leader().await;
    for (at, id) in ids.into_iter().enumerate() {
        assert_eq!(cluster.id(at), id);
        let view = cluster.at(at).read(DEFAULT_WAIT).await.unwrap();
        assert_eq!(state_digest(&view.state).to_string(), before);
    }
    cluster.at(1).propose(proposal(create_pool("after")), DEFAULT_WAIT).await.unwrap();
    assert_ne!(cluster.converged(&[0, 1, 2]).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::of(3).await;
    cluster.stop(2).await;
    let leader = cluster.leader().await;
    for i in 0..300 {
        cluster.at(leader).propose(proposal(create_pool(&format!("p{i}"))), DEFAULT_WAIT).await.unwrap();
    }
    let last = cluster.at(leader).status().last_log_index;
    for at in [0, 1] {
        let raft = cluster.at(at).core().shared.raft.handle().unwrap();
        raft.trigger().snapshot().await.unwrap();
        let metrics = raft.metrics();
        let snapshot = || {
            use openraft::async_runtime::watch::WatchReceiver;
            metrics.borrow_watched().snapshot.is_some_and(|id| id.index + 10 >= last).then_some(())
        };
        until("snapshot", snapshot).await;
        raft.trigger().purge_log(last - 20).await.unwrap();
    }
    cluster.start(2).await;
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!(cluster.pools(2).len(), 300);
    let term = |at: usize| cluster.at(at).view().borrow().applied_term;
    assert_eq!(term(2), term(leader));
    // It knows the state, but not how it came about.
    assert!(cluster.at(2).history().subscribe(last - 50).is_err());
    cluster.stop(2).await;
    cluster.start(2).await;
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!(cluster.pools(2).len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind_by_a_shutdown() {
    let mut cluster = Cluster::of(1).await;
    assert_eq!(cluster.at(0).status().state, RaftState::Leader);
    let handle = cluster.at(0).clone();
    let shared = handle.weak();
    cluster.stop(0).await;
    assert_eq!(handle.status().state, RaftState::Stopped);
    assert!(handle.propose(proposal(create_pool("a")), DEFAULT_WAIT).await.is_err());
    assert!(handle.history().subscribe(0).unwrap().next().await.is_err());
    drop(handle);
    // Raft's tasks, its connections and its threads all hold it.
    until("end of all that holds it", || (shared.strong_count() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_raft_is_reported() {
    let cluster = Cluster::of(1).await;
    let raft = cluster.at(0).core().shared.raft.handle().unwrap();
    raft.shutdown().await.unwrap();
    let why = tokio::time::timeout(super::cluster::PATIENCE, cluster.at(0).failed()).await.unwrap();
    assert!(why.contains("Raft has stopped"), "{why}");
    let failed = cluster.at(0).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap_err();
    assert_eq!(failed.to_status().code(), tonic::Code::DeadlineExceeded, "{failed}");
}
