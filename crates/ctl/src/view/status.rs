//! The cluster's status, and what is wrong with it in plain words.

mod clocks;
mod data_plane;
mod level;
mod member;
mod problems;
mod vips;

use serde::Serialize;
use trestle_api::v1;
use trestle_model::TransportSecurity;

pub(crate) use self::data_plane::{PoolDown, PoolsDown};
use self::member::MemberStatusView;
use super::{short_name, word};
use crate::table;

/// The cluster as its members describe it.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    cluster_id: String,
    /// `None` when the member that answers knows none.
    leader: Option<String>,
    term: u64,
    revision: u64,
    pools: u32,
    backends: u32,
    listeners: u32,
    vips: u32,
    /// What the cluster may ask of all its members.
    feature_level: u32,
    /// What the members' ports accept: "off" for plain connections, "accept" for those and TLS, "require" for TLS alone; `None` where
    /// that is not known.
    transport: Option<&'static str>,
    members: Vec<MemberStatusView>,
    /// What is wrong, and what to do, one sentence each; empty when all is well.
    problems: Vec<String>,
    /// What is as somebody wanted it, and not to be forgotten.
    notes: Vec<String>,
    /// What is wrong with the cluster as a whole, as members say.
    #[serde(skip)]
    cluster_problems: Vec<String>,
    /// The names of the virtual IPs.
    #[serde(skip)]
    vip_names: Vec<String>,
    /// Whether only one member was asked, which knows nothing of the others.
    #[serde(skip)]
    of_one: bool,
}

impl From<v1::ClusterStatus> for StatusView {
    fn from(status: v1::ClusterStatus) -> Self {
        Self::new(status, false)
    }
}

impl StatusView {
    /// The words of all members, or of the one that alone was asked.
    pub(crate) fn new(status: v1::ClusterStatus, of_one: bool) -> Self {
        let counts = status.counts.unwrap_or_default();
        let mut view = Self {
            cluster_id: status.cluster_id,
            leader: (!status.leader.is_empty()).then(|| short_name(&status.leader)),
            term: status.term,
            revision: status.revision,
            pools: counts.pools,
            backends: counts.backends,
            listeners: counts.listeners,
            vips: counts.vips,
            feature_level: status.feature_level,
            transport: Some(word::<TransportSecurity>(status.transport)).filter(|_| status.transport != 0),
            members: status.members.into_iter().map(Into::into).collect(),
            problems: Vec::new(),
            notes: Vec::new(),
            cluster_problems: status.problems,
            vip_names: status.vips.iter().map(|vip| short_name(vip)).collect(),
            of_one,
        };
        view.problems =
            if view.cluster_id.is_empty() { vec![view.no_cluster(true)] } else { view.find_problems() };
        view.notes = view.find_notes();
        view.notes.extend(view.level_note());
        view.notes.extend(view.transport_note());
        view
    }

    /// What a member says that belongs to no cluster; `found` when one may be founded, because none is known of.
    pub(crate) fn without_cluster(status: v1::ClusterStatus, found: bool) -> Self {
        let mut view = Self::from(status);
        view.problems = vec![view.no_cluster(found)];
        view
    }

    /// What is wrong, and what to do, one sentence each.
    pub(crate) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// The cluster, its members, and what is wrong, broken to a width if there is one.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        let width = width.unwrap_or(usize::MAX);
        let told = |what: &str, text: &str| {
            table::wrapped(&format!("{what}: {}", table::plain(text)), width, 2).join("\n") + "\n"
        };
        let none = || "none".to_owned();
        let some_id = Some(&self.cluster_id).filter(|id| !id.is_empty());
        let mut text = table::fields([
            ("CLUSTER", some_id.cloned().unwrap_or_else(none)),
            ("LEADER", self.leader.clone().unwrap_or_else(none)),
            ("TERM", self.term.to_string()),
            ("REVISION", self.revision.to_string()),
            ("POOLS", self.pools.to_string()),
            ("BACKENDS", self.backends.to_string()),
            ("LISTENERS", self.listeners.to_string()),
            ("VIPS", self.vips.to_string()),
        ]);
        if !self.members.is_empty() {
            text.push('\n');
            text.push_str(&self.member_table());
        }
        text.push('\n');
        for problem in &self.problems {
            text.push_str(&told("problem", problem));
        }
        if self.problems.is_empty() {
            text.push_str(if self.of_one {
                "no problems, as far as this member knows\n"
            } else {
                "no problems\n"
            });
        }
        for note in &self.notes {
            text.push_str(&told("note", note));
        }
        text
    }

    fn member_table(&self) -> String {
        let headings = [
            "NAME",
            "ID",
            "ROLE",
            "STATE",
            "LEADER",
            "REVISION",
            "IN-FORCE",
            "LISTENERS",
            "CONNECTIONS",
            "VIP",
            "ADDRESS",
            "VERSION",
        ];
        table::table(headings, self.members.iter().map(|m| m.row(self.leader.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::{duration, sample_member_status, sample_status};

    #[test]
    fn a_healthy_cluster() {
        let mut status = sample_status();
        status.counts.as_mut().unwrap().vips = 1;
        status.vips = vec!["vips/api".to_owned()];
        status.members[0].set_vip_standing(v1::VipStanding::Serving);
        status.members[0].held_vips = status.vips.clone();
        status.members[2].set_vip_standing(v1::VipStanding::Unspecified);
        status.members[2].member.as_mut().unwrap().draining = true;
        assert_eq!(
            StatusView::from(status).text(None),
            "CLUSTER     00112233445566778899aabbccddeeff\n\
             LEADER      m1\n\
             TERM        3\n\
             REVISION    12\n\
             POOLS       1\n\
             BACKENDS    2\n\
             LISTENERS   1\n\
             VIPS        1\n\
             \n\
             NAME   ID   ROLE    STATE                LEADER   REVISION   IN-FORCE   LISTENERS   CONNECTIONS   VIP       ADDRESS          VERSION\n\
             m1     1    voter   leader               yes      12         12         1           5             serving   127.0.0.1:7480   0.1.0\n\
             m2     2    voter   follower             no       12         12         1           5             standby   127.0.0.2:7480   0.1.0\n\
             m3     3    voter   follower, draining   no       12         12         1           5             -         127.0.0.3:7480   0.1.0\n\
             \n\
             no problems\n\
             note: m3 is drained and has 5 connections open: \"trestle member enable m3\" ends that\n"
        );
    }

    #[test]
    fn a_drain_that_closes_connections_says_when() {
        let mut status = sample_status();
        status.members[2].member.as_mut().unwrap().draining = true;
        status.members[2].drain_left = Some(duration(134_500));
        let text = StatusView::from(status.clone()).text(None);
        let note = "note: m3 is drained and has 5 connections open, which the drain closes in 2m14s: \"trestle member enable m3\" \
                    ends that\n";
        assert!(text.ends_with(note), "{text}");
        status.members[2].active_connections = 0;
        let text = StatusView::from(status).text(None);
        assert!(
            text.ends_with(
                "m3 is drained and has no connection open: \"trestle member enable m3\" ends that\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_cluster_whose_members_are_all_drained_takes_no_connections() {
        let mut status = sample_status();
        status.members.iter_mut().for_each(|m| m.member.as_mut().unwrap().draining = true);
        let problems = StatusView::from(status).into_problems();
        let told = "all members are drained, so none takes new connections: \"trestle member enable m1\" ends that for one";
        assert_eq!(problems, [told]);
    }

    #[test]
    fn a_broken_cluster_says_so() {
        let mut status = sample_status();
        status.leader.clear();
        for name in ["m2", "m3"] {
            let member =
                status.members.iter_mut().find(|m| m.member.as_ref().unwrap().name.ends_with(name)).unwrap();
            *member = v1::MemberStatus {
                member: member.member.clone(),
                error: "connection refused".to_owned(),
                ..Default::default()
            };
        }
        let view = StatusView::from(status);
        assert_eq!(
            view.problems,
            [
                "no leader is known: changes and fresh reads are refused until there is one",
                "only 1 of 3 voters answer, and 2 are needed: bring back 1 of them (m2, m3)",
                "m2 does not answer at 127.0.0.2:7481: connection refused; \"systemctl status trestled\" there says whether it runs",
                "m3 does not answer at 127.0.0.3:7481: connection refused; \"systemctl status trestled\" there says whether it runs",
            ]
        );
        let text = view.text(None);
        let row = "m2     2    voter   unreachable   no       -          -          -           -             -         \
                   127.0.0.2:7480   -\n";
        assert!(text.contains(row), "{text}");
        let (_, problems) = text.rsplit_once("\n\n").unwrap();
        assert_eq!(problems.lines().count(), 4);
        assert!(problems.lines().all(|line| line.starts_with("problem: ")), "{problems}");
    }

    #[test]
    fn used_up_descriptors_are_told() {
        let mut status = sample_status();
        status.members[1].descriptors_used = status.members[1].descriptors_max - 1;
        status.members[2].descriptors_max = 0;
        assert_eq!(
            StatusView::from(status).problems,
            [
                "m2 has used its 18999 file descriptors for connections: new ones wait until others end; raise its limit \
                 (LimitNOFILE, ulimit -n), or see \"trestle connection list\""
            ]
        );
    }

    #[test]
    fn what_a_member_finds_wrong_with_itself_is_told_with_its_name() {
        let mut status = sample_status();
        status.members[1].problems = vec!["its disk went back in time".to_owned()];
        status.members[0].problems = vec!["no local port is free".to_owned()];
        status.members[2].problems = status.members[0].problems.clone();
        assert_eq!(
            StatusView::from(status).problems,
            ["m1, m3: no local port is free", "m2: its disk went back in time"]
        );
    }

    #[test]
    fn members_that_stay_behind_are_told() {
        let mut status = sample_status();
        status.members[1].revision = 10;
        // That it lacks something now is no news: it may be on the way.
        assert!(StatusView::from(status.clone()).problems.is_empty());
        status.members[1].behind = true;
        status.members[2].in_force_revision = 9;
        status.members[2].in_force_lag = Some(duration(2_900));
        assert_eq!(StatusView::from(status.clone()).problems.len(), 1);
        status.members[2].in_force_lag = Some(duration(8_100));
        assert_eq!(
            StatusView::from(status).problems,
            [
                "m2 is behind: it knows revision 10, and m1 has 12; it is being filled, or the leader does not reach it: its log \
                 says so (\"journalctl -u trestled\" there)",
                "m3 has lacked a revision in its data plane for 8 s: 9 is in force of 12; \"trestle listener list\" shows what is \
                 not bound there, and its log says more (\"journalctl -u trestled\")",
            ]
        );
    }

    #[test]
    fn members_with_another_timing_than_the_leader_are_told() {
        let mut status = sample_status();
        status.members[0].election_timeout_max = Some(duration(125));
        status.members[2].election_timeout_max = None;
        let words = "m2 has election timeouts of up to 300ms and m1 of up to 125ms: they take no part in each other's elections \
                     and writes until all members have the same profile";
        assert_eq!(StatusView::from(status).problems, [words]);
    }

    #[test]
    fn differing_states_are_told_apart_from_members_that_lag() {
        let mut status = sample_status();
        status.members[1].digest = "ffffffffffff".to_owned();
        status.members[1].revision = 11;
        assert!(StatusView::from(status.clone()).problems.is_empty());
        status.members[1].revision = 12;
        let problems = StatusView::from(status).problems;
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with(
                "the members' states differ at revision 12: m1, m3 (aaaaaaaa) against m2 (ffffffff)"
            ),
            "{problems:?}"
        );
    }

    #[test]
    fn an_empty_member_says_what_comes_next() {
        let mut member = sample_member_status("m1", 0, v1::RaftState::Empty);
        member.digest.clear();
        let status = v1::ClusterStatus { members: vec![member], ..Default::default() };
        let view = StatusView::from(status);
        assert_eq!(view.problems.len(), 1);
        assert!(view.problems[0].contains("\"trestle cluster bootstrap\""));
        assert!(view.problems[0].contains("\"trestle member add 127.0.0.0:7481\""), "{:?}", view.problems);
        assert!(view.text(None).starts_with("CLUSTER     none\nLEADER      none\n"));
    }

    #[test]
    fn that_nobody_proves_anything_is_not_to_be_forgotten() {
        let notes = |transport| StatusView::from(v1::ClusterStatus { transport, ..sample_status() }).notes;
        for (transport, part) in [(1, "prove"), (2, "beside TLS")] {
            assert!(notes(transport)[0].contains(part), "{:?}", notes(transport));
        }
        assert_eq!((notes(0).len(), notes(3).len()), (0, 0));
    }

    #[test]
    fn addresses_that_could_not_be_bound_are_counted() {
        let mut status = sample_status();
        status.members[2].listeners_failed = 2;
        let view = StatusView::from(status);
        assert!(view.text(None).contains("   1/3         "), "{}", view.text(None));
    }
}
