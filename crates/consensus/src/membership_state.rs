//! What a member knows of another one's part in the cluster, and what follows from the accounts of several. Pure: the model
//! in `tests/removal_model.rs` runs these very functions.

use std::collections::BTreeSet;

/// A member's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MembershipState {
    /// Its id may have been allocated by an entry that is not known here.
    Unknown,
    /// Votes in the newest membership, committed or not.
    Voter,
    /// Gets the log there and does not vote.
    Learner,
    /// Has an id and no part in Raft: it is being taken in, or being removed.
    Outside,
    /// Was removed, by a committed entry.
    Removed,
}

/// What a member knows of who is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub(crate) struct KnownMembers {
    /// The voters in the newest membership of its log, committed or not; both sets of a change that is under way.
    pub(crate) voters: BTreeSet<u64>,
    /// The learners in that membership.
    pub(crate) learners: BTreeSet<u64>,
    /// Members of the state that it has applied.
    pub(crate) members: BTreeSet<u64>,
    /// Whether that state is a founded cluster's.
    pub(crate) founded: bool,
    /// Index of the last entry that it has applied.
    pub(crate) applied: u64,
}

impl KnownMembers {
    /// The standing of the member `id`. Ids are indexes of the log and never used again, so one up to which the log was
    /// applied, and which is not there, was removed. A voter was not, whatever else is known.
    pub(crate) fn standing(&self, id: u64) -> MembershipState {
        match () {
            () if self.voters.contains(&id) => MembershipState::Voter,
            () if self.learners.contains(&id) => MembershipState::Learner,
            () if self.members.contains(&id) => MembershipState::Outside,
            () if self.founded && id <= self.applied => MembershipState::Removed,
            () => MembershipState::Unknown,
        }
    }

    /// Whether this member, with the id `me`, was removed by what it has applied itself.
    pub(crate) fn says_removed(&self, me: u64) -> bool {
        self.standing(me) == MembershipState::Removed
    }
}

/// What another member says of a member, when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MembershipReport {
    /// The member's standing, as that one knows it.
    pub(crate) standing: MembershipState,
    /// Term and index of the last entry that it has applied.
    pub(crate) applied: (u64, u64),
    /// Whether it leads and a quorum has said so after it was asked.
    pub(crate) leads: bool,
}

/// What to make of the accounts of one's own standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RemovalVerdict {
    /// This member was removed.
    Removed,
    /// It was not.
    Member,
    /// Nobody who must know has answered.
    Open,
}

/// Judges the accounts that others give of this member, which has itself applied the log up to `mine`, term and index. Only a
/// leader counts, with a quorum behind it and a log that has everything that this member knows to be committed.
pub(crate) fn verdict(
    mine: (u64, u64),
    accounts: impl IntoIterator<Item = MembershipReport>,
) -> RemovalVerdict {
    let leader = accounts
        .into_iter()
        .filter(|account| account.leads && account.applied >= mine && account.applied.1 >= mine.1)
        .max_by_key(|account| account.applied);
    match leader.map(|account| account.standing) {
        Some(MembershipState::Removed) => RemovalVerdict::Removed,
        Some(MembershipState::Voter | MembershipState::Learner | MembershipState::Outside) => {
            RemovalVerdict::Member
        }
        Some(MembershipState::Unknown) | None => RemovalVerdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownMembers {
        KnownMembers {
            voters: [1, 4].into(),
            learners: [7].into(),
            members: [1, 4, 7, 9].into(),
            founded: true,
            applied: 12,
        }
    }

    #[test]
    fn an_id_that_was_allocated_and_is_gone_was_removed() {
        let standings = [1, 7, 9, 6, 12, 13].map(|id| known().standing(id));
        use MembershipState::{Learner, Outside, Removed, Unknown, Voter};
        assert_eq!(standings, [Voter, Learner, Outside, Removed, Removed, Unknown]);
        // Before the cluster is founded nobody can have been removed.
        assert_eq!(KnownMembers { founded: false, ..known() }.standing(6), Unknown);
        // A voter was not removed, even if the state has lost it.
        let lost = KnownMembers { members: [1].into(), ..known() };
        assert_eq!((lost.standing(4), lost.standing(9)), (Voter, Removed));
        assert!(lost.says_removed(9) && !lost.says_removed(4) && !lost.says_removed(7));
    }

    #[test]
    fn only_a_leader_with_a_quorum_and_no_older_log_is_believed() {
        let account =
            |leads, term, index, standing| MembershipReport { standing, applied: (term, index), leads };
        let removed = |leads, term, index| account(leads, term, index, MembershipState::Removed);
        assert_eq!(verdict((3, 10), [removed(true, 3, 10)]), RemovalVerdict::Removed);
        // Hearsay, from however many.
        assert_eq!(verdict((3, 10), [removed(false, 9, 99); 4]), RemovalVerdict::Open);
        // A member that knows less of the log than this one cannot know that it was removed.
        assert_eq!(verdict((3, 10), [removed(true, 3, 9)]), RemovalVerdict::Open);
        assert_eq!(verdict((3, 10), [removed(true, 2, 11)]), RemovalVerdict::Open);
        assert_eq!(verdict((3, 10), [removed(true, 4, 9)]), RemovalVerdict::Open);
        for standing in [MembershipState::Voter, MembershipState::Learner, MembershipState::Outside] {
            let answers = [removed(false, 3, 11), account(true, 3, 11, standing)];
            assert_eq!(verdict((3, 10), answers), RemovalVerdict::Member);
        }
        assert_eq!(verdict((3, 10), [account(true, 3, 11, MembershipState::Unknown)]), RemovalVerdict::Open);
        // Of two that lead by their own words, the one with the newer log.
        let answers = [removed(true, 3, 11), account(true, 4, 12, MembershipState::Voter)];
        assert_eq!(verdict((3, 10), answers), RemovalVerdict::Member);
    }
}
