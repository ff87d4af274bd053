//! Members whose programs know different things.

use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use trestle_api::peer as proto;
use trestle_api::storage;
use trestle_model::Refusal;

use super::cluster::{Cluster, TIMING, create_pool, proposal, until, unwatched};
use super::votes::{LONG, destination, service};
use crate::raft_types::{LeaderId, LogId, Vote};
use crate::{Consensus, DEFAULT_WAIT, Error, OpenError, Timing, wire};

/// Nobody is elected but where a leader is stopped, also on a busy machine.
const CALM: Timing =
    Timing { election_min: Duration::from_millis(1500), election_max: Duration::from_millis(2000), ..TIMING };

/// Upgrades running members, one after the other: each is started with a program that knows `level`, which the leader records.
async fn upgrade(cluster: &mut Cluster, members: &[usize], level: u32) {
    for at in members.iter().copied() {
        cluster.stop(at).await;
        cluster.set_level(at, level);
        cluster.start(at).await;
        record(cluster, at, level).await;
    }
}

/// Has the leader record what the program of a member knows; whoever leads by then, for members are stopped one after the other.
async fn record(cluster: &Cluster, at: usize, level: u32) {
    let start = u64::from(level);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let leader = cluster.leader().await;
        let (known, id) = (before(cluster, leader, at), cluster.id(at));
        if known == start {
            return;
        }
        if let Err(error) = cluster.at(leader).note_start(id, start, known, None, level).await {
            assert!(Instant::now() < end, "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The start that is recorded of a member.
fn before(cluster: &Cluster, leader: usize, at: usize) -> u64 {
    let view = cluster.at(leader).view().borrow().clone();
    view.state.starts.get(&cluster.id(at)).copied().unwrap_or(0)
}

fn level(cluster: &Cluster, at: usize) -> u32 {
    cluster.at(at).view().borrow().state.feature_level
}

/// A cluster at level 1 whose members are recorded to know level 2, of which the last one is off and is put back.
async fn with_one_put_back() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::with_timing(3, CALM).await;
    upgrade(&mut cluster, &[0, 1, 2], 2).await;
    let leader = cluster.leader().await;
    let off = (leader + 1) % 3;
    cluster.stop(off).await;
    cluster.set_level(off, 1);
    (cluster, leader, off)
}

/// Waits until a member says that its program is too old, and answers what it says.
async fn outdated(cluster: &Cluster, at: usize) -> String {
    let why = until("word of an old program", || {
        cluster.at(at).abstains().filter(|why| why.contains("program is too old"))
    });
    why.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_rises_when_the_last_member_knows_it_and_who_knows_less_is_not_taken_in() {
    let mut cluster = Cluster::with_timing(3, CALM).await;
    upgrade(&mut cluster, &[0, 1], 2).await;
    let leader = cluster.leader().await;
    let last = cluster.at(leader).status().last_log_index;
    let refused = cluster.at(leader).raise_level(2).await.unwrap_err();
    assert!(refused.to_string().contains("upgrade m2, then try again"), "{refused}");
    assert_eq!(cluster.at(leader).status().last_log_index, last, "certain refusals take no entry");
    upgrade(&mut cluster, &[2], 2).await;
    let leader = cluster.leader().await;
    cluster.at(leader).raise_level(2).await.unwrap();
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!([0, 1, 2].map(|at| level(&cluster, at)), [2, 2, 2]);
    let new = cluster.place().await;
    let refused = cluster.at(leader).add(cluster.spec(new), None, &unwatched()).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Outdated { .. })), "{refused:?}");
    assert!(
        refused.to_string().contains("member \"m3\" runs a program that knows feature level 1"),
        "{refused}"
    );
    cluster.stop(new).await;
    cluster.set_level(new, 2);
    cluster.start(new).await;
    cluster.join(new).await;
    cluster.converged(&[0, 1, 2, 3]).await;
    assert_eq!(level(&cluster, new), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_too_old_says_so_serves_on_and_goes_on_when_it_is_upgraded() {
    let (mut cluster, leader, off) = with_one_put_back().await;
    cluster.at(leader).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    cluster.start(off).await;
    cluster.converged(&[0, 1, 2]).await;
    let term = cluster.at(leader).status().term;
    cluster.at(leader).raise_level(2).await.unwrap();
    let why = outdated(&cluster, off).await;
    assert!(
        why.contains("feature level 2, and this version knows up to 1")
            && why.contains("upgrade this member's program"),
        "{why}"
    );
    assert_eq!(cluster.at(off).problems(), std::slice::from_ref(&why));
    // The others go on. It hears them, has what it had, answers no reads and cannot lead.
    cluster.at(leader).propose(proposal(create_pool("b")), DEFAULT_WAIT).await.unwrap();
    assert_eq!((level(&cluster, off), cluster.pools(off)), (1, vec!["a".to_owned()]));
    let refused = cluster.at(off).read(DEFAULT_WAIT / 10).await.unwrap_err();
    assert!(refused.to_string().contains("program is too old"), "{refused}");
    assert_eq!((cluster.leader().await, cluster.at(leader).status().term), (leader, term));
    assert!(cluster.at(leader).transfer(Some(cluster.id(off))).await.is_err());
    cluster.at(leader).propose(proposal(create_pool("c")), DEFAULT_WAIT).await.unwrap();
    // Restarted as it is, it finds out again.
    cluster.stop(off).await;
    cluster.start(off).await;
    outdated(&cluster, off).await;
    assert_eq!(cluster.pools(off), ["a"]);
    cluster.stop(off).await;
    cluster.set_level(off, 2);
    cluster.start(off).await;
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!((level(&cluster, off), cluster.at(off).abstains()), (2, None));
    assert_eq!(cluster.pools(off), ["a", "b", "c"]);
    // From now on its disk has what an older program does not know.
    cluster.stop(off).await;
    cluster.set_level(off, 1);
    let Err(refused) = Consensus::open(cluster.settings(off)).await else { panic!("it opened") };
    assert!(matches!(refused, OpenError::Unknown { .. }) && refused.is_damage(), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains("upgrade this member") && text.contains("feature level 2") && !text.contains("damaged"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_too_old_for_a_snapshot_takes_none_of_it() {
    let (mut cluster, leader, off) = with_one_put_back().await;
    cluster.at(leader).raise_level(2).await.unwrap();
    for number in 0..50 {
        cluster.at(leader).propose(proposal(create_pool(&format!("p{number}"))), DEFAULT_WAIT).await.unwrap();
    }
    let last = cluster.at(leader).status().last_log_index;
    for at in cluster.running() {
        let raft = cluster.at(at).core().shared.raft.handle().unwrap();
        raft.trigger().snapshot().await.unwrap();
        let metrics = raft.metrics();
        let reaches =
            || metrics.borrow_watched().snapshot.is_some_and(|id| id.index + 10 >= last).then_some(());
        until("snapshot", reaches).await;
        raft.trigger().purge_log(last - 10).await.unwrap();
    }
    cluster.start(off).await;
    outdated(&cluster, off).await;
    assert_eq!((level(&cluster, off), cluster.pools(off).len()), (1, 0));
    cluster.stop(off).await;
    cluster.set_level(off, 2);
    cluster.start(off).await;
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!((cluster.at(off).abstains(), cluster.pools(off).len()), (None, 50));
    // A snapshot on the disk is refused like an entry there.
    cluster.stop(off).await;
    cluster.set_level(off, 1);
    let Err(refused) = Consensus::open(cluster.settings(off)).await else { panic!("it opened") };
    assert!(refused.to_string().contains("the newest snapshot: feature level 2"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_kind_of_entry_is_told_apart_from_nonsense_and_forgotten_when_it_is_gone() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.converged(&[0, 1, 2]).await;
    let (term, id) = (cluster.at(leader).status().term, cluster.id(leader).0);
    let last = cluster.at(follower).core().shared.raft.handle().unwrap();
    let last = last.data_metrics().borrow_watched().last_log.unwrap();
    let mut told = false;
    // Kinds that later versions have are fields that this one does not know, so they are not there for it.
    let kinds = [None, Some(storage::log_entry::Payload::Proposal(storage::Proposal::default()))];
    for (payload, sender) in kinds.into_iter().flat_map(|kind| [(kind.clone(), 999), (kind, id)]) {
        let log_id = LogId::new(LeaderId { term, node_id: sender }, last.index + 1);
        let vote = Vote { leader_id: LeaderId { term, node_id: sender }, committed: true };
        let message = proto::AppendEntriesRequest {
            to: Some(destination(&cluster, follower)),
            vote: Some(wire::vote_message(&vote)),
            prev_log_id: Some(wire::log_id_message(&last)),
            entries: vec![storage::LogEntry { log_id: Some(wire::log_id_message(&log_id)), payload }],
            leader_commit: None,
        };
        let refused = service(&cluster, follower).await.append_entries(message).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        // Only a leader has anything to say of what the cluster has agreed on.
        assert_eq!(refused.message().contains("program is too old"), sender == id, "{refused}");
        told |= sender == id;
        assert_eq!(cluster.at(follower).abstains().is_some(), told);
    }
    // What the leader has there in truth is known.
    cluster.at(leader).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    cluster.converged(&[0, 1, 2]).await;
    assert_eq!(cluster.at(follower).abstains(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_too_old_is_not_made_a_voter() {
    let mut cluster = Cluster::with_timing(3, CALM).await;
    upgrade(&mut cluster, &[0, 1, 2], 2).await;
    let new = cluster.place().await;
    cluster.stop(new).await;
    cluster.set_level(new, 2);
    cluster.start(new).await;
    let leader = cluster.leader().await;
    let learner = cluster.at(leader).add(cluster.spec(new), None, &unwatched()).await.unwrap();
    // Its program is put back, and it lags by an entry or two.
    cluster.stop(new).await;
    cluster.set_level(new, 1);
    cluster.at(leader).raise_level(2).await.unwrap();
    cluster.start(new).await;
    // The leader need not have found out by itself yet.
    cluster.at(leader).promote(learner.id, &unwatched()).await.unwrap_err();
    outdated(&cluster, new).await;
    let words = "member \"m3\" runs a program that is too old for what the cluster has agreed on; upgrade it";
    let leader = cluster.leader().await;
    for refused in [
        cluster.at(leader).promote(learner.id, &unwatched()).await.unwrap_err(),
        cluster.at(leader).try_promote(learner.id).await.unwrap_err(),
    ] {
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(!cluster.at(leader).status().voters.contains(&learner.id));
    cluster.stop(new).await;
    cluster.set_level(new, 2);
    cluster.start(new).await;
    cluster.converged(&[0, 1, 2, 3]).await;
    cluster.at(leader).promote(learner.id, &unwatched()).await.unwrap();
    assert!(cluster.at(leader).status().voters.contains(&learner.id));
}
