//! What this member says of itself: facts that it can see now, never what it should be.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use prost::Message;
use tonic::Status;
use trestle_api::{convert, peer, v1};
use trestle_consensus::RaftState;
use trestle_dataplane::{Backend, CloseReason, DataPlane, Listener, Table, Verdict};
use trestle_engine::share::client_of;
use trestle_model::{
    AdminState, Bind, Choice as _, HostPort, Member, MemberName, PoolName, Revision, Violations,
};

use crate::accept::{ClientSource, PlainCallerSeen, PlainCallers};
use crate::admin::{PageBounds, fill};
use crate::health::ProcessHealth;
use crate::identities::{AuthorityKeys, generation_of_leaf};
use crate::lag::Lag;
use crate::peers::Peers;
use crate::report_values::{count, verdict};
use crate::this_member::ThisMember;
use crate::troubles;
use crate::vips::{self, OwnFitness, Vips};

/// Stands for all pools where one is asked for (AIP-159).
pub(crate) const ALL_POOLS: &str = "pools/-";
/// Most callers without TLS that are told of.
const PLAIN_CALLERS_TOLD: usize = 16;

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

/// What members say of themselves: this one by what it sees, the others when they are asked.
pub(crate) struct Reports {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) vips: Arc<Vips>,
    pub(crate) fitness: OwnFitness,
    pub(crate) health: Arc<ProcessHealth>,
    pub(crate) lag: Arc<Lag>,
    pub(crate) plain: Arc<PlainCallers>,
    pub(crate) started: Instant,
    /// The digest of the newest state that one was asked for.
    pub(crate) last_digest: Mutex<Option<(Revision, String)>>,
}

impl Reports {
    /// Asks one member for a report; this one answers itself without the network.
    pub(crate) async fn ask(
        &self,
        member: &Member,
        ask: &peer::ReportRequest,
    ) -> Result<peer::ReportResponse, Status> {
        if Some(member.id) == self.local.id() {
            return Ok(self.report(ask));
        }
        self.peers.report(member, ask).await
    }

    /// Asks all members for a report. Answers those that there are, with whose they are, and names the members that did not
    /// answer.
    pub(crate) async fn ask_all(
        &self,
        ask: peer::ReportRequest,
    ) -> (Vec<(MemberName, peer::ReportResponse)>, Vec<String>) {
        let known = self.local.known();
        let answers = join_all(known.iter().map(|member| self.ask(member, &ask))).await;
        let (mut reports, mut unreachable) = (Vec::new(), Vec::new());
        for (member, answer) in known.iter().zip(answers) {
            match answer {
                Ok(report) => reports.push((member.spec.name.clone(), report)),
                Err(_) => unreachable.push(convert::member_name(&member.spec.name)),
            }
        }
        (reports, unreachable)
    }

    /// Every virtual IP as this member's kernel has it.
    fn vip_reports(&self) -> Vec<peer::VipReport> {
        let state = self.local.consensus.view().borrow().state.clone();
        self.vips.reports(&state)
    }

    /// Answers a report that a peer, or this member itself, asks for.
    pub(crate) fn report(&self, ask: &peer::ReportRequest) -> peer::ReportResponse {
        let table = self.plane.table();
        let (backends, more_backends) = self.backend_reports(&table, ask);
        let (listeners, more_listeners) = self.listener_reports(&table, ask);
        let vips = if ask.vips { self.vip_reports() } else { Vec::new() };
        let vip_fit = ask.vip_candidate.as_ref().map(|candidate| vips::fit(&self.local.config, candidate));
        let mut status = ask.page.is_none().then(|| self.status(ask.no_digest));
        if let Some(status) = status.as_mut().filter(|_| ask.troubles) {
            status.unbound_listeners = troubles::unbound_listeners(&table);
            let (pools, total) = troubles::troubled_pools(&table);
            (status.troubled_pools, status.troubled_pools_total) = (pools, count(total));
            let held = self.vip_reports().into_iter().filter(|report| report.holds);
            status.held_vips = held.map(|report| report.name).collect();
            status.plain_callers = self.plain_callers();
        }
        if let Some(status) = status.as_mut().filter(|_| ask.authorities) {
            self.add_authorities(status);
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

    /// Which keys of authorities it has, and who has signed the certificate that it shows.
    fn add_authorities(&self, status: &mut peer::MemberReport) {
        let state = self.local.consensus.view().borrow().state.clone();
        let keys = AuthorityKeys::new(self.local.config.data_dir.clone());
        status.authority_keys =
            state.authorities.keys().copied().filter(|generation| keys.has(&state, *generation)).collect();
        let leaf = self.local.trust.leaf();
        status.certificate_authority =
            leaf.and_then(|leaf| generation_of_leaf(&state, &leaf)).unwrap_or_default();
    }

    /// Who has called without TLS lately, members first.
    fn plain_callers(&self) -> Vec<peer::PlainCaller> {
        let known = self.local.known();
        let member_at = |source: ClientSource| {
            let is_there = |address: &HostPort| {
                address
                    .as_socket()
                    .is_some_and(|known| ClientSource::Address(client_of(known.ip())) == source)
            };
            let found = known.iter().find(|member| is_there(&member.spec.peer_address))?;
            Some(convert::member_name(&found.spec.name))
        };
        let told = |seen: PlainCallerSeen| peer::PlainCaller {
            port: seen.port.to_owned(),
            address: seen.source.to_string(),
            member: member_at(seen.source).unwrap_or_default(),
            ago: Some(convert::duration(seen.ago)),
        };
        let mut callers: Vec<_> = self.plain.recent(Instant::now()).into_iter().map(told).collect();
        callers.sort_by_key(|caller| caller.member.is_empty());
        callers.truncate(PLAIN_CALLERS_TOLD);
        callers
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
        let view = self.local.consensus.view().borrow().clone();
        let raft = self.local.consensus.status();
        let table = self.plane.table();
        let listeners = table.listeners.values();
        let descriptors = self.plane.descriptors();
        let (fitness_revision, vip_faults) = self.fitness.messages();
        let dead_pools: Vec<_> = self.plane.dead_pools().iter().map(convert::pool_name).collect();
        peer::MemberReport {
            name: self.local.config.name.to_string(),
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
            unfit: self.vips.unfit(self.local.is_draining()),
            election_timeout_max: Some(convert::duration(self.local.consensus.timing().election_max)),
            problems: self.health.problems(),
            abstains: self.local.consensus.abstains().is_some(),
            join_addresses: self.join_addresses(),
            dead_pools,
            drained: table.drained,
            drain_left: table.drain_ends.map(left).map(convert::duration),
            vip_faults,
            fitness_revision,
            time: Some(SystemTime::now().into()),
            in_force_lag: self.lag.lasts(Instant::now()).map(convert::duration),
            insecure: self.local.config.insecure,
            waits_for: self.local.founding.waits().unwrap_or_default(),
            ..Default::default()
        }
    }

    /// Whom this member asks to be taken in, while it belongs to no cluster.
    fn join_addresses(&self) -> Vec<String> {
        match self.local.id() {
            Some(_) => Vec::new(),
            None => self.local.config.join.iter().map(ToString::to_string).collect(),
        }
    }

    /// The digest of the state, computed once for each revision: it walks the whole state.
    fn digest(&self) -> String {
        let state = self.local.consensus.view().borrow().state.clone();
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

    /// The cluster as this member knows it, with what the members said.
    pub(crate) fn cluster_status(&self, members: Vec<v1::MemberStatus>) -> v1::ClusterStatus {
        // What a removed member knew is nobody's configuration any more.
        let view = match self.local.consensus.was_removed() {
            true => Arc::default(),
            false => self.local.consensus.view().borrow().clone(),
        };
        let raft = self.local.consensus.status();
        let leader = raft.leader.and_then(|id| view.state.members.get(&id));
        v1::ClusterStatus {
            cluster_id: self.local.consensus.identity().map(|i| i.cluster_id.to_string()).unwrap_or_default(),
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
            feature_level: view.state.feature_level,
            transport: view.state.cluster_id.as_ref().map_or(0, |_| view.state.transport.number()),
            problems: Vec::new(),
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
