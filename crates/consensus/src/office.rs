//! Whether this member leads, how it came to it, and when a quorum last confirmed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use tokio::sync::{Notify, watch};

use crate::raft_types::{TypeConfig, Vote};
use crate::shared::{Core, RaftHandle};

/// This member's leadership; see [`crate::Consensus::office`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Office {
    /// The term in which it leads, if it does by Raft's word. An isolated leader says so until it hears otherwise.
    pub leads: Option<Leads>,
}

/// A leader's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leads {
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

impl Leads {
    /// Whether nobody else can have been elected: a quorum has answered a call that left less than `lease` ago, and no voter
    /// was told to stand.
    pub(crate) fn is_safe(&self, lease: Duration) -> bool {
        !self.transferring && self.quorum_acked.is_some_and(|sent| sent.elapsed() < lease)
    }
}

/// Keeps the office up to date with Raft's word and with the answers of the others as they arrive.
///
/// openraft's own figure (`last_quorum_acked`) is not used: when an append is answered, it credits the sending time of
/// every later request on that stream that ends at the same entry, such as the announcement of a commit, although the
/// member may never have got that one (`InflightAppendQueue::drain_acked`).
pub(crate) struct Registry {
    books: Mutex<Books>,
    office: watch::Sender<Office>,
    /// Woken when somebody refuses to take over.
    refusal: Notify,
}

#[derive(Default)]
struct Books {
    seat: Option<Seat>,
    /// The term of the answers, and when the last call left that each member has answered in it.
    answered: (u64, BTreeMap<u64, Instant>),
    /// The last term for which this member called for votes, and whether the call said that the leader wished it.
    called: (u64, bool),
    /// The last term in which this member began to hand leadership over, and to whom.
    transferred: (u64, u64),
    /// The last term in which the member that was to lead refused to.
    refused: u64,
    /// The last term in which this member stands again, because nobody took over.
    again: u64,
}

/// A leader by Raft's word, and who votes: one set, or two while they change.
#[derive(PartialEq, Eq)]
pub(crate) struct Seat {
    me: u64,
    term: u64,
    voters: Vec<BTreeSet<u64>>,
}

impl Seat {
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

impl Books {
    fn office(&self) -> Office {
        let Some(seat) = &self.seat else { return Office::default() };
        let none = BTreeMap::new();
        let (term, answers) = &self.answered;
        let answers = if *term == seat.term { answers } else { &none };
        Office {
            leads: Some(Leads {
                term: seat.term,
                by_transfer: self.called != (seat.term, false),
                alone: self.called.0 != seat.term,
                transferring: self.transferred.0 == seat.term,
                quorum_acked: seat.acked(answers, Instant::now()),
            }),
        }
    }
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            books: Mutex::default(),
            office: watch::Sender::new(Office::default()),
            refusal: Notify::new(),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Office> {
        self.office.subscribe()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what the books say, before anyone else can change them.
    fn publish(&self, books: &Books) {
        let new = books.office();
        self.office.send_if_modified(|office| std::mem::replace(office, new) != new);
    }

    fn seat(&self, seat: Option<Seat>) {
        let mut books = self.books();
        books.seat = seat;
        self.publish(&books);
    }

    /// Notes that `member` has answered, and believed, a call of this member as the leader by `vote` that left at `sent`.
    pub(crate) fn answered(&self, vote: &Vote, member: u64, sent: Instant) {
        let mut books = self.books();
        let term = vote.leader_id.term;
        if books.answered.0 < term {
            books.answered = (term, BTreeMap::new());
        }
        if books.answered.0 == term {
            let last = books.answered.1.entry(member).or_insert(sent);
            *last = sent.max(*last);
            self.publish(&books);
        }
    }

    /// Notes a call for votes before it leaves.
    pub(crate) fn calls(&self, vote: &Vote, by_transfer: bool) {
        let mut books = self.books();
        let term = vote.leader_id.term;
        if books.called.0 <= term {
            books.called = (term, by_transfer || books.called == (term, true));
            self.publish(&books);
        }
    }

    /// Notes that leadership is handed over to the member `to`, before any member is told.
    pub(crate) fn transfers(&self, vote: &Vote, to: u64) {
        let mut books = self.books();
        if books.transferred.0 <= vote.leader_id.term {
            books.transferred = (vote.leader_id.term, to);
        }
        self.publish(&books);
    }

    /// Whether this member began in `term` to hand leadership to the member `to`.
    pub(crate) fn hands_over(&self, term: u64, to: u64) -> bool {
        self.books().transferred == (term, to)
    }

    /// The last term in which this member began to hand leadership over, and to whom.
    pub(crate) fn handed_over(&self) -> (u64, u64) {
        self.books().transferred
    }

    /// Forgets everything: this member begins anew, under another id.
    pub(crate) fn forget(&self) {
        let mut books = self.books();
        *books = Books::default();
        self.publish(&books);
    }

    /// Notes that the member that was to lead after this one does not, as it says or because it cannot be reached.
    pub(crate) fn refused(&self, vote: &Vote) {
        let mut books = self.books();
        books.refused = books.refused.max(vote.leader_id.term);
        drop(books);
        self.refusal.notify_waiters();
    }

    /// Waits until somebody has refused to take over from this member as the leader of `term`.
    pub(crate) async fn refusal(&self, term: u64) {
        loop {
            let refusal = self.refusal.notified();
            if self.books().refused >= term {
                return;
            }
            refusal.await;
        }
    }

    /// Notes that this member is about to stand in `term` because nobody took over from it.
    pub(crate) fn stand_again(&self, term: u64) {
        let mut books = self.books();
        books.again = books.again.max(term);
    }

    /// Whether this member, which led in `term`, has stood again because nobody took over.
    pub(crate) fn has_stood_again(&self, term: u64) -> bool {
        self.books().again == term.saturating_add(2)
    }

    /// Whether this call for votes is that one. Nobody else leads, and the promises to this member are its own to disregard.
    pub(crate) fn stands_again(&self, vote: &Vote) -> bool {
        self.books().again == vote.leader_id.term
    }
}

/// Whether both were reported together, or the first one later. openraft sends the second one first, and only when
/// something in it has changed.
fn as_new(all: &RaftMetrics<TypeConfig>, server: &RaftServerMetrics<TypeConfig>) -> bool {
    let membership = all.membership_config.log_id() == server.membership_config.log_id();
    membership
        && (all.state, all.vote, all.current_leader) == (server.state, server.vote, server.current_leader)
}

impl Core {
    /// Follows `raft`'s word on who leads until it ends.
    pub(crate) async fn attend(self: Arc<Self>, raft: RaftHandle, is_ended: watch::Receiver<bool>) {
        let (mut all, mut server) = (raft.metrics(), raft.server_metrics());
        drop(raft);
        loop {
            // Of the term only the large report has the newest one, and the small one says when that is worth a look.
            let small = server.borrow_and_update().clone();
            let seat = {
                let all = all.borrow_and_update();
                as_new(&all, &small).then(|| Seat::of(&all))
            };
            let behind = seat.is_none();
            if *is_ended.borrow() {
                break;
            }
            if let Some(seat) = seat {
                self.registry.seat(seat);
            }
            let ended = tokio::select! {
                changed = server.changed() => changed.is_err(),
                changed = all.changed(), if behind => changed.is_err(),
                // A lone voter hears no answers, and is its own quorum.
                () = tokio::time::sleep(self.settings.timing.heartbeat) => false,
            };
            if ended {
                break;
            }
        }
        self.registry.seat(None);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::raft_types::LeaderId;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId { term, node_id: 1 }, committed: true }
    }

    fn seat(term: u64, voters: &[&[u64]]) -> Option<Seat> {
        Some(Seat { me: 1, term, voters: voters.iter().map(|set| set.iter().copied().collect()).collect() })
    }

    fn acked(registry: &Registry) -> Option<Instant> {
        registry.office.borrow().leads.unwrap().quorum_acked
    }

    #[test]
    fn a_quorum_is_as_old_as_the_answer_that_completes_it() {
        let (registry, start) = (Registry::new(), Instant::now());
        let at = |millis: u64| start.checked_sub(Duration::from_millis(1000 - millis)).unwrap();
        registry.seat(seat(2, &[&[1, 2, 3, 4, 5]]));
        registry.answered(&vote(2), 2, at(900));
        assert_eq!(acked(&registry), None);
        registry.answered(&vote(2), 3, at(500));
        assert_eq!(acked(&registry), Some(at(500)));
        // Older than what is known already.
        registry.answered(&vote(2), 3, at(400));
        assert_eq!(acked(&registry), Some(at(500)));
        // A learner does not count until it votes, and both sets of a change must agree.
        registry.answered(&vote(2), 9, at(800));
        assert_eq!(acked(&registry), Some(at(500)));
        registry.seat(seat(2, &[&[1, 2, 9], &[1, 2, 3, 4, 5]]));
        assert_eq!(acked(&registry), Some(at(500)));
        registry.seat(seat(2, &[&[1, 2, 9]]));
        assert_eq!(acked(&registry), Some(at(900)));
        // Not among the voters, the leader's own answer is none.
        registry.seat(seat(2, &[&[2, 9]]));
        assert_eq!(acked(&registry), Some(at(800)));
    }

    #[test]
    fn a_leader_is_safe_while_an_answer_is_young_and_it_hands_nothing_over() {
        let (registry, lease) = (Registry::new(), Duration::from_secs(500));
        let is_safe = || registry.office.borrow().leads.unwrap().is_safe(lease);
        registry.seat(seat(2, &[&[1, 2, 3]]));
        assert!(!is_safe());
        registry.answered(&vote(2), 2, Instant::now().checked_sub(2 * lease).unwrap());
        assert!(!is_safe());
        registry.answered(&vote(2), 3, Instant::now().checked_sub(lease / 2).unwrap());
        assert!(is_safe());
        registry.transfers(&vote(2), 3);
        assert!(!is_safe());
        assert!(registry.hands_over(2, 3) && !registry.hands_over(2, 2) && !registry.hands_over(3, 3));
    }

    #[test]
    fn each_term_starts_from_nothing() {
        let (registry, sent) = (Registry::new(), Instant::now());
        registry.seat(seat(2, &[&[1, 2, 3]]));
        registry.answered(&vote(2), 2, sent);
        assert_eq!(acked(&registry), Some(sent));
        registry.seat(seat(4, &[&[1, 2, 3]]));
        assert_eq!(acked(&registry), None);
        // Answers to calls of the term before come late.
        registry.answered(&vote(2), 3, Instant::now());
        assert_eq!(acked(&registry), None);
        registry.answered(&vote(4), 3, sent);
        registry.answered(&vote(2), 2, Instant::now());
        assert_eq!(acked(&registry), Some(sent));
        registry.seat(None);
        assert_eq!(*registry.office.borrow(), Office::default());
    }

    #[test]
    fn an_election_that_is_not_known_to_be_plain_was_a_transfer() {
        let registry = Registry::new();
        let by_transfer = |term| {
            registry.seat(seat(term, &[&[1, 2, 3]]));
            registry.office.borrow().leads.unwrap().by_transfer
        };
        assert!(by_transfer(2));
        registry.calls(&vote(3), false);
        assert!(!by_transfer(3));
        assert!(by_transfer(4));
        registry.calls(&vote(5), true);
        registry.calls(&vote(5), false);
        registry.calls(&vote(3), false);
        assert!(by_transfer(5));
        registry.transfers(&vote(4), 2);
        assert!(!registry.office.borrow().leads.unwrap().transferring);
        registry.transfers(&vote(5), 2);
        assert!(registry.office.borrow().leads.unwrap().transferring);
    }
}
