//! Members.

use serde::Serialize;
use trestle_api::v1;

use super::short_name;
use crate::table;

/// A member's record.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MemberView {
    /// Its name.
    pub(crate) name: String,
    /// Its identity in Raft.
    pub(crate) id: u64,
    /// "voter" or "learner"; empty where it is not known.
    pub(crate) role: &'static str,
    /// Whether it leads.
    pub(crate) leader: bool,
    /// Where other members reach it.
    pub(crate) peer_address: String,
    /// Where its admin API is reached.
    pub(crate) admin_address: String,
    /// Revision that last changed the record.
    pub(crate) revision: u64,
    /// Whether it is drained.
    pub(crate) draining: bool,
}

impl From<v1::Member> for MemberView {
    fn from(member: v1::Member) -> Self {
        Self {
            name: short_name(&member.name),
            id: member.id,
            role: match member.role() {
                v1::MemberRole::Voter => "voter",
                v1::MemberRole::Learner => "learner",
                v1::MemberRole::Unspecified => "",
            },
            leader: member.leader,
            peer_address: member.peer_address,
            admin_address: member.admin_address,
            revision: member.revision,
            draining: member.draining,
        }
    }
}

/// "yes" or "no".
pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

impl MemberView {
    /// One line for each member.
    pub(crate) fn table(members: &[Self]) -> String {
        let row = |m: &Self| {
            let (role, id) = (m.role.to_owned(), m.id.to_string());
            let state = if m.draining { "draining" } else { "enabled" }.to_owned();
            let (peer, admin) = (m.peer_address.clone(), m.admin_address.clone());
            [m.name.clone(), id, role, yes_no(m.leader), state, peer, admin]
        };
        table::table(
            ["NAME", "ID", "ROLE", "LEADER", "STATE", "PEER-ADDRESS", "ADMIN-ADDRESS"],
            members.iter().map(row),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample::sample_member;

    #[test]
    fn a_list_says_who_votes_and_who_leads() {
        let mut learner = sample_member("m2", 2);
        learner.set_role(v1::MemberRole::Learner);
        learner.draining = true;
        let mut leader = sample_member("m1", 1);
        leader.leader = true;
        assert_eq!(
            MemberView::table(&[leader.into(), learner.into()]),
            "NAME   ID   ROLE      LEADER   STATE      PEER-ADDRESS     ADMIN-ADDRESS\n\
             m1     1    voter     yes      enabled    127.0.0.1:7481   127.0.0.1:7480\n\
             m2     2    learner   no       draining   127.0.0.2:7481   127.0.0.2:7480\n"
        );
    }
}
