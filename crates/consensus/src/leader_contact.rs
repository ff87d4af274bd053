//! When this member last heard a leader that it accepted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::raft_types::Vote;
use crate::timing::Timing;

/// A member's memory of its last leader. openraft has one of its own, which a transfer of leadership and a vote for
/// somebody else erase; this one is kept.
pub(crate) struct LeaderContact {
    /// When the process had certainly started.
    since: Instant,
    timing: Timing,
    /// In nanoseconds after `since`; 0 while no leader was heard.
    last: AtomicU64,
    /// Term and id of the leader that was heard last.
    leader: Mutex<Option<(u64, u64)>>,
    /// The latest term in which Raft was asked to help to elect somebody.
    candidate: AtomicU64,
}

impl LeaderContact {
    pub(crate) fn new(since: Instant, timing: Timing) -> Self {
        Self {
            since,
            timing,
            last: AtomicU64::new(0),
            leader: Mutex::default(),
            candidate: AtomicU64::new(0),
        }
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that a leader that this member accepts has just been heard.
    pub(crate) fn note(&self) {
        self.last.fetch_max(self.nanos().max(1), Ordering::AcqRel);
    }

    /// Notes who that leader is.
    pub(crate) fn note_leader(&self, vote: &Vote) {
        let heard = (vote.leader_id.term, vote.leader_id.node_id);
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        *leader = (*leader).max(Some(heard));
        drop(leader);
        self.note();
    }

    /// Notes that this member may help to elect somebody in `term`, before it does.
    pub(crate) fn note_candidate(&self, term: u64) {
        self.candidate.fetch_max(term, Ordering::AcqRel);
    }

    /// Whether this member may have helped to elect somebody in a later term than that.
    pub(crate) fn may_have_helped_after(&self, term: u64) -> bool {
        self.candidate.load(Ordering::Acquire) > term
    }

    /// Term and id of the leader that was heard last, however long ago.
    pub(crate) fn leader(&self) -> Option<(u64, u64)> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the leader: this member begins anew under another id.
    pub(crate) fn forget(&self) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.last.store(0, Ordering::Release);
    }

    fn within(&self, time: Duration) -> bool {
        let last = self.last.load(Ordering::Acquire);
        last > 0 && Duration::from_nanos(self.nanos().saturating_sub(last)) < time
    }

    /// Whether a leader was heard within the time after which a voter may give it up. Raft itself goes on to name the
    /// last leader for as long as it finds no other.
    pub(crate) fn is_recent(&self) -> bool {
        self.within(self.timing.patience())
    }

    /// Whether the last leader may still count on this member not to vote for another one, unless that leader hands over itself.
    pub(crate) fn bars_votes(&self) -> bool {
        self.within(self.timing.election_max)
    }
}
