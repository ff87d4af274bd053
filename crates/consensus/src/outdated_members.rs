//! Members that have refused a part of this leader's log because their programs are too old for it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tonic::Status;
use trestle_api::status::is_outdated;

/// Members whose programs are too old, by what they have answered last. Such a member hears heartbeats and may lag by a single
/// entry, so nothing else tells it from one that follows.
#[derive(Debug, Default)]
pub(crate) struct OutdatedMembers(Mutex<BTreeSet<u64>>);

impl OutdatedMembers {
    fn known(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a member has refused entries or a snapshot.
    pub(crate) fn note_refusal(&self, member: u64, refusal: &Status) {
        if is_outdated(refusal) {
            self.known().insert(member);
        }
    }

    /// Notes that a member has stored what it was sent.
    pub(crate) fn note_stored(&self, member: u64) {
        self.known().remove(&member);
    }

    /// Whether the member has refused what it was sent last.
    pub(crate) fn contains(&self, member: u64) -> bool {
        self.known().contains(&member)
    }
}

#[cfg(test)]
mod tests {
    use trestle_api::status::{Failure, failure};

    use super::*;

    #[test]
    fn a_member_is_outdated_from_its_refusal_until_it_stores_something() {
        let outdated = OutdatedMembers::default();
        outdated.note_refusal(3, &failure(&Failure::NoCluster));
        outdated.note_refusal(3, &Status::failed_precondition("its program is too old"));
        assert!(!outdated.contains(3), "refused for other reasons");
        outdated.note_refusal(3, &failure(&Failure::Outdated("its program is too old".to_owned())));
        assert!(outdated.contains(3) && !outdated.contains(4));
        outdated.note_stored(3);
        assert!(!outdated.contains(3));
    }
}
