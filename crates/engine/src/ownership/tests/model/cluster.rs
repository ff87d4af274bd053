//! The state of the model.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::MemberId;

use super::super::super::{Elected, LeaseTiming, Ownership};
use super::node::Node;

/// One step of the clocks. As long as a retry of the machine, so that every retry can happen.
pub(super) const TICK: Duration = super::super::super::RETRY;

/// The one VIP.
pub(super) fn vip() -> IpAddr {
    IpAddr::from([10, 0, 3, 100])
}

/// A member, counted from 0.
pub(super) type Id = usize;

/// The world that the machines live in, its bounds, and the faults that can be put into it.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) lease: u32,
    pub(super) fence_error: u32,
    /// `election_max`.
    pub(super) refusal: u32,
    /// How long a restarted member takes no part.
    pub(super) quarantine: u32,
    pub(super) terms: u64,
    pub(super) restarts: u8,
    /// Ticks that some member's clock may miss.
    pub(super) drift: u8,
    /// Moves that the operator may ask for.
    pub(super) moves: u8,
    /// Transfers that Raft may begin without asking the machine.
    pub(super) raw_transfers: u8,
    /// Whether a leader whose transfer has not come about may stand again, with votes that disregard promises to itself.
    pub(super) stands_again: bool,
    /// Whether voters keep their promise to the last leader that they heard even when Raft has forgotten it, but for the
    /// votes that a transfer asks for.
    pub(super) voters_remember: bool,
    /// Whether answers to heartbeats are under way for a while.
    pub(super) slow_answers: bool,
    /// Whether a machine may hear of answers and of the log after its Raft was deposed, and before it hears of that.
    pub(super) split_news: bool,
    /// Whether the VIP is held on to when the quorum is lost.
    pub(super) hold: bool,
    pub(super) bug: Option<Bug>,
}

/// A mistake put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The lease counts from now on whenever Raft says that this member leads.
    ServeWhileLeader,
    /// The lease counts from the arrival of the answer, not from the sending of the heartbeat.
    LeaseFromAnswer,
    /// A leader elected by a transfer takes itself for elected by time-out.
    TransferUnseen,
    /// Nothing but the daemon shuts the fence.
    FenceStays,
    /// Votes are given while the fence is open.
    VoteWhileOpen,
    /// A vote that was given is forgotten by the machine.
    VoteForgotten,
    /// The time left is worked out before a pause and armed after it.
    ArmedLate,
}

/// Order of openraft's votes: by term, then by member; so two members may lead in one term.
pub(super) type Vote = (u64, Id);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Blank,
    Take,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Follower,
    /// Has one vote, its own; the second makes it the leader.
    Candidate(Elected),
    Leader(Elected),
    /// A leader that has begun a transfer: it sends nothing more.
    Parting(Elected),
}

impl Role {
    pub(super) fn leads(self) -> Option<Elected> {
        match self {
            Role::Leader(elected) | Role::Parting(elected) => Some(elected),
            Role::Follower | Role::Candidate(_) => None,
        }
    }
}

/// The answer to a heartbeat, under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) leader: Id,
    pub(super) vote: Vote,
    /// On the leader's clock.
    pub(super) sent: u32,
    pub(super) length: usize,
}

/// Word of a transfer, under way to one voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Notice {
    pub(super) vote: Vote,
    pub(super) to: Id,
    /// Who is to stand for election.
    pub(super) successor: Id,
    pub(super) length: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Shared with other states until one changes: most steps touch one member.
    pub(super) nodes: [Arc<Node>; 3],
    pub(super) answers: Vec<Answer>,
    pub(super) notices: Vec<Notice>,
    pub(super) restarts: u8,
    pub(super) drift: u8,
    pub(super) moves: u8,
    pub(super) raw_transfers: u8,
}

pub(super) fn member(id: Id) -> MemberId {
    MemberId(id as u64 + 1)
}

impl World {
    pub(super) fn lease(&self) -> LeaseTiming {
        LeaseTiming {
            length: TICK * self.lease,
            fence_error: TICK * self.fence_error,
            vote_refusal: TICK * self.refusal,
        }
    }

    /// Member 0 leads in term 1; everybody has its first entry, and nobody has heard it for long.
    pub(super) fn start(&self) -> Cluster {
        let node = |id: Id| {
            let mut node = Node {
                clock: 100,
                vote: (1, 0),
                role: if id == 0 { Role::Leader(Elected::ByTimeout) } else { Role::Follower },
                refuses: 0,
                remembers: 0,
                quiet: 0,
                log: vec![((1, 0), Entry::Blank)],
                committed: 1,
                acked: None,
                published: None,
                split_news: self.split_news,
                machine: Ownership::new(member(id), self.lease()),
                fence: None,
                arming: None,
            };
            node.begin(id, self);
            Arc::new(node)
        };
        Cluster {
            nodes: [node(0), node(1), node(2)],
            answers: Vec::new(),
            notices: Vec::new(),
            restarts: self.restarts,
            drift: self.drift,
            moves: self.moves,
            raw_transfers: self.raw_transfers,
        }
    }
}

impl Cluster {
    pub(super) fn node(&mut self, id: Id) -> &mut Node {
        Arc::make_mut(&mut self.nodes[id])
    }
}

impl Hash for Cluster {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.hash(state);
        self.answers.len().hash(state);
        for answer in &self.answers {
            let age = self.nodes[answer.leader].clock - answer.sent;
            (answer.leader, answer.vote, age, answer.length).hash(state);
        }
        self.notices.hash(state);
        (self.restarts, self.drift, self.moves, self.raw_transfers).hash(state);
    }
}

/// Alike to the checker, which keeps states by their hash.
impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        let digest = |cluster: &Self| {
            let mut hasher = DefaultHasher::new();
            cluster.hash(&mut hasher);
            hasher.finish()
        };
        digest(self) == digest(other)
    }
}
