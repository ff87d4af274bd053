//! What this member says of itself: facts that it can see now, never what it should be.

use std::ops::Bound;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use trestle_api::{convert, peer, v1};
use trestle_consensus::RaftState;
use trestle_dataplane::{Backend, CloseReason, DataPlane, Listener, Table, Verdict};
use trestle_model::{AdminState, Bind, PoolName, Revision, Violations};

use crate::admin::{PageBounds, fill};
use crate::member::Member;
use crate::troubles;

/// Stands for all pools where one is asked for (AIP-159).
pub(crate) const ALL_POOLS: &str = "pools/-";

/// What a page begins after; `None` to begin with the first.
fn parse_after<K>(
    ask: &peer::ReportRequest,
    parse: impl Fn(&str, &str, &mut Violations) -> Option<K>,
) -> Option<K> {
    let page = ask.page.as_ref().filter(|page| !page.after.is_empty())?;
    parse("after", &page.after, &mut Violations::new())
}

fn bounds(ask: &peer::ReportRequest) -> PageBounds {
    let bytes = ask.page.as_ref().map(|page| usize::try_from(page.bytes_max).unwrap_or(usize::MAX));
    bytes.map_or(PageBounds::NONE, |bytes| PageBounds { bytes, ..PageBounds::NONE })
}

pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Member {
    /// The revision of the configuration that this member knows.
    pub(crate) fn revision(&self) -> Revision {
        self.consensus.view().borrow().state.revision
    }

    /// Answers a report that a peer, or this member itself, asks for.
    pub(crate) fn report(&self, ask: &peer::ReportRequest) -> peer::ReportResponse {
        let table = self.plane.table();
        let (backends, more_backends) = self.backend_reports(&table, ask);
        let (listeners, more_listeners) = self.listener_reports(&table, ask);
        let vips = if ask.vips { self.vip_reports() } else { Vec::new() };
        let vip_fit = ask.vip_candidate.as_ref().map(|candidate| self.vip_fit(candidate));
        let mut status = ask.page.is_none().then(|| self.status(ask.no_digest));
        if let Some(status) = status.as_mut().filter(|_| ask.troubles) {
            status.unbound_listeners = troubles::unbound_listeners(&table);
            let (pools, total) = troubles::troubled_pools(&table);
            (status.troubled_pools, status.troubled_pools_total) = (pools, count(total));
            let held = self.vip_reports().into_iter().filter(|report| report.holds);
            status.held_vips = held.map(|report| report.name).collect();
        }
        peer::ReportResponse {
            status,
            backends,
            listeners,
            vips,
            vip_fit,
            more: more_backends || more_listeners,
        }
    }

    /// The backends that are asked for, and whether there are more after them.
    fn backend_reports(&self, table: &Table, ask: &peer::ReportRequest) -> (Vec<peer::BackendReport>, bool) {
        let all = ask.pool == ALL_POOLS;
        let pool = ask.pool.strip_prefix("pools/").and_then(|id| PoolName::parse(id).ok());
        let after = parse_after(ask, convert::parse_backend_name);
        let asked = table.pools.iter().filter(|(id, _)| all || pool.as_ref() == Some(*id));
        let backends = asked.flat_map(|(id, entry)| {
            let seen = |backend: &Arc<Backend>| {
                let after = after.as_ref();
                after.is_some_and(|(pool, name)| (id, &backend.config.name) <= (pool, name))
            };
            let first = entry.backends.partition_point(seen);
            entry.backends.iter().skip(first).map(move |backend| (id, backend))
        });
        let reports = backends.map(|(id, backend)| {
            let name = convert::backend_name(id, &backend.config.name);
            ((), peer::BackendReport { name, ..backend_report(&self.plane, table, backend, !all) })
        });
        let (reports, rest) = fill(reports, bounds(ask), Message::encoded_len);
        (reports, rest.is_some())
    }

    /// The same of listeners.
    fn listener_reports(
        &self,
        table: &Table,
        ask: &peer::ReportRequest,
    ) -> (Vec<peer::ListenerReport>, bool) {
        let after = parse_after(ask, convert::parse_listener_name);
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = |listener: &&Arc<Listener>| {
            ask.listeners
                && (ask.listener.is_empty() || ask.listener == convert::listener_name(&listener.config.name))
        };
        let listeners = table.listeners.range((start, Bound::Unbounded)).map(|(_, listener)| listener);
        let reports = listeners.filter(wanted).map(|listener| ((), listener_report(&self.plane, listener)));
        let (reports, rest) = fill(reports, bounds(ask), Message::encoded_len);
        (reports, rest.is_some())
    }

    fn status(&self, no_digest: bool) -> peer::MemberReport {
        let view = self.consensus.view().borrow().clone();
        let raft = self.consensus.status();
        let table = self.plane.table();
        let listeners = table.listeners.values();
        let descriptors = self.plane.descriptors();
        let (fitness_revision, vip_faults) = self.fitness();
        let dead_pools: Vec<_> = self.plane.dead_pools().iter().map(convert::pool_name).collect();
        peer::MemberReport {
            name: self.config.name.to_string(),
            raft_state: raft_state(raft.state).into(),
            term: raft.term,
            applied_index: view.applied,
            revision: view.state.revision,
            in_force_revision: *self.plane.in_force().borrow(),
            digest: if no_digest { String::new() } else { self.digest() },
            listeners_bound: count(listeners.clone().map(|l| l.bound().count()).sum()),
            listeners_failed: count(listeners.clone().map(|l| l.failed().count()).sum()),
            active_connections: listeners.map(|l| self.plane.listener_counts(l).active).sum(),
            backends_unhealthy: count(
                table
                    .pools
                    .values()
                    .flat_map(|p| &p.backends)
                    .filter(|b| table.verdict(b) == Verdict::Unhealthy)
                    .count(),
            ),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: Some(convert::duration(self.started.elapsed())),
            descriptors_used: descriptors.used as u64,
            descriptors_max: descriptors.limit.map_or(0, |limit| limit as u64),
            vip_standing: self.vips.standing().into(),
            unfit: self.vips.unfit(),
            election_timeout_max: Some(convert::duration(self.consensus.timing().election_max)),
            problems: self.problems(),
            abstains: self.consensus.abstains().is_some(),
            join_addresses: self.join_addresses(),
            dead_pools,
            drained: table.drained,
            drain_left: table.drain_ends.map(left).map(convert::duration),
            vip_faults,
            fitness_revision,
            time: Some(SystemTime::now().into()),
            in_force_lag: self.lag.lasts(Instant::now()).map(convert::duration),
            ..Default::default()
        }
    }

    /// Whom this member asks to be taken in, while it belongs to no cluster.
    fn join_addresses(&self) -> Vec<String> {
        match self.id() {
            Some(_) => Vec::new(),
            None => self.config.join.iter().map(ToString::to_string).collect(),
        }
    }

    /// The digest of the state, computed once for each revision: it walks the whole state.
    fn digest(&self) -> String {
        let state = self.consensus.view().borrow().state.clone();
        let mut last = self.last_digest.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref() {
            Some((revision, digest)) if *revision == state.revision => digest.clone(),
            _ => {
                let digest = trestle_api::stored::state_digest(&state).to_string();
                *last = Some((state.revision, digest.clone()));
                digest
            }
        }
    }

    /// The record of this member itself. Before it joins, and once it was removed, it knows only what its configuration says.
    pub(crate) fn own_record(&self) -> v1::Member {
        let state = self.consensus.view().borrow().state.clone();
        let known = self.id().filter(|_| !self.consensus.was_removed());
        match known.and_then(|id| state.members.get(&id)) {
            Some(member) => self.rendered(member),
            None => v1::Member {
                name: convert::member_name(&self.config.name),
                peer_address: self.config.advertise_peer_address.to_string(),
                admin_address: self.config.advertise_admin_address.to_string(),
                ..Default::default()
            },
        }
    }

    /// The cluster as this member knows it, with what the members said.
    pub(crate) fn cluster_status(&self, members: Vec<v1::MemberStatus>) -> v1::ClusterStatus {
        // What a removed member knew is nobody's configuration any more.
        let view = match self.consensus.was_removed() {
            true => Arc::default(),
            false => self.consensus.view().borrow().clone(),
        };
        let raft = self.consensus.status();
        let leader = raft.leader.and_then(|id| view.state.members.get(&id));
        v1::ClusterStatus {
            cluster_id: self.consensus.identity().map(|i| i.cluster_id.to_string()).unwrap_or_default(),
            leader: leader.map(|member| convert::member_name(&member.spec.name)).unwrap_or_default(),
            term: raft.term,
            revision: view.state.revision,
            members,
            counts: Some(v1::ResourceCounts {
                pools: count(view.state.pools.len()),
                backends: count(view.state.pools.values().map(|entry| entry.backends.len()).sum()),
                listeners: count(view.state.listeners.len()),
                vips: count(view.state.vips.len()),
            }),
            vips: view.state.vips.keys().map(convert::vip_name).collect(),
        }
    }
}

/// Time until a moment; none once it has come.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn raft_state(state: RaftState) -> peer::RaftState {
    match state {
        RaftState::Empty => peer::RaftState::Empty,
        RaftState::Starting => peer::RaftState::Starting,
        RaftState::Learner => peer::RaftState::Learner,
        RaftState::Follower => peer::RaftState::Follower,
        RaftState::Candidate => peer::RaftState::Candidate,
        RaftState::Leader => peer::RaftState::Leader,
        RaftState::Removed => peer::RaftState::Removed,
        RaftState::Stopped => peer::RaftState::Stopped,
    }
}

pub(crate) fn verdict(verdict: Verdict) -> peer::Verdict {
    match verdict {
        Verdict::Unknown => peer::Verdict::Unknown,
        Verdict::Healthy => peer::Verdict::Healthy,
        Verdict::Unhealthy => peer::Verdict::Unhealthy,
    }
}

/// The history of thousands of backends would be most of an answer that is asked for every second.
fn backend_report(
    plane: &DataPlane,
    table: &Table,
    backend: &Backend,
    with_history: bool,
) -> peer::BackendReport {
    let counts = plane.backend_counts(backend);
    peer::BackendReport {
        name: String::new(),
        verdict: verdict(table.verdict(backend)).into(),
        reason: table.grounds(backend),
        since: Some(convert::duration(Instant::now().saturating_duration_since(backend.since))),
        active_connections: counts.active,
        connections: counts.connections,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        connect_failures: counts.connect_failures,
        address: backend.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        other_addresses: backend
            .other_addresses()
            .filter(|_| with_history)
            .map(|ip| ip.to_string())
            .collect(),
        drain_left: backend.drain_ends.map(left).map(convert::duration),
        draining: matches!(backend.config.admin_state, AdminState::Draining { .. }),
        history: backend
            .history()
            .iter()
            // What checks found of a listener of the cluster is no verdict on a backend.
            .filter(|_| with_history && table.barred(backend).is_none())
            .map(|change| peer::VerdictChange {
                verdict: verdict(change.verdict).into(),
                reason: change.grounds(),
                ago: Some(convert::duration(change.ago())),
            })
            .collect(),
    }
}

fn listener_report(plane: &DataPlane, listener: &Listener) -> peer::ListenerReport {
    let counts = plane.listener_counts(listener);
    let unserved = [
        CloseReason::NoBackend,
        CloseReason::QueueFull,
        CloseReason::QueueTimeout,
        CloseReason::ConnectFailed,
        CloseReason::NoResources,
        CloseReason::Loop,
    ];
    peer::ListenerReport {
        name: convert::listener_name(&listener.config.name),
        bound: Bind::ranges(listener.bound()).iter().map(ToString::to_string).collect(),
        errors: listener.errors(),
        bind_failures: troubles::bind_failures(listener),
        active_connections: counts.active,
        connections: counts.connections,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        failures: unserved.into_iter().map(|reason| counts.closed(reason)).sum(),
    }
}
