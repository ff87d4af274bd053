//! Asks the rest of the program whether this member may vote, and reports the outcome.

use std::sync::Arc;

/// Says whether this member may help to elect a leader. Raft refuses a vote only while it remembers a leader's lease; this
/// is for what else a vote could put at risk. Both calls are made on Raft's own threads and must answer at once.
pub trait VoteGuard: Send + Sync + 'static {
    /// Whether this member may give its vote to a candidate for `term` now. Asked before each call for a vote is handed to
    /// Raft, not for pre-votes, which bind nobody.
    fn may_vote(&self, term: u64) -> bool;

    /// What Raft made of a call for `term` that [`may_vote`](Self::may_vote) let through: told once for each yes, also when
    /// the caller has gone. What is not known counts as granted.
    fn voted(&self, term: u64, granted: bool);
}

/// The vote guard of a member that has nothing to lose by a vote: it allows every vote.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAllVotes;

impl VoteGuard for AllowAllVotes {
    fn may_vote(&self, _term: u64) -> bool {
        true
    }

    fn voted(&self, _term: u64, _granted: bool) {}
}

/// A vote that the guard allowed. It tells the guard the outcome when it is dropped.
pub(crate) struct PendingVote {
    guard: Arc<dyn VoteGuard>,
    term: u64,
    granted: bool,
}

impl PendingVote {
    /// Asks; `None` is a no.
    pub(crate) fn ask(guard: &Arc<dyn VoteGuard>, term: u64) -> Option<Self> {
        // Until Raft has said otherwise the vote may have been given.
        guard.may_vote(term).then(|| Self { guard: guard.clone(), term, granted: true })
    }

    /// Notes what Raft answered.
    pub(crate) fn answered(mut self, granted: bool) {
        self.granted = granted;
    }
}

impl Drop for PendingVote {
    fn drop(&mut self) {
        self.guard.voted(self.term, self.granted);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct RecordedVotes(Mutex<Vec<(u64, bool)>>);

    impl VoteGuard for RecordedVotes {
        fn may_vote(&self, term: u64) -> bool {
            term != 4
        }

        fn voted(&self, term: u64, granted: bool) {
            self.0.lock().unwrap().push((term, granted));
        }
    }

    #[test]
    fn a_vote_without_an_outcome_counts_as_given() {
        let told = Arc::new(RecordedVotes::default());
        let guard: Arc<dyn VoteGuard> = told.clone();
        PendingVote::ask(&guard, 1).unwrap().answered(false);
        PendingVote::ask(&guard, 2).unwrap().answered(true);
        drop(PendingVote::ask(&guard, 3).unwrap());
        assert!(PendingVote::ask(&guard, 4).is_none());
        assert_eq!(*told.0.lock().unwrap(), [(1, false), (2, true), (3, true)]);
    }
}
