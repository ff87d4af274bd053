//! Members.

use serde::Serialize;
use trestle_api::v1;

use super::backend::draining;
use super::short_name;
use super::span::{self, Span};
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
    /// The highest feature level that its program knows.
    pub(crate) feature_level_max: u32,
    /// Whether it is drained.
    pub(crate) draining: bool,
    /// Time after which it closes the connections that are left.
    #[serde(flatten, serialize_with = "span::drain_deadline")]
    drain_deadline: Option<Span>,
    /// Whether it answers; `None` where that is not known.
    reachable: Option<bool>,
    /// Connections that are open on it; only known of one that is drained.
    connections: Option<u64>,
    /// Whether it is drained: it takes no new connections and has none open. Only known of one that is drained.
    drained: Option<bool>,
    /// Time until they are closed.
    #[serde(flatten, serialize_with = "span::drain_left")]
    drain_left: Option<Span>,
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
            feature_level_max: member.feature_level_max,
            draining: member.draining,
            drain_deadline: Span::setting(member.drain_timeout.as_ref()),
            reachable: None,
            connections: None,
            drained: None,
            drain_left: None,
        }
    }
}

/// "yes" or "no".
pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

impl MemberView {
    /// Adds which members answer and how far drains are, by what they say of themselves.
    pub(crate) fn note_status(members: &mut [Self], said: Vec<v1::MemberStatus>) {
        for status in said {
            let id = status.member.as_ref().map(|record| record.id);
            let Some(member) = members.iter_mut().find(|m| Some(m.id) == id) else { continue };
            member.reachable = Some(status.reachable);
            if member.draining && status.reachable {
                member.connections = Some(status.active_connections);
                member.drained = Some(status.drained && status.active_connections == 0);
                member.drain_left = Span::seconds(status.drain_left.as_ref());
            }
        }
    }

    fn state(&self) -> String {
        let state = self.admin_state();
        if self.reachable == Some(false) { format!("{state}, unreachable") } else { state }
    }

    fn admin_state(&self) -> String {
        match (self.draining, self.connections) {
            (false, _) => "enabled".to_owned(),
            (true, Some(open)) => {
                draining(self.drained == Some(true), open, self.drain_left, self.drain_deadline)
            }
            (true, None) => "draining".to_owned(),
        }
    }

    /// One line for each member.
    pub(crate) fn table(members: &[Self]) -> String {
        let row = |m: &Self| {
            let (role, id) = (m.role.to_owned(), m.id.to_string());
            let state = m.state();
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tests::sample::{sample_member, sample_member_status};

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

    #[test]
    fn a_list_says_how_far_a_drain_is() {
        let mut members = [1, 2, 3].map(|id| MemberView::from(sample_member(&format!("m{id}"), id)));
        members[0].draining = true;
        members[1].draining = true;
        let said = |id, seconds| v1::MemberStatus {
            active_connections: 12,
            drain_left: Some(prost_types::Duration { seconds, nanos: 5 }),
            ..sample_member_status(&format!("m{id}"), id, v1::RaftState::Follower)
        };
        let silent = v1::MemberStatus { reachable: false, ..said(2, 9) };
        MemberView::note_status(&mut members, vec![said(1, 134), silent, said(3, 7)]);
        let states = members.each_ref().map(MemberView::state);
        assert_eq!(states, ["draining, 12 open, 2m14s left", "draining, unreachable", "enabled"]);
        let json = serde_json::to_value(&members[0]).unwrap();
        assert_eq!((&json["drain_left"], &json["drain_left_seconds"]), (&"2m14s".into(), &134.0.into()));
    }
}
