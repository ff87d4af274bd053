//! What is wrong with the cluster, in plain words.

use std::collections::{BTreeMap, BTreeSet};

use super::StatusView;
use super::member::MemberStatusView;
use crate::view::{grouped, or_dash};

/// How long a data plane may lack a revision, in seconds: a new listener waits 2 s for the first checks of its backends.
const LAG_MAX: f64 = 3.0;

impl StatusView {
    pub(super) fn no_cluster(&self, found: bool) -> String {
        let own = self.members.first();
        let peer = own.map(|m| m.peer_address.as_str()).filter(|a| !a.is_empty()).unwrap_or("HOST:PORT");
        let asked = own.map(|m| m.join_addresses.join(", ")).filter(|asked| !asked.is_empty());
        let none = "this member belongs to no cluster yet";
        if let Some(own) = own.filter(|own| !own.waits_for.is_empty()) {
            return format!("{none}: it {}", own.waits_for);
        }
        match asked {
            Some(asked) => format!(
                "{none} and asks {asked} to take it in: see its log for why that takes long, or run \"trestle member add \
                 {peer}\" on a member of the cluster"
            ),
            None if found => format!(
                "{none}: create one with \"trestle cluster bootstrap\" as root on its machine, or let it join one with \"trestled \
                 join\" there and a token of \"trestle token create\"; into a cluster without identities \"trestle member add {peer}\" \
                 on one of its members takes it"
            ),
            None => {
                format!("{none}: run \"trestle member add {peer}\" on a member of the cluster to take it in")
            }
        }
    }

    /// What is wrong, the worst first.
    pub(super) fn find_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let quorum = self.quorum_problem();
        let removed = self.members.iter().all(|m| m.state == "removed");
        if self.leader.is_none() && !removed {
            let next = if quorum.is_none() { "; an election takes a moment, so ask again" } else { "" };
            problems.push(format!(
                "no leader is known: changes and fresh reads are refused until there is one{next}"
            ));
        }
        problems.extend(quorum);
        problems.extend(self.silent_problems());
        problems.extend(self.vip_problems());
        if let Some(first) = self.members.first().filter(|_| self.members.iter().all(|m| m.draining)) {
            problems.push(format!(
                "all members are drained, so none takes new connections: \"trestle member enable {}\" ends that for one",
                first.name
            ));
        }
        problems.extend(self.pool_problems(true));
        problems.extend(self.listener_problems());
        let own =
            self.members.iter().flat_map(|m| m.problems.iter().map(|why| (m.name.clone(), why.clone())));
        problems.extend(grouped(own).into_iter().map(|(why, names)| format!("{}: {why}", names.join(", "))));
        problems.extend(self.cluster_problems.iter().cloned());
        // A connection takes two.
        let full = |m: &&MemberStatusView| m.descriptors_max.is_some_and(|max| m.descriptors_used + 2 > max);
        for m in self.members.iter().filter(full) {
            problems.push(format!(
                "{} has used its {} file descriptors for connections: new ones wait until others end; raise its limit \
                 (LimitNOFILE, ulimit -n), or see \"trestle connection list\"",
                m.name, m.descriptors_used
            ));
        }
        problems.extend(self.pool_problems(false));
        problems.extend(self.unnamed_pools());
        problems.extend(self.lag_problems());
        problems.extend(self.timing_problems());
        problems.extend(self.clock_problems());
        problems.extend(self.digest_problems());
        problems
    }

    /// What somebody wanted so, and may have forgotten.
    pub(super) fn find_notes(&self) -> Vec<String> {
        let drained = self.members.iter().filter(|m| m.draining);
        let note = |m: &MemberStatusView| {
            let open = match (m.reachable, m.connections) {
                (false, _) => String::new(),
                (true, 0) => " and has no connection open".to_owned(),
                (true, 1) => " and has 1 connection open".to_owned(),
                (true, open) => format!(" and has {open} connections open"),
            };
            let left = m.drain_left.filter(|_| m.connections > 0);
            let left = left.map(|left| format!(", which the drain closes in {left}")).unwrap_or_default();
            format!("{0} is drained{open}{left}: \"trestle member enable {0}\" ends that", m.name)
        };
        drained.map(note).collect()
    }

    /// That nobody has to prove anything, where that is so.
    pub(super) fn transport_note(&self) -> Option<String> {
        let how = match self.transport? {
            "off" => "neither members nor clients prove who they are",
            "accept" => "plain connections are accepted beside TLS",
            _ => return None,
        };
        Some(format!(
            "{how}, so whoever reaches an admin or peer port rules the cluster: \"trestle cluster secure\" shows the way from there"
        ))
    }

    fn silent_problems(&self) -> Vec<String> {
        let silent = self.members.iter().filter(|m| !m.reachable);
        let told = |m: &MemberStatusView| {
            let error = m.error.as_deref().filter(|e| !e.is_empty()).unwrap_or("no reason given");
            let leads = if self.leader.as_deref() == Some(&m.name) { ", the last known leader," } else { "" };
            format!(
                "{}{leads} does not answer at {}: {error}; \"systemctl status trestled\" there says whether it runs",
                m.name, m.peer_address
            )
        };
        silent.map(told).collect()
    }

    pub(super) fn quorum_problem(&self) -> Option<String> {
        // Members asked with --local tell nothing of the others, and a record alone does not say who answers.
        let voters: Vec<_> = self.members.iter().filter(|m| m.role == "voter").collect();
        let (all, answering) = (voters.len(), voters.iter().filter(|m| m.reachable).count());
        let needed = all / 2 + 1;
        let silent: Vec<&str> = voters.iter().filter(|m| !m.reachable).map(|m| m.name.as_str()).collect();
        (all > 0 && answering < needed).then(|| {
            format!(
                "only {answering} of {all} voters answer, and {needed} are needed: bring back {} of them ({})",
                needed - answering,
                silent.join(", ")
            )
        })
    }

    /// Members that lack what others have, for longer than it takes.
    fn lag_problems(&self) -> Vec<String> {
        let newest = self
            .members
            .iter()
            .filter(|m| m.reachable)
            .max_by_key(|m| (m.revision, self.leader.as_ref() == Some(&m.name)));
        let mut problems = Vec::new();
        for m in self.members.iter().filter(|m| m.reachable) {
            if let (true, Some(newest)) = (m.behind, newest) {
                problems.push(format!(
                    "{} is behind: it knows revision {}, and {} has {}; it is being filled, or the leader does not reach it: its log \
                     says so (\"journalctl -u trestled\" there)",
                    m.name, m.revision, newest.name, newest.revision
                ));
            }
            if let Some(lag) = m.in_force_lag_seconds.filter(|lag| *lag > LAG_MAX) {
                problems.push(format!(
                    "{} has lacked a revision in its data plane for {lag:.0} s: {} is in force of {}; \"trestle listener list\" shows \
                     what is not bound there, and its log says more (\"journalctl -u trestled\")",
                    m.name, m.in_force_revision, m.revision
                ));
            }
        }
        problems
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
}
