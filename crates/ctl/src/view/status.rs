//! The cluster's status, and what is wrong with it in plain words.

mod vips;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use trestle_api::v1;

use super::member::{MemberView, yes_no};
use super::span::{self, Span};
use super::{or_dash, short_name};
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
    members: Vec<MemberStatusView>,
    /// What is wrong, and what to do, one sentence each; empty when all is well.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberStatusView {
    name: String,
    id: u64,
    role: &'static str,
    leader: bool,
    peer_address: String,
    admin_address: String,
    reachable: bool,
    error: Option<String>,
    state: String,
    term: u64,
    applied_index: u64,
    revision: u64,
    in_force_revision: u64,
    digest: String,
    listeners_bound: u32,
    listeners_failed: u32,
    connections: u64,
    backends_unhealthy: u32,
    version: String,
    /// When its process was started.
    started: Option<String>,
    #[serde(flatten, serialize_with = "span::uptime")]
    uptime: Option<Span>,
    descriptors_used: u64,
    /// `None` for no bound.
    descriptors_max: Option<u64>,
    draining: bool,
    /// `None` when the member says nothing of it.
    vip_standing: Option<String>,
    /// Why it should not hold virtual IPs while another member can.
    unfit: Vec<String>,
    /// `None` when the member says nothing of it.
    #[serde(flatten, serialize_with = "span::election_timeout_max")]
    election_timeout_max: Option<Span>,
    /// What the member finds wrong with itself.
    problems: Vec<String>,
    /// Whom it asks to take it in while it belongs to no cluster.
    join_addresses: Vec<String>,
}

impl From<v1::MemberStatus> for MemberStatusView {
    fn from(status: v1::MemberStatus) -> Self {
        let member = MemberView::from(status.member.unwrap_or_default());
        let uptime = Span::seconds(status.uptime.as_ref());
        Self {
            name: member.name,
            id: member.id,
            role: member.role,
            leader: member.leader,
            peer_address: member.peer_address,
            admin_address: member.admin_address,
            reachable: status.reachable,
            error: (!status.reachable).then_some(status.error),
            state: status.raft_state,
            term: status.term,
            applied_index: status.applied_index,
            revision: status.revision,
            in_force_revision: status.in_force_revision,
            digest: status.digest,
            listeners_bound: status.listeners_bound,
            listeners_failed: status.listeners_failed,
            connections: status.active_connections,
            backends_unhealthy: status.backends_unhealthy,
            version: status.version,
            started: uptime.and_then(Span::ago),
            uptime,
            descriptors_used: status.descriptors_used,
            descriptors_max: Some(status.descriptors_max).filter(|max| *max > 0),
            draining: member.draining,
            vip_standing: Some(status.vip_standing).filter(|word| !word.is_empty()),
            unfit: status.unfit,
            election_timeout_max: Span::setting(status.election_timeout_max.as_ref()),
            problems: status.problems,
            join_addresses: status.join_addresses,
        }
    }
}

impl From<v1::ClusterStatus> for StatusView {
    fn from(status: v1::ClusterStatus) -> Self {
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
            members: status.members.into_iter().map(Into::into).collect(),
            problems: Vec::new(),
        };
        view.problems =
            if view.cluster_id.is_empty() { vec![view.no_cluster(true)] } else { view.find_problems() };
        view
    }
}

impl StatusView {
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

    fn no_cluster(&self, found: bool) -> String {
        let own = self.members.first();
        let peer = own.map(|m| m.peer_address.as_str()).filter(|a| !a.is_empty()).unwrap_or("HOST:PORT");
        let asked = own.map(|m| m.join_addresses.join(", ")).filter(|asked| !asked.is_empty());
        let none = "this member belongs to no cluster yet";
        match asked {
            Some(asked) => format!(
                "{none} and asks {asked} to take it in: see its log for why that takes long, or run \"trestle member add \
                 {peer}\" on a member of the cluster"
            ),
            None if found => format!(
                "{none}: found one with \"trestle cluster bootstrap\", or, on a member of a cluster, take this one in with \
                 \"trestle member add {peer}\""
            ),
            None => {
                format!("{none}: run \"trestle member add {peer}\" on a member of the cluster to take it in")
            }
        }
    }

    fn find_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.leader.is_none() {
            problems.push(
                "no leader is known: changes and fresh reads are refused until there is one".to_owned(),
            );
        }
        problems.extend(self.quorum_problem());
        for m in self.members.iter().filter(|m| !m.reachable) {
            let error = m.error.as_deref().filter(|e| !e.is_empty()).unwrap_or("no reason given");
            let leads = if self.leader.as_deref() == Some(&m.name) { ", the last known leader," } else { "" };
            problems.push(format!("{}{leads} does not answer: {error}", m.name));
        }
        for m in &self.members {
            problems.extend(m.problems.iter().map(|problem| format!("{}: {problem}", m.name)));
        }
        for m in self.members.iter().filter(|m| m.listeners_failed > 0) {
            let (name, failed) = (&m.name, m.listeners_failed);
            let what = if failed == 1 { "address" } else { "addresses" };
            problems.push(format!(
                "{name} could not bind {failed} listener {what}: \"trestle listener list\" says why"
            ));
        }
        // A connection takes two.
        let full = |m: &&MemberStatusView| m.descriptors_max.is_some_and(|max| m.descriptors_used + 2 > max);
        for m in self.members.iter().filter(full) {
            problems.push(format!(
                "{} has used its {} file descriptors for connections: new ones wait until others end",
                m.name, m.descriptors_used
            ));
        }
        problems.extend(self.timing_problems());
        problems.extend(self.vip_problems());
        problems.extend(self.digest_problems());
        problems
    }

    fn quorum_problem(&self) -> Option<String> {
        // Members asked with --local tell nothing of the others, and a record alone does not say who answers.
        let voters: Vec<_> = self.members.iter().filter(|m| m.role == "voter").collect();
        let (all, answering) = (voters.len(), voters.iter().filter(|m| m.reachable).count());
        let needed = all / 2 + 1;
        (all > 0 && answering < needed).then(|| {
            format!(
                "only {answering} of {all} voters answer, and {needed} are needed: bring back {} of them",
                needed - answering
            )
        })
    }

    /// Members do not talk Raft with those of another timing.
    fn timing_problems(&self) -> Vec<String> {
        let said = || self.members.iter().filter(|m| m.election_timeout_max.is_some());
        let leader = said().find(|m| self.leader.as_ref() == Some(&m.name));
        let Some(right) = leader.or_else(|| said().next()) else { return Vec::new() };
        let differs = |m: &&MemberStatusView| m.election_timeout_max != right.election_timeout_max;
        let describe = |m: &MemberStatusView| {
            let [theirs, rights] = [m, right].map(|m| or_dash(m.election_timeout_max.as_ref()));
            format!(
                "{} has election timeouts of up to {theirs} and {} of up to {rights}: they take no part in each other's \
                 elections and writes until all members have the same profile",
                m.name, right.name
            )
        };
        said().filter(differs).map(describe).collect()
    }

    /// Members that are at one revision have one state, or something is badly wrong.
    fn digest_problems(&self) -> Vec<String> {
        let mut by_revision = BTreeMap::<u64, BTreeMap<&str, BTreeSet<&str>>>::new();
        for m in self.members.iter().filter(|m| m.reachable && !m.digest.is_empty()) {
            let digests = by_revision.entry(m.revision).or_default();
            digests.entry(&m.digest).or_default().insert(&m.name);
        }
        let differing = by_revision.into_iter().filter(|(_, digests)| digests.len() > 1);
        let describe = |(revision, digests): (u64, BTreeMap<&str, BTreeSet<&str>>)| {
            let sides = digests.iter().map(|(digest, members)| {
                let names = members.iter().copied().collect::<Vec<_>>().join(", ");
                format!("{names} ({})", digest.chars().take(8).collect::<String>())
            });
            format!(
                "the members' states differ at revision {revision}: {}; this is a defect: keep the data directories, and \
                 replace the members that differ from the leader",
                sides.collect::<Vec<_>>().join(" against ")
            )
        };
        differing.map(describe).collect()
    }

    /// The cluster, its members, and what is wrong.
    pub(crate) fn text(&self) -> String {
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
        for (number, problem) in self.problems.iter().enumerate() {
            text.push_str(if number == 0 { "\n" } else { "" });
            text.push_str(&format!("problem: {}\n", table::plain(problem)));
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

impl MemberStatusView {
    fn row(&self, leader: Option<&str>) -> [String; 12] {
        let said = |text: String| if self.reachable { text } else { "-".to_owned() };
        let listeners = match (self.listeners_bound, self.listeners_failed) {
            (bound, 0) => bound.to_string(),
            (bound, failed) => format!("{bound}/{}", u64::from(bound) + u64::from(failed)),
        };
        let state = if self.reachable { &self.state } else { "unreachable" };
        let state = if self.draining { format!("{state}, draining") } else { state.to_owned() };
        [
            self.name.clone(),
            self.id.to_string(),
            self.role.to_owned(),
            state,
            yes_no(leader == Some(self.name.as_str())),
            said(self.revision.to_string()),
            said(self.in_force_revision.to_string()),
            said(listeners),
            said(self.connections.to_string()),
            said(self.vip_standing.clone().unwrap_or_default()),
            self.admin_address.clone(),
            said(self.version.clone()),
        ]
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
        status.members[0].vip_standing = "serving".to_owned();
        status.members[2].vip_standing.clear();
        status.members[2].member.as_mut().unwrap().draining = true;
        assert_eq!(
            StatusView::from(status).text(),
            "CLUSTER     00112233445566778899aabbccddeeff\n\
             LEADER      m1\n\
             TERM        3\n\
             REVISION    12\n\
             POOLS       1\n\
             BACKENDS    2\n\
             LISTENERS   1\n\
             VIPS        1\n\
             \n\
             NAME   ID   ROLE    STATE                LEADER   REVISION   IN-FORCE   LISTENERS   CONNECTIONS   VIP         ADDRESS          VERSION\n\
             m1     1    voter   leader               yes      12         12         1           5             serving     127.0.0.1:7480   0.1.0\n\
             m2     2    voter   follower             no       12         12         1           5             following   127.0.0.2:7480   0.1.0\n\
             m3     3    voter   follower, draining   no       12         12         1           5             -           127.0.0.3:7480   0.1.0\n"
        );
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
                "only 1 of 3 voters answer, and 2 are needed: bring back 1 of them",
                "m2 does not answer: connection refused",
                "m3 does not answer: connection refused",
            ]
        );
        let text = view.text();
        let row = "m2     2    voter   unreachable   no       -          -          -           -             -           \
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
            ["m2 has used its 18999 file descriptors for connections: new ones wait until others end"]
        );
    }

    #[test]
    fn what_a_member_finds_wrong_with_itself_is_told_with_its_name() {
        let mut status = sample_status();
        status.members[1].problems = vec!["its disk went back in time".to_owned()];
        assert_eq!(StatusView::from(status).problems, ["m2: its disk went back in time"]);
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
        let mut member = sample_member_status("m1", 0, "empty");
        member.digest.clear();
        let status = v1::ClusterStatus { members: vec![member], ..Default::default() };
        let view = StatusView::from(status);
        assert_eq!(view.problems.len(), 1);
        assert!(view.problems[0].contains("\"trestle cluster bootstrap\""));
        assert!(view.problems[0].contains("\"trestle member add 127.0.0.0:7481\""), "{:?}", view.problems);
        assert!(view.text().starts_with("CLUSTER     none\nLEADER      none\n"));
    }

    #[test]
    fn addresses_that_could_not_be_bound_are_counted() {
        let mut status = sample_status();
        status.members[2].listeners_failed = 2;
        let view = StatusView::from(status);
        assert!(view.text().contains("   1/3         "), "{}", view.text());
        assert_eq!(
            view.problems,
            ["m3 could not bind 2 listener addresses: \"trestle listener list\" says why"]
        );
    }
}
