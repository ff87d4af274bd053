//! A member that has gone mad, or whose key somebody has: what it gets done with a good certificate. The same and more without TLS is
//! in the tests of `crates/consensus`.

use futures_util::stream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::{peer, storage};
use trestle_testkit::{Cluster, wait_until};

use crate::guests::{LIMIT, guest, id, keeps_authorities, leaf, name};
use crate::trestled;

fn vote(term: u64, member_id: u64, committed: bool) -> Option<storage::Vote> {
    Some(storage::Vote { leader: Some(storage::LeaderId { term, member_id }), committed })
}

fn proposal(command: storage::proposal::Command) -> Option<storage::Proposal> {
    Some(storage::Proposal { command: Some(command), ..Default::default() })
}

/// Says what was answered unless it was a refusal.
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let Err(status) = answer else { panic!("{what}: {answer:?}") };
    let codes =
        [Code::PermissionDenied, Code::InvalidArgument, Code::FailedPrecondition, Code::ResourceExhausted];
    assert!(codes.contains(&status.code()), "{what}: {status:?}");
}

/// What speaks for a member in its place, to another one.
struct Impostor {
    raft: RaftServiceClient<Channel>,
    peers: PeerServiceClient<Channel>,
    to: peer::Destination,
    me: u64,
}

impl Impostor {
    /// As a candidate, with the word that leadership is handed to it, and as the leader.
    async fn ask_for_votes(&mut self, term: u64) {
        for far in [term + 1, term + (1 << 33), u64::MAX] {
            let asked = peer::VoteRequest {
                to: Some(self.to.clone()),
                vote: vote(far, self.me, false),
                last_log_id: None,
                leadership_transfer: true,
            };
            let answers = [self.raft.vote(asked.clone()).await, self.raft.pre_vote(asked).await];
            for answer in answers {
                match answer {
                    Ok(answer) => assert!(!answer.into_inner().vote_granted, "term {far} was granted"),
                    answer => refused("a vote", answer),
                }
            }
            if far > term + 1 {
                let append = peer::AppendEntriesRequest {
                    to: Some(self.to.clone()),
                    vote: vote(far, self.me, true),
                    ..Default::default()
                };
                refused("entries", self.raft.append_entries(append).await);
            }
        }
    }

    /// In the name of the member that leads.
    async fn speak_for(&mut self, leader: u64, term: u64) {
        let (to, sitting) = (Some(self.to.clone()), vote(term, leader, true));
        let append = peer::AppendEntriesRequest { to: to.clone(), vote: sitting, ..Default::default() };
        refused("entries in the leader's name", self.raft.append_entries(append).await);
        let snapshot = peer::InstallSnapshotRequest {
            to: to.clone(),
            vote: sitting,
            chunk: vec![7; 1000],
            ..Default::default()
        };
        refused("a snapshot", self.raft.install_snapshot(Request::new(stream::iter([snapshot]))).await);
        let transfer = peer::TransferLeaderRequest {
            to,
            from_leader: vote(term, self.me, true),
            to_member_id: self.to.member_id,
            last_log_id: None,
        };
        refused("a transfer", self.raft.transfer_leader(transfer).await);
    }

    /// What only the leader itself writes, and what others may not ask for.
    async fn propose(&mut self, other: u64) {
        let tenure = storage::Tenure { member_id: self.me, term: u64::MAX, ..Default::default() };
        let take = storage::TakeVips { tenure: Some(tenure), ..Default::default() };
        for (what, command) in [
            ("virtual IPs", storage::proposal::Command::TakeVips(take)),
            ("a removal", storage::proposal::Command::RemoveMember(other)),
            ("a level", storage::proposal::Command::RaiseLevel(99)),
            ("a time", storage::proposal::Command::NoteTime(4_000_000_000_000)),
            ("another authority", storage::proposal::Command::RetireAuthority(1)),
            ("a recovery", storage::proposal::Command::Recover(storage::Recover::default())),
        ] {
            let cluster_id = self.to.cluster_id.clone();
            let asked =
                peer::ProposeRequest { cluster_id, proposal: proposal(command), ..Default::default() };
            refused(what, self.peers.propose(asked).await);
        }
        // Nobody believes it that they were removed.
        let _ = self.peers.notify_removed(peer::NotifyRemovedRequest { to: Some(self.to.clone()) }).await;
        let start = peer::RegisterStartRequest {
            cluster_id: self.to.cluster_id.clone(),
            member_id: self.to.member_id,
            ..Default::default()
        };
        refused("another's start", self.peers.register_start(start).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_members_key_elects_nobody_writes_nothing_and_stops_no_member() {
    let mut cluster = Cluster::start_secure(trestled(), 3).await;
    let leader = cluster.leader().await;
    let (voter, hostile) = ((leader + 1) % 3, (leader + 2) % 3);
    let before = cluster.agreed().await;
    // What speaks for it from now on is this test.
    cluster.members[hostile].kill();
    let (own, me) = (leaf(&cluster.members[hostile]), id(&cluster.members[hostile]));
    let (term, cluster_id) = (before.term, name(&cluster.members[hostile]).cluster.to_string());
    for at in [voter, leader] {
        let to = &cluster.members[at];
        keeps_authorities(to);
        let channel = guest(to, Some(own.clone()));
        let mut impostor = Impostor {
            raft: RaftServiceClient::new(channel.clone()),
            peers: PeerServiceClient::new(channel),
            to: peer::Destination { cluster_id: cluster_id.clone(), member_id: id(to), ..Default::default() },
            me,
        };
        impostor.ask_for_votes(term).await;
        impostor.speak_for(id(&cluster.members[leader]), term).await;
        impostor.propose(id(&cluster.members[voter])).await;
    }
    let api = cluster.api(voter);
    api.create_pool("goes-on", None).await.unwrap();
    let status = wait_until("the same leader", LIMIT, async || {
        let status = api.status().await.map_err(|status| status.to_string())?;
        if status.leader == before.leader { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(status.term, term, "there was an election");
    cluster.members[hostile].start();
    assert_eq!(cluster.agreed().await.members.len(), 3);
}
