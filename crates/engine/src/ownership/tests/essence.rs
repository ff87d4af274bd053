//! What of a machine decides over what it serves, with moments counted from now: two machines with the same essence act
//! alike from now on, but for announcements, for how often they say again what they want, and for whom they ask to take over
//! after somebody has not.

use std::hash::Hash;
use std::time::Duration;

use trestle_model::MemberId;

use super::super::leave::Leaving;
use super::super::{Cause, Elected, Ownership, Reign};

impl Leaving {
    fn essence(&self) -> (bool, bool, bool, Option<MemberId>, Vec<MemberId>) {
        let said = (self.release.0.is_some(), self.transfer.0.is_some());
        (self.cause == Cause::RaftTransfer, said.0, said.1, self.to, self.tried.iter().copied().collect())
    }
}

impl Ownership {
    /// Everything that `handle` goes by, but for what never changes in the model.
    pub(in super::super) fn essence(&self, now: Duration) -> impl Hash + use<> {
        let held: Vec<_> = self
            .held
            .values()
            .map(|held| {
                let open = held.until.saturating_sub(now);
                let shut = (held.until + self.lease.fence_error).saturating_sub(now);
                (open, shut, held.releasing, held.reported)
            })
            .collect();
        // Without a reign the machine is told all of the rest before it can matter again: terms only grow, and a new
        // leader does nothing before it has applied an entry of its own term.
        let reign = self.reign.as_ref().map(|reign| {
            let known = (self.yielded, self.applied >= reign.term, self.tenure);
            (self.reign_essence(reign, now), known)
        });
        (self.scrubbed, self.scrub.0.is_some(), held, reign, self.wish.clone())
    }

    pub(in super::super) fn is_busy(&self) -> bool {
        !self.scrubbed || self.reign.is_some() || !self.held.is_empty()
    }

    fn reign_essence(&self, reign: &Reign, now: Duration) -> impl Hash + use<> {
        // An acknowledgement that is older than the lease is as good as none, and a wait that is over stays over.
        let acked = reign.acked.map(|acked| now - acked).filter(|age| *age < self.lease.length);
        let longest = self.lease.wait(self.lease.reach(), Elected::ByTransfer);
        let waits = reign.elected == Elected::ByTransfer;
        let waited = waits.then(|| longest.saturating_sub(now - reign.since));
        let quiet = reign.quiet_ends().map(|end| end.saturating_sub(now));
        let leaving = reign.leaving.as_ref().map(Leaving::essence);
        (reign.term, waited, acked, reign.take.0.is_some(), quiet, leaving)
    }
}
