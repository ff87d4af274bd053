//! What this member says of its own part in Raft.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::SerdeInstant;
use openraft::{Instant as _, ServerState};
use openraft_rt_tokio::TokioInstant;
use trestle_model::MemberId;

use crate::replica::RaftHandle;

/// A member's part in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RaftState {
    /// Belongs to no cluster yet.
    #[default]
    Empty,
    /// Belongs to a cluster, and waits until every promise that it may have given before it restarted has run out.
    Starting,
    /// Gets the log and does not vote.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads. An isolated leader says so too until it hears otherwise: trust the time of the last quorum, not this.
    Leader,
    /// Was removed from its cluster.
    Removed,
    /// Has stopped.
    Stopped,
}

impl RaftState {
    /// The state in a word of lower-case letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            RaftState::Empty => "empty",
            RaftState::Starting => "starting",
            RaftState::Learner => "learner",
            RaftState::Follower => "follower",
            RaftState::Candidate => "candidate",
            RaftState::Leader => "leader",
            RaftState::Removed => "removed",
            RaftState::Stopped => "stopped",
        }
    }
}

/// The part of the status that changes rarely; see [`crate::Consensus::role`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftRole {
    /// This member's part.
    pub state: RaftState,
    /// Its term.
    pub term: u64,
    /// The leader, if it leads itself or has heard one lately, and where that is reached by its peers.
    pub leader: Option<(MemberId, String)>,
    /// The voters, each with its peer address.
    pub voters: BTreeMap<MemberId, String>,
    /// The learners, each with its peer address.
    pub learners: BTreeMap<MemberId, String>,
    /// True while a change of voters is half done: both the old and the new ones must agree to everything.
    pub joint: bool,
}

impl RaftRole {
    /// Where a member is reached by its peers.
    pub fn address_of(&self, id: MemberId) -> Option<&str> {
        self.voters.get(&id).or_else(|| self.learners.get(&id)).map(String::as_str)
    }
}

/// A moment's view of Raft on this member.
#[derive(Debug, Clone, Default)]
pub struct RaftStatus {
    /// This member's part.
    pub state: RaftState,
    /// Its term.
    pub term: u64,
    /// The leader, if it leads itself or has heard one lately.
    pub leader: Option<MemberId>,
    /// Index of the last entry of its log; 0 if there is none.
    pub last_log_index: u64,
    /// Index of the last entry that it knows to be committed; 0 if there is none.
    pub committed: u64,
    /// Index of the last entry that it has applied; 0 if there is none.
    pub applied: u64,
    /// The voters.
    pub voters: BTreeSet<MemberId>,
    /// The learners.
    pub learners: BTreeSet<MemberId>,
    /// On a leader: when the newest call left that a quorum has acknowledged since.
    pub last_quorum_ack: Option<Instant>,
    /// On a leader: index up to which each other member has its log.
    pub matched: BTreeMap<MemberId, u64>,
    /// On a leader: when the newest call left that each other member has acknowledged since.
    pub heard: BTreeMap<MemberId, Instant>,
}

pub(crate) fn raft_state(state: ServerState) -> RaftState {
    match state {
        ServerState::Learner => RaftState::Learner,
        ServerState::Follower => RaftState::Follower,
        ServerState::Candidate => RaftState::Candidate,
        ServerState::Leader => RaftState::Leader,
        ServerState::Shutdown => RaftState::Stopped,
    }
}

/// What openraft's metrics say now.
pub(crate) fn of_raft(raft: &RaftHandle) -> RaftStatus {
    let receiver = raft.metrics();
    // The guard blocks Raft while it lives, so take what is needed and let go.
    let m = receiver.borrow_watched();
    let ids = |ids: &mut dyn Iterator<Item = u64>| ids.map(MemberId).collect::<BTreeSet<_>>();
    let membership = m.membership_config.membership();
    let voters = ids(&mut membership.voter_ids());
    let me = MemberId(m.id);
    let leads = m.state == ServerState::Leader;
    let alone = leads && voters.len() == 1 && voters.contains(&me);
    // Taken before the ages are, so that a time comes out too early if anything, never too late.
    let now = Instant::now();
    let since = |at: SerdeInstant<TokioInstant>| now.checked_sub(at.elapsed()).unwrap_or(now);
    let acked = m.last_quorum_acked.map(since);
    let others = |id: &u64| *id != me.0;
    let matched = m.replication.iter().flatten().filter(|(id, _)| others(id));
    let heard = m.heartbeat.iter().flatten().filter(|(id, _)| others(id));
    RaftStatus {
        state: raft_state(m.state),
        term: m.current_term,
        leader: m.current_leader.map(MemberId),
        last_log_index: m.last_log_index.unwrap_or(0),
        committed: m.local_committed.map_or(0, |id| id.index),
        applied: m.last_applied.map_or(0, |id| id.index),
        learners: ids(&mut membership.learner_ids()),
        // A lone voter is its own quorum at any time.
        last_quorum_ack: if alone { Some(Instant::now()) } else { acked.filter(|_| leads) },
        matched: matched.map(|(id, at)| (MemberId(*id), at.map_or(0, |at| at.index))).collect(),
        heard: heard.filter_map(|(id, at)| Some((MemberId(*id), since((*at)?)))).collect(),
        voters,
    }
}
