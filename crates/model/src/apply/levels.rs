//! What the members' programs know: no command is applied that one of them does not.

use crate::command::Command;
use crate::defaults::FEATURE_LEVEL_FIRST;
use crate::member::Member;
use crate::name::MemberName;
use crate::refusal::Refusal;
use crate::state::ClusterState;

type Result = std::result::Result<(), Refusal>;

impl ClusterState {
    /// The highest feature level that all members know, by what their processes said when they started; `None` while there are
    /// no members.
    pub fn common_feature_level(&self) -> Option<u32> {
        self.members.values().map(|member| member.spec.feature_level_max).min()
    }

    /// Refuses what the cluster may not ask of its members yet.
    ///
    /// # Errors
    /// [`Refusal::FeatureLevel`] with the members that hold it back.
    pub fn check_level(&self, command: &Command) -> Result {
        // A level is raised to what all know.
        let known = match command {
            Command::RaiseLevel { .. } => self.common_feature_level().unwrap_or_default(),
            // A cluster begins at what its founder knows.
            Command::FoundCluster { member, .. } => member.feature_level_max,
            _ => self.feature_level,
        };
        self.require_level(command.feature_level(), known)
    }

    fn require_level(&self, needed: u32, known: u32) -> Result {
        if needed <= known.max(FEATURE_LEVEL_FIRST) {
            return Ok(());
        }
        let behind = |member: &&Member| member.spec.feature_level_max < needed;
        let members = self.members.values().map(|member| &**member).filter(behind);
        let members = members.map(|member| member.spec.name.to_string()).collect();
        Err(Refusal::FeatureLevel { needed, level: self.feature_level, members })
    }

    /// Refuses a member whose program knows less than what the cluster asks of its members already.
    ///
    /// # Errors
    /// [`Refusal::Outdated`].
    pub fn check_member_level(&self, member: &MemberName, known: u32) -> Result {
        if known >= self.feature_level {
            return Ok(());
        }
        Err(Refusal::Outdated { member: member.to_string(), known, level: self.feature_level })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ClusterId, HostPort, MemberId, MemberSpec, Revision};

    fn spec(name: &str, feature_level_max: u32) -> MemberSpec {
        let address = HostPort::parse(&format!("{name}.example:7481")).unwrap();
        MemberSpec {
            name: MemberName::parse(name).unwrap(),
            peer_address: address.clone(),
            admin_address: address,
            feature_level_max,
        }
    }

    fn cluster(levels: &[u32]) -> ClusterState {
        let mut state = ClusterState::default();
        for (index, (level, name)) in (1..).zip(levels.iter().zip(["m1", "m2", "m3"])) {
            let command = match name {
                "m1" => Command::FoundCluster {
                    cluster_id: ClusterId::parse(&"0a".repeat(16)).unwrap(),
                    member: spec(name, *level),
                    identities: None,
                },
                _ => Command::AddMember(spec(name, *level)),
            };
            state.apply(index, &command).unwrap();
        }
        state
    }

    fn refused(state: &mut ClusterState, command: &Command) -> String {
        let before = state.clone();
        let refused = state.apply(50, command).unwrap_err();
        assert_eq!(state.decide(50, command).unwrap_err(), refused, "the admission of it");
        assert_eq!(*state, before);
        refused.to_string()
    }

    fn started(member: u64, start: u64, replaces: u64, feature_level_max: u32) -> Command {
        Command::NoteStart { member: MemberId(member), start, replaces, sockets: None, feature_level_max }
    }

    #[test]
    fn a_cluster_begins_at_the_level_of_its_founder_and_takes_in_nobody_who_knows_less() {
        let mut state = cluster(&[3]);
        assert_eq!(state.feature_level, 3);
        let older = Command::AddMember(spec("m2", 2));
        assert_eq!(
            refused(&mut state, &older),
            "member \"m2\" runs a program that knows feature level 2 at most, and the cluster is at 3; upgrade its program to the \
             version of the other members first"
        );
        state.apply(2, &Command::AddMember(spec("m2", 4))).unwrap();
        assert_eq!((state.feature_level, state.common_feature_level()), (3, Some(3)));
    }

    #[test]
    fn a_level_rises_to_what_all_know_and_never_falls() {
        let mut state = cluster(&[1, 1, 1]);
        state.apply(10, &started(1, 7, 0, 3)).unwrap();
        state.apply(11, &started(2, 8, 0, 2)).unwrap();
        let raise = |level| Command::RaiseLevel { level };
        assert_eq!(
            refused(&mut state, &raise(2)),
            "this needs feature level 2, and the cluster is at 1: member \"m3\" runs a program that does not know it; upgrade m3, then \
             try again"
        );
        assert!(refused(&mut state, &raise(3)).contains("upgrade m2 and m3, then"), "{state:?}");
        state.apply(12, &started(3, 9, 0, 2)).unwrap();
        assert_eq!(state.revision, 12, "what a member's program knows is part of its record");
        state.apply(13, &raise(2)).unwrap();
        assert_eq!((state.feature_level, state.revision), (2, 13));
        for (index, level) in [(14, 1), (15, 2)] {
            state.apply(index, &raise(level)).unwrap();
            assert_eq!((state.feature_level, state.revision), (2, 13));
        }
        // A process of an older program is not the member any more.
        let older = started(3, 10, 9, 1);
        assert!(
            refused(&mut state, &older).contains("knows feature level 1 at most, and the cluster is at 2")
        );
        state.apply(16, &started(3, 10, 9, 2)).unwrap();
        assert_eq!(state.revision, 13, "nothing of its record has changed");
    }

    #[test]
    fn a_program_that_is_put_back_before_the_level_rises_holds_it_back_again() {
        let mut state = cluster(&[1, 2]);
        state.apply(10, &started(1, 7, 0, 2)).unwrap();
        assert_eq!(state.common_feature_level(), Some(2));
        state.apply(11, &started(1, 8, 7, 1)).unwrap();
        assert!(refused(&mut state, &Command::RaiseLevel { level: 2 }).contains("upgrade m1"));
    }

    #[test]
    fn what_all_members_know_waits_for_the_leader_to_raise_the_level() {
        let state = cluster(&[1, 2]);
        let refused = |state: &ClusterState, needed| {
            let revision: Revision = state.revision;
            assert_eq!(revision, 2);
            state.require_level(needed, state.feature_level).unwrap_err().to_string()
        };
        assert!(refused(&state, 2).contains("member \"m1\" runs a program"));
        let mut all = state;
        all.apply(2, &started(1, 7, 0, 2)).unwrap();
        assert!(
            refused(&all, 2).contains("once every member answers, the leader raises the level; try again")
        );
    }
}
