//! Whether this member leads, how it came to it, and when a quorum last confirmed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use tokio::sync::{Notify, watch};

use crate::raft_types::{TypeConfig, Vote};
use crate::replica::RaftHandle;

/// This member's leadership; see [`crate::Consensus::leadership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term in which it leads, if it does by Raft's word. An isolated leader says so until it hears otherwise.
    pub leads: Option<LeaderTerm>,
}

/// A leader's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderTerm {
    /// The term.
    pub term: u64,
    /// Whether its call for votes told the voters that the leader before wished it; also when that is not known.
    pub by_transfer: bool,
    /// Whether it asked nobody for a vote in this term: it founded the cluster, or was its only voter.
    pub alone: bool,
    /// Whether this leader has begun to hand leadership over, for whatever reason. Never taken back in the same term.
    pub transferring: bool,
    /// When the last call left that a quorum of the voters has answered in this term, or a little earlier; `None` before the
    /// first one. For a lone voter the present, renewed with each heartbeat interval.
    pub quorum_acked: Option<Instant>,
}

impl LeaderTerm {
    /// Whether nobody else can have been elected: a quorum has answered a call that left less than `lease` ago, and no voter
    /// was told to stand.
    pub fn is_safe(&self, lease: Duration) -> bool {
        !self.transferring && self.quorum_acked.is_some_and(|sent| sent.elapsed() < lease)
    }
}

/// Keeps the leadership up to date with Raft's reports and with the other members' answers as they arrive.
///
/// openraft's own figure (`last_quorum_acked`) is not used: when an append is answered, it credits the sending time of
/// every later request on that stream that ends at the same entry, such as the announcement of a commit, although the
/// member may never have got that one (`InflightAppendQueue::drain_acked`).
pub(crate) struct QuorumTracker {
    state: Mutex<TrackerState>,
    leadership: watch::Sender<Leadership>,
    /// Woken when the chosen member refuses to take over.
    refusal: Notify,
}

#[derive(Default)]
struct TrackerState {
    leader: Option<LeaderConfig>,
    /// The term of the answers, and when the last call left that each member has answered in it.
    answered: (u64, BTreeMap<u64, Instant>),
    /// The last term for which this member called for votes, and whether the call said that the leader wished it.
    called: (u64, bool),
    /// The last term in which this member began to hand leadership over, and to whom.
    transferred: (u64, u64),
    /// The last term in which the member that was to lead refused to.
    refused: u64,
    /// The last term in which this member stands again, because nobody took over.
    reelection: u64,
}

/// A leader as Raft reports it, with the voters: one set, or two while they change.
#[derive(PartialEq, Eq)]
pub(crate) struct LeaderConfig {
    me: u64,
    term: u64,
    voters: Vec<BTreeSet<u64>>,
}

impl LeaderConfig {
    /// Whether the leader is its own quorum.
    fn is_alone(&self) -> bool {
        self.voters.iter().all(|set| set.len() == 1 && set.contains(&self.me))
    }

    fn of(metrics: &RaftMetrics<TypeConfig>) -> Option<Self> {
        let voters = || metrics.membership_config.membership().get_joint_config().clone();
        let leads = metrics.state == ServerState::Leader;
        leads.then(|| Self { me: metrics.id, term: metrics.current_term, voters: voters() })
    }

    /// When the last call left that a quorum has answered. The leader's own answer is always there.
    fn acked(&self, answered: &BTreeMap<u64, Instant>, now: Instant) -> Option<Instant> {
        let by = |id: &u64| if *id == self.me { Some(now) } else { answered.get(id).copied() };
        let of_set = |voters: &BTreeSet<u64>| {
            let mut times: Vec<Instant> = voters.iter().filter_map(by).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            times.get(voters.len() / 2).copied()
        };
        let sets: Option<Vec<Instant>> = self.voters.iter().map(of_set).collect();
        sets?.into_iter().min()
    }
}

impl TrackerState {
    fn leadership(&self) -> Leadership {
        let Some(leader) = &self.leader else { return Leadership::default() };
        let none = BTreeMap::new();
        let (term, answers) = &self.answered;
        let answers = if *term == leader.term { answers } else { &none };
        Leadership {
            leads: Some(LeaderTerm {
                term: leader.term,
                by_transfer: self.called != (leader.term, false),
                alone: self.called.0 != leader.term,
                transferring: self.transferred.0 == leader.term,
                quorum_acked: leader.acked(answers, Instant::now()),
            }),
        }
    }
}

impl QuorumTracker {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            leadership: watch::Sender::new(Leadership::default()),
            refusal: Notify::new(),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, TrackerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the leadership that follows from the state, before anyone else can change it.
    fn publish(&self, state: &TrackerState) {
        let new = state.leadership();
        self.leadership.send_if_modified(|leadership| std::mem::replace(leadership, new) != new);
    }

    fn set_leader(&self, leader: Option<LeaderConfig>) {
        let mut state = self.state();
        state.leader = leader;
        self.publish(&state);
    }

    /// Notes that `member` has answered, and believed, a call of this member as the leader by `vote` that left at `sent`.
    pub(crate) fn record_ack(&self, vote: &Vote, member: u64, sent: Instant) {
        let mut state = self.state();
        let term = vote.leader_id.term;
        if state.answered.0 < term {
            state.answered = (term, BTreeMap::new());
        }
        if state.answered.0 == term {
            let last = state.answered.1.entry(member).or_insert(sent);
            *last = sent.max(*last);
            self.publish(&state);
        }
    }

    /// Notes a call for votes before it leaves.
    pub(crate) fn record_vote_request(&self, vote: &Vote, by_transfer: bool) {
        let mut state = self.state();
        let term = vote.leader_id.term;
        if state.called.0 <= term {
            state.called = (term, by_transfer || state.called == (term, true));
            self.publish(&state);
        }
    }

    /// Notes that leadership is handed over to the member `to`, before any member is told.
    pub(crate) fn record_transfer(&self, vote: &Vote, to: u64) {
        let mut state = self.state();
        if state.transferred.0 <= vote.leader_id.term {
            state.transferred = (vote.leader_id.term, to);
        }
        self.publish(&state);
    }

    /// Whether this member began in `term` to hand leadership to the member `to`.
    pub(crate) fn is_transferring_to(&self, term: u64, to: u64) -> bool {
        self.state().transferred == (term, to)
    }

    /// The last term in which this member began to hand leadership over, and to whom.
    pub(crate) fn last_transfer(&self) -> (u64, u64) {
        self.state().transferred
    }

    /// Forgets everything: this member begins anew, under another id.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        *state = TrackerState::default();
        self.publish(&state);
    }

    /// Notes that the member that was to take over does not: it refused, or it cannot be reached.
    pub(crate) fn record_transfer_refusal(&self, vote: &Vote) {
        let mut state = self.state();
        state.refused = state.refused.max(vote.leader_id.term);
        drop(state);
        self.refusal.notify_waiters();
    }

    /// Waits until the chosen member has refused to take over from this leader of `term`.
    pub(crate) async fn transfer_refused(&self, term: u64) {
        loop {
            let refusal = self.refusal.notified();
            if self.state().refused >= term {
                return;
            }
            refusal.await;
        }
    }

    /// Notes that this member is about to stand for election in `term` because nobody took over from it.
    pub(crate) fn record_reelection(&self, term: u64) {
        let mut state = self.state();
        state.reelection = state.reelection.max(term);
    }

    /// Whether this member, which led in `term`, has stood for election again because nobody took over.
    pub(crate) fn was_reelected_after(&self, term: u64) -> bool {
        self.state().reelection == term.saturating_add(2)
    }

    /// Whether a vote request belongs to that election. Nobody else leads, so the voters may disregard this member's own lease.
    pub(crate) fn is_reelection(&self, vote: &Vote) -> bool {
        self.state().reelection == vote.leader_id.term
    }
}

/// Whether both were reported together, or the first one later. openraft sends the second one first, and only when
/// something in it has changed.
fn as_new(all: &RaftMetrics<TypeConfig>, server: &RaftServerMetrics<TypeConfig>) -> bool {
    let membership = all.membership_config.log_id() == server.membership_config.log_id();
    membership
        && (all.state, all.vote, all.current_leader) == (server.state, server.vote, server.current_leader)
}

/// Follows `raft`'s word on who leads until it ends.
pub(crate) async fn track_leadership(
    quorum: Arc<QuorumTracker>,
    heartbeat: Duration,
    raft: RaftHandle,
    is_ended: watch::Receiver<bool>,
) {
    let (mut all, mut server) = (raft.metrics(), raft.server_metrics());
    drop(raft);
    loop {
        // Of the term only the large report has the newest one, and the small one says when that is worth a look.
        let small = server.borrow_and_update().clone();
        let leader = {
            let all = all.borrow_and_update();
            as_new(&all, &small).then(|| LeaderConfig::of(&all))
        };
        let behind = leader.is_none();
        let alone = leader.as_ref().is_some_and(|leader| leader.as_ref().is_some_and(LeaderConfig::is_alone));
        if *is_ended.borrow() {
            break;
        }
        if let Some(leader) = leader {
            quorum.set_leader(leader);
        }
        let ended = tokio::select! {
            changed = server.changed() => changed.is_err(),
            changed = all.changed(), if behind => changed.is_err(),
            // A lone voter hears no answers, and is its own quorum.
            () = tokio::time::sleep(heartbeat), if alone => false,
        };
        if ended {
            break;
        }
    }
    quorum.set_leader(None);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::raft_types::LeaderId;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId { term, node_id: 1 }, committed: true }
    }

    fn leader(term: u64, voters: &[&[u64]]) -> Option<LeaderConfig> {
        Some(LeaderConfig {
            me: 1,
            term,
            voters: voters.iter().map(|set| set.iter().copied().collect()).collect(),
        })
    }

    fn acked(quorum: &QuorumTracker) -> Option<Instant> {
        quorum.leadership.borrow().leads.unwrap().quorum_acked
    }

    #[test]
    fn a_quorum_is_as_old_as_the_answer_that_completes_it() {
        let (quorum, start) = (QuorumTracker::new(), Instant::now());
        let at = |millis: u64| start.checked_sub(Duration::from_millis(1000 - millis)).unwrap();
        quorum.set_leader(leader(2, &[&[1, 2, 3, 4, 5]]));
        quorum.record_ack(&vote(2), 2, at(900));
        assert_eq!(acked(&quorum), None);
        quorum.record_ack(&vote(2), 3, at(500));
        assert_eq!(acked(&quorum), Some(at(500)));
        // Older than what is known already.
        quorum.record_ack(&vote(2), 3, at(400));
        assert_eq!(acked(&quorum), Some(at(500)));
        // A learner does not count until it votes, and both sets of a change must agree.
        quorum.record_ack(&vote(2), 9, at(800));
        assert_eq!(acked(&quorum), Some(at(500)));
        quorum.set_leader(leader(2, &[&[1, 2, 9], &[1, 2, 3, 4, 5]]));
        assert_eq!(acked(&quorum), Some(at(500)));
        quorum.set_leader(leader(2, &[&[1, 2, 9]]));
        assert_eq!(acked(&quorum), Some(at(900)));
        // Not among the voters, the leader's own answer is none.
        quorum.set_leader(leader(2, &[&[2, 9]]));
        assert_eq!(acked(&quorum), Some(at(800)));
    }

    #[test]
    fn a_leader_is_safe_while_an_answer_is_young_and_it_hands_nothing_over() {
        let (quorum, lease) = (QuorumTracker::new(), Duration::from_secs(500));
        let is_safe = || quorum.leadership.borrow().leads.unwrap().is_safe(lease);
        quorum.set_leader(leader(2, &[&[1, 2, 3]]));
        assert!(!is_safe());
        quorum.record_ack(&vote(2), 2, Instant::now().checked_sub(2 * lease).unwrap());
        assert!(!is_safe());
        quorum.record_ack(&vote(2), 3, Instant::now().checked_sub(lease / 2).unwrap());
        assert!(is_safe());
        quorum.record_transfer(&vote(2), 3);
        assert!(!is_safe());
        assert!(
            quorum.is_transferring_to(2, 3)
                && !quorum.is_transferring_to(2, 2)
                && !quorum.is_transferring_to(3, 3)
        );
    }

    #[test]
    fn each_term_starts_from_nothing() {
        let (quorum, sent) = (QuorumTracker::new(), Instant::now());
        quorum.set_leader(leader(2, &[&[1, 2, 3]]));
        quorum.record_ack(&vote(2), 2, sent);
        assert_eq!(acked(&quorum), Some(sent));
        quorum.set_leader(leader(4, &[&[1, 2, 3]]));
        assert_eq!(acked(&quorum), None);
        // Answers to calls of the term before come late.
        quorum.record_ack(&vote(2), 3, Instant::now());
        assert_eq!(acked(&quorum), None);
        quorum.record_ack(&vote(4), 3, sent);
        quorum.record_ack(&vote(2), 2, Instant::now());
        assert_eq!(acked(&quorum), Some(sent));
        quorum.set_leader(None);
        assert_eq!(*quorum.leadership.borrow(), Leadership::default());
    }

    #[test]
    fn an_election_that_is_not_known_to_be_plain_was_a_transfer() {
        let quorum = QuorumTracker::new();
        let by_transfer = |term| {
            quorum.set_leader(leader(term, &[&[1, 2, 3]]));
            quorum.leadership.borrow().leads.unwrap().by_transfer
        };
        assert!(by_transfer(2));
        quorum.record_vote_request(&vote(3), false);
        assert!(!by_transfer(3));
        assert!(by_transfer(4));
        quorum.record_vote_request(&vote(5), true);
        quorum.record_vote_request(&vote(5), false);
        quorum.record_vote_request(&vote(3), false);
        assert!(by_transfer(5));
        quorum.record_transfer(&vote(4), 2);
        assert!(!quorum.leadership.borrow().leads.unwrap().transferring);
        quorum.record_transfer(&vote(5), 2);
        assert!(quorum.leadership.borrow().leads.unwrap().transferring);
    }
}
