//! What of a machine decides over what it serves, with moments counted from now: two machines with the same essence act
//! alike from now on, but for announcements, for how often they say again what they want, and for whom they ask to take over
//! after somebody has not.

use std::hash::Hash;
use std::time::Duration;

use trestle_model::MemberId;

use super::super::leave::Leaving;
use super::super::{Cause, Elected, LeaderTerm, Ownership};

impl Leaving {
    fn search_key(&self) -> (bool, bool, bool, Option<MemberId>, Vec<MemberId>) {
        let said = (self.release.0.is_some(), self.transfer.0.is_some());
        (self.cause == Cause::RaftTransfer, said.0, said.1, self.to, self.tried.iter().copied().collect())
    }
}

impl Ownership {
    /// Everything that `handle` goes by, but for what never changes in the model.
    pub(in super::super) fn search_key(&self, now: Duration) -> impl Hash + use<> {
        let held: Vec<_> = self
            .held
            .values()
            .map(|held| {
                let open = held.until.saturating_sub(now);
                let shut = (held.until + self.lease.fence_error).saturating_sub(now);
                (open, shut, held.releasing, held.reported)
            })
            .collect();
        // Without a term the machine is told all of the rest before it can matter again: terms only grow, and a new
        // leader does nothing before it has applied an entry of its own term.
        let leader_term = self.leader_term.as_ref().map(|leader_term| {
            let known = (self.barred_term, self.applied >= leader_term.term, self.tenure);
            (self.term_key(leader_term, now), known)
        });
        (held, leader_term, self.request.clone())
    }

    pub(in super::super) fn is_busy(&self) -> bool {
        self.leader_term.is_some() || !self.held.is_empty()
    }

    fn term_key(&self, leader_term: &LeaderTerm, now: Duration) -> impl Hash + use<> {
        // An acknowledgement that is older than the lease is as good as none, and a wait that is over stays over.
        let acked = leader_term.acked.map(|acked| now - acked).filter(|age| *age < self.lease.length);
        let longest = self.lease.wait(self.lease.reach(), Elected::ByTransfer);
        let waits = leader_term.elected == Elected::ByTransfer;
        let waited = waits.then(|| longest.saturating_sub(now - leader_term.since));
        let quiet = leader_term.quiesce_ends().map(|end| end.saturating_sub(now));
        let leaving = leader_term.leaving.as_ref().map(Leaving::search_key);
        (leader_term.term, waited, acked, leader_term.take_timer.0.is_some(), quiet, leaving)
    }
}
