//! What strangers on the peer port get done: nothing.

use std::time::Duration;

use futures_util::stream;
use prost::Message;
use tonic::Code;
use trestle_api::peer as proto;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_model::{Command, MemberId, Proposal, Tenure};

use super::cluster::{Cluster, PATIENCE, create_pool, proposal, until};
use super::votes::{LONG, ask, destination, request, service};
use crate::raft_types::{LeaderId, LogEntry, LogId, Payload, SnapshotMeta, Vote};
use crate::store::PROPOSAL_MAX;
use crate::{DEFAULT_WAIT, RemovalOutcome, snapshot, wire};

const STRANGER: u64 = 999;
/// How far above one's own a term may be.
const REACH: u64 = 1 << 32;

/// A leader's vote in the name of the member `id`.
fn leads(term: u64, id: u64) -> Vote {
    Vote { leader_id: LeaderId { term, node_id: id }, committed: true }
}

/// Nothing has changed: the same leader in the same term, and the cluster takes writes.
async fn goes_on(cluster: &Cluster, leader: usize, term: u64, name: &str) {
    assert_eq!(cluster.leader().await, leader);
    cluster.at(leader).propose(proposal(create_pool(name)), DEFAULT_WAIT).await.unwrap();
    for at in cluster.running() {
        assert_eq!(cluster.at(at).status().term, term);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_elected_in_the_name_of_a_stranger_or_against_the_leaders_word() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let term = cluster.at(leader).status().term;
    let (voter, candidate) = ((leader + 1) % 3, (leader + 2) % 3);
    // A voter's name, and the claim that the leader wishes it: to a voter, and to the leader itself.
    let wished = request(&cluster, candidate, true);
    for at in [voter, leader] {
        assert!(!ask(&cluster, at, &wished).await.vote_granted, "{at}");
    }
    // No voter's name.
    for (id, code) in [(STRANGER, Code::FailedPrecondition), (u64::MAX, Code::InvalidArgument)] {
        let mut wished = request(&cluster, candidate, true);
        wished.vote.leader_id.node_id = id;
        let message = wire::vote_request_message(destination(&cluster, voter), &wished);
        for pre_vote in [false, true] {
            let mut service = service(&cluster, voter).await;
            let asked = message.clone();
            let answer = if pre_vote { service.pre_vote(asked).await } else { service.vote(asked).await };
            assert_eq!(answer.unwrap_err().code(), code, "{id}");
        }
    }
    // A leader's vote is no candidate's.
    let mut wished = request(&cluster, candidate, true);
    wished.vote.committed = true;
    let message = wire::vote_request_message(destination(&cluster, voter), &wished);
    assert_eq!(service(&cluster, voter).await.vote(message).await.unwrap_err().code(), Code::InvalidArgument);
    goes_on(&cluster, leader, term, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_that_nobody_can_have_come_to_are_refused() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let term = cluster.at(leader).status().term;
    let (voter, candidate) = ((leader + 1) % 3, (leader + 2) % 3);
    for far in [term + REACH + 1, 1 << 62, u64::MAX] {
        let mut wished = request(&cluster, candidate, true);
        wished.vote.leader_id.term = far;
        let message = wire::vote_request_message(destination(&cluster, voter), &wished);
        let refused = service(&cluster, voter).await.vote(message).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{far}: {refused}");
        let append = proto::AppendEntriesRequest {
            to: Some(destination(&cluster, voter)),
            vote: Some(wire::vote_message(&leads(far, cluster.id(candidate).0))),
            ..Default::default()
        };
        let refused = service(&cluster, voter).await.append_entries(append).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{far}: {refused}");
    }
    goes_on(&cluster, leader, term, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_not_handed_over_at_a_strangers_wish() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let term = cluster.at(leader).status().term;
    let target = (leader + 1) % 3;
    for from in [cluster.id(leader).0, cluster.id((leader + 2) % 3).0, STRANGER] {
        let message = proto::TransferLeaderRequest {
            to: Some(destination(&cluster, target)),
            from_leader: Some(wire::vote_message(&leads(term, from))),
            to_member_id: cluster.id(target).0,
            last_log_id: None,
        };
        let refused = service(&cluster, target).await.transfer_leader(message).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    goes_on(&cluster, leader, term, "a").await;
}

/// The last entry of a member, and one that would follow it.
fn next(cluster: &Cluster, at: usize, term: u64, id: u64) -> (LogId, LogEntry) {
    let last = cluster.at(at).core().shared.raft.handle().unwrap();
    let last = {
        use openraft::async_runtime::watch::WatchReceiver;
        last.data_metrics().borrow_watched().last_log.unwrap()
    };
    let log_id = LogId::new(LeaderId { term, node_id: id }, last.index + 1);
    (last, LogEntry { log_id, payload: Payload::Blank })
}

fn append(
    cluster: &Cluster,
    to: usize,
    vote: &Vote,
    prev: Option<LogId>,
    entries: &[LogEntry],
) -> proto::AppendEntriesRequest {
    proto::AppendEntriesRequest {
        to: Some(destination(cluster, to)),
        vote: Some(wire::vote_message(vote)),
        prev_log_id: prev.as_ref().map(wire::log_id_message),
        entries: entries.iter().map(wire::entry_message).collect(),
        leader_commit: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_puts_other_entries_in_the_place_of_committed_ones() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (term, id) = (cluster.at(leader).status().term, cluster.id(leader).0);
    let (follower, other) = ((leader + 1) % 3, cluster.id((leader + 2) % 3).0);
    cluster.converged(&[0, 1, 2]).await;
    let (last, _) = next(&cluster, follower, term, id);
    let (before, later) = (LeaderId { term: 0, node_id: id }, LeaderId { term: term + 1, node_id: other });
    let blank = |index| LogEntry { log_id: LogId::new(later, index), payload: Payload::Blank };
    let newer = leads(term + 1, other);
    let cases = [
        // The entry after which those of the call come, as the sitting leader and as a new one have it; and those themselves.
        append(&cluster, follower, &leads(term, id), Some(LogId::new(before, last.index)), &[]),
        append(&cluster, follower, &newer, Some(LogId::new(later, last.index)), &[]),
        append(&cluster, follower, &newer, None, &[blank(0)]),
        append(&cluster, follower, &newer, Some(LogId::new(before, 0)), &[blank(1)]),
    ];
    for message in cases {
        let mut service = service(&cluster, follower).await;
        let refused = service.append_entries(message.clone()).await.unwrap_err();
        let mut answers = service.append_stream(stream::iter([message.clone()])).await.unwrap().into_inner();
        for refused in [refused, answers.message().await.unwrap_err()] {
            assert_eq!(refused.code(), Code::FailedPrecondition, "{message:?}: {refused}");
            let why = "is not the one that is committed at this index";
            assert!(refused.message().contains(why), "{message:?}: {refused}");
        }
    }
    goes_on(&cluster, leader, term, "a").await;
    cluster.converged(&[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_no_leader_sends_change_nothing_and_stop_nobody() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (term, id) = (cluster.at(leader).status().term, cluster.id(leader).0);
    let follower = (leader + 1) % 3;
    cluster.converged(&[0, 1, 2]).await;
    let (last, entry) = next(&cluster, follower, term, id);
    let message = |vote: Vote, prev: LogId, entries: Vec<LogEntry>| {
        append(&cluster, follower, &vote, Some(prev), &entries)
    };
    let at = |index: u64, term: u64| LogEntry {
        log_id: LogId::new(LeaderId { term, node_id: id }, index),
        ..entry.clone()
    };
    let reason = "r".repeat(2 * PROPOSAL_MAX);
    let tenure = Tenure { member: MemberId(id), term, reach: Duration::from_secs(1), released: false };
    let large = Command::TakeVips { tenure, time_ms: 0, reason: reason.into() };
    let large = Payload::Normal(Proposal { origin: None, request: None, command: large }.into());
    let sitting = leads(term, id);
    let cases = [
        ("a hole", message(sitting, last, vec![at(last.index + 2, term)]), Code::InvalidArgument),
        ("a repetition", message(sitting, last, vec![entry.clone(), entry.clone()]), Code::InvalidArgument),
        ("a later term", message(sitting, last, vec![at(last.index + 1, term + 1)]), Code::InvalidArgument),
        ("a term that falls", message(sitting, last, vec![at(last.index + 1, 0)]), Code::InvalidArgument),
        (
            "a huge entry",
            message(sitting, last, vec![LogEntry { payload: large, ..entry.clone() }]),
            Code::InvalidArgument,
        ),
        (
            "no leader's vote",
            message(Vote { committed: false, ..sitting }, last, vec![]),
            Code::InvalidArgument,
        ),
        ("a stranger", message(leads(term + 1, STRANGER), last, vec![]), Code::FailedPrecondition),
    ];
    for (what, message, code) in cases {
        let mut service = service(&cluster, follower).await;
        let refused = service.append_entries(message.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}: {refused}");
        let mut answers = service.append_stream(stream::iter([message])).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}, in a stream: {refused}");
    }
    goes_on(&cluster, leader, term, "a").await;
    cluster.converged(&[0, 1, 2]).await;
}

/// A snapshot as a member would send it, of what it has applied.
fn snapshot_of(cluster: &Cluster, at: usize, add: u64) -> (SnapshotMeta, Vec<u8>) {
    let core = cluster.at(at).core();
    let membership = {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = core.shared.raft.handle().unwrap().server_metrics();
        metrics.borrow_watched().membership_config.as_ref().clone()
    };
    let status = cluster.at(at).status();
    let leader_id = LeaderId { term: status.term, node_id: status.leader.unwrap().0 };
    let last_log_id = Some(LogId::new(leader_id, status.last_log_index + add));
    let machine = trestle_model::Machine::restore(cluster.at(at).view().borrow().state.as_ref().clone(), []);
    let meta = SnapshotMeta { last_log_id, last_membership: membership };
    let payload = snapshot::encode(&meta, &machine).to_vec();
    (meta, payload)
}

fn head(cluster: &Cluster, to: usize, vote: Vote, meta: &SnapshotMeta) -> proto::InstallSnapshotRequest {
    proto::InstallSnapshotRequest {
        to: Some(destination(cluster, to)),
        vote: Some(wire::vote_message(&vote)),
        meta: Some(wire::snapshot_meta_message(meta)),
        chunk: Vec::new(),
    }
}

fn chunk(bytes: Vec<u8>) -> proto::InstallSnapshotRequest {
    proto::InstallSnapshotRequest { chunk: bytes, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_snapshot_is_refused_before_raft_hears_of_it() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (term, id) = (cluster.at(leader).status().term, cluster.id(leader).0);
    let follower = (leader + 1) % 3;
    cluster.converged(&[0, 1, 2]).await;
    let (meta, good) = snapshot_of(&cluster, follower, 10);
    let mut of_others = proto_snapshot(&good);
    of_others.machine.as_mut().unwrap().cluster_id = "ab".repeat(16);
    let beyond = LogId::new(LeaderId { term: term + 1, node_id: id }, 10_000);
    let far = SnapshotMeta { last_log_id: Some(beyond), ..meta.clone() };
    let empty = SnapshotMeta { last_log_id: meta.last_log_id, last_membership: Default::default() };
    let sitting = leads(term, id);
    let cases = [
        ("garbage", sitting, meta.clone(), vec![7; 1000]),
        ("half of it", sitting, meta.clone(), good[..good.len() / 2].to_vec()),
        ("nothing", sitting, meta.clone(), Vec::new()),
        ("another cluster", sitting, meta.clone(), of_others.encode_to_vec()),
        (
            "another description",
            sitting,
            SnapshotMeta {
                last_log_id: Some(LogId::new(meta.last_log_id.unwrap().leader_id, 9_999)),
                ..meta.clone()
            },
            good.clone(),
        ),
        ("beyond its leader", sitting, far, good.clone()),
        ("no voters", sitting, empty, good.clone()),
        ("no leader", Vote { committed: false, ..sitting }, meta.clone(), good.clone()),
        ("far term", leads(term + REACH + 1, id), meta.clone(), good.clone()),
    ];
    for (what, vote, meta, payload) in cases {
        let messages = [head(&cluster, follower, vote, &meta), chunk(payload)];
        let answer = service(&cluster, follower).await.install_snapshot(stream::iter(messages)).await;
        assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument, "{what}");
    }
    let messages = [head(&cluster, follower, leads(term + 1, STRANGER), &meta), chunk(good)];
    let answer = service(&cluster, follower).await.install_snapshot(stream::iter(messages)).await;
    assert_eq!(answer.unwrap_err().code(), Code::FailedPrecondition);
    goes_on(&cluster, leader, term, "a").await;
    cluster.converged(&[0, 1, 2]).await;
}

fn proto_snapshot(bytes: &[u8]) -> trestle_api::storage::Snapshot {
    trestle_api::storage::Snapshot::decode(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_come_one_at_a_time_and_not_for_ever() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (term, id) = (cluster.at(leader).status().term, cluster.id(leader).0);
    let follower = (leader + 1) % 3;
    cluster.converged(&[0, 1, 2]).await;
    let (meta, _) = snapshot_of(&cluster, follower, 10);
    let begun = || stream::iter([head(&cluster, follower, leads(term, id), &meta), chunk(vec![0; 100])]);
    let (mut first, mut second) = (service(&cluster, follower).await, service(&cluster, follower).await);
    // The first one never goes on.
    use futures_util::StreamExt;
    let began = tokio::time::Instant::now();
    let stalled = begun().chain(stream::pending());
    let stalled = tokio::spawn(async move { first.install_snapshot(stalled).await });
    until("the first snapshot", || cluster.at(follower).core().receiving.try_lock().is_err().then_some(()))
        .await;
    let refused = second.install_snapshot(begun()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let ended = tokio::time::timeout(PATIENCE, stalled).await.unwrap().unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended}");
    assert!(began.elapsed() >= Duration::from_secs(10));
    // The place is free again.
    assert_eq!(second.install_snapshot(begun()).await.unwrap_err().code(), Code::InvalidArgument);
    goes_on(&cluster, leader, term, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_clients_ask_for_is_proposed_for_others_and_not_too_much_of_it() {
    let cluster = Cluster::with_timing(3, LONG).await;
    let leader = cluster.leader().await;
    let (term, id) = (cluster.at(leader).status().term, cluster.id(leader));
    let cluster_id = cluster.at(leader).identity().unwrap().cluster_id;
    let applied = cluster.at(leader).view().borrow().applied;
    let tenure = |term| Tenure { member: id, term, reach: Duration::from_secs(1), released: false };
    let take =
        |term, reason: &str| Command::TakeVips { tenure: tenure(term), time_ms: 0, reason: reason.into() };
    let own = [
        take(term, "mine"),
        take(u64::MAX, "for ever"),
        Command::ReleaseVips { member: id, term, time_ms: 0, reason: "r".into() },
        Command::RemoveMember(id),
        Command::AddMember(cluster.spec(0)),
        Command::FoundCluster { cluster_id: cluster_id.clone(), member: cluster.spec(0), identities: None },
    ];
    let address = format!("http://{}", cluster.spec(leader).peer_address);
    let mut peer = PeerServiceClient::connect(address).await.unwrap();
    let message = |command: Command| proto::ProposeRequest {
        cluster_id: cluster_id.to_string(),
        recovery: 0,
        recovery_draw: 0,
        proposal: Some((&proposal(command)).into()),
    };
    for command in own {
        let refused = peer.propose(message(command.clone())).await.unwrap_err();
        assert!(
            matches!(refused.code(), Code::PermissionDenied | Code::InvalidArgument),
            "{command:?}: {refused}"
        );
    }
    // What comes from here is bounded as well.
    let large = take(term, &"r".repeat(PROPOSAL_MAX + 1));
    for refused in [
        cluster.at(leader).propose_in_term(proposal(large.clone()), term, DEFAULT_WAIT).await.unwrap_err(),
        cluster.at(leader).propose_here(proposal(large.clone()), DEFAULT_WAIT).await.unwrap_err(),
        cluster.at(leader).propose(proposal(large), DEFAULT_WAIT).await.unwrap_err(),
    ] {
        assert!(refused.to_string().contains("bytes"), "{refused}");
    }
    assert_eq!(cluster.at(leader).view().borrow().applied, applied, "nothing was written");
    // A tenure of a term that is still to come has no effect, even if it got into the log.
    let early = cluster.at(leader).propose_here(proposal(take(term + 1, "early")), DEFAULT_WAIT).await;
    assert!(early.unwrap_err().to_string().contains("has not begun"));
    assert_eq!(cluster.at(leader).view().borrow().state.tenure, None);
    peer.propose(message(create_pool("b"))).await.unwrap();
    goes_on(&cluster, leader, term, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_notice_counts_only_when_the_leader_confirms_it() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let address = format!("http://{}", cluster.spec(other).peer_address);
    let mut peer = PeerServiceClient::connect(address).await.unwrap();
    let notice = proto::NotifyRemovedRequest { to: Some(destination(&cluster, other)) };
    let refused = peer.notify_removed(notice.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    // Without a leader nobody can confirm it.
    cluster.isolate(other, true);
    let refused = peer.notify_removed(notice.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    cluster.isolate(other, false);
    cluster.leader().await;
    assert!(!cluster.at(other).was_removed());
    let leader = cluster.leader().await;
    let gone = (0..3).find(|at| *at != leader).unwrap();
    let id = cluster.id(gone);
    assert!(matches!(cluster.at(leader).remove(id, None).await.unwrap(), RemovalOutcome::Done { .. }));
    assert!(cluster.at(gone).was_removed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_missed_who_became_one_believes_its_new_leader() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let off = (leader + 1) % 3;
    cluster.stop(off).await;
    let new = cluster.place().await;
    let id = cluster.join(new).await;
    cluster.at(leader).transfer(Some(id)).await.unwrap();
    assert_eq!(cluster.leader().await, new);
    // It knows nothing of the member that leads, and asks the one whom it knows.
    cluster.start(off).await;
    let all = cluster.running();
    cluster.leader_among(&all).await;
    cluster.converged(&all).await;
    // And when nobody whom it knows is there, it takes the only one that calls.
    cluster.stop(off).await;
    let newer = cluster.place().await;
    cluster.join(newer).await;
    let leader = cluster.leader().await;
    cluster.at(leader).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    cluster.start(off).await;
    cluster.converged(&cluster.running()).await;
}
