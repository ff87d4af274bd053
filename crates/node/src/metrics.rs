//! Metrics in the OpenMetrics text format. Values are read from their counters when they are asked for, so a resource that
//! is gone leaves nothing behind.

use std::fmt::{self, Error};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use trestle_api::peer::VipReport;
use trestle_consensus::{RaftState, RaftStatus};
use trestle_dataplane::{
    Backend, BudgetUse, CloseReason, DataPlane, Listener, ShortageKind, Table, TrafficCounts, Verdict,
};
use trestle_model::{Choice as _, TransportSecurity};

use crate::certificate_ends;
use crate::ports::{PortUse, ServicePorts};
use crate::this_member::ThisMember;
use crate::vips::Vips;

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
/// One kind of count of a listener or backend: metric name, help, and where it is found.
type CounterMetric = (&'static str, &'static str, fn(&TrafficCounts) -> u64);

const STATES: [RaftState; 8] = [
    RaftState::Empty,
    RaftState::Starting,
    RaftState::Learner,
    RaftState::Follower,
    RaftState::Candidate,
    RaftState::Leader,
    RaftState::Removed,
    RaftState::Stopped,
];

const LISTENER_COUNTS: &[CounterMetric] = &[
    ("trestle_listener_connections", "Connections accepted", |c| c.connections),
    ("trestle_listener_received_bytes", "Bytes received from clients", |c| c.bytes_in),
    ("trestle_listener_sent_bytes", "Bytes sent to clients", |c| c.bytes_out),
];

const BACKEND_COUNTS: &[CounterMetric] = &[
    ("trestle_backend_connections", "Connections established to the backend", |c| c.connections),
    ("trestle_backend_sent_bytes", "Bytes sent to the backend", |c| c.bytes_in),
    ("trestle_backend_received_bytes", "Bytes received from the backend", |c| c.bytes_out),
    ("trestle_backend_connect_failures", "Connects that failed or timed out", |c| c.connect_failures),
    ("trestle_backend_retries", "Connects that were tried again on another backend", |c| c.retries),
];

/// Tells how many log lines were dropped because the log's reader was too slow.
pub type DroppedLines = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What is counted on this member.
pub(crate) struct MetricSources {
    pub(crate) local: ThisMember,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) vips: Arc<Vips>,
    pub(crate) ports: ServicePorts,
    pub(crate) log_lines_dropped: DroppedLines,
}

/// Encodes everything that is counted on this member.
pub(crate) fn encode(sources: &MetricSources) -> Result<String, Error> {
    let mut registry = Registry::default();
    let MetricSources { local, plane, vips, ports, log_lines_dropped } = sources;
    let table = plane.table();
    let state = local.consensus.view().borrow().state.clone();
    let listeners = table.listeners.values().map(|l| (l.clone(), plane.listener_counts(l))).collect();
    let backends = table.pools.values().flat_map(|pool| &pool.backends);
    let backends = backends.map(|b| (b.clone(), plane.backend_counts(b))).collect();
    let own = local.trust.leaf();
    registry.register_collector(Box::new(MetricsSnapshot {
        raft: local.consensus.status(),
        revision: state.revision,
        in_force: *plane.in_force().borrow(),
        table,
        listeners,
        backends,
        log_lines_dropped: log_lines_dropped(),
        access_lines_dropped: plane.access_log_dropped(),
        descriptors: plane.descriptors(),
        shortages: plane.shortage_counts().collect(),
        vips: vips.reports(&state),
        unfit: vips.unfit(local.is_draining()).len() as u64,
        ports: ports.read(),
        transport: local.trust.lets_in(),
        certificate_ends: certificate_ends::ends(&state, own.as_ref().map(|leaf| leaf.facts())),
        clock_skew: local.trust.clock_skew(),
        log_time: state.time_ms / 1000,
    }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Everything that one answer shows.
struct MetricsSnapshot {
    raft: RaftStatus,
    revision: u64,
    in_force: u64,
    table: Arc<Table>,
    listeners: Vec<(Arc<Listener>, TrafficCounts)>,
    backends: Vec<(Arc<Backend>, TrafficCounts)>,
    log_lines_dropped: u64,
    access_lines_dropped: u64,
    descriptors: BudgetUse,
    shortages: Vec<(ShortageKind, u64)>,
    vips: Vec<VipReport>,
    unfit: u64,
    ports: [PortUse; 4],
    transport: TransportSecurity,
    certificate_ends: Vec<(&'static str, u64)>,
    clock_skew: Option<f64>,
    log_time: u64,
}

impl fmt::Debug for MetricsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Writes one metric with any number of label sets.
fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    values: impl IntoIterator<Item = (L, u64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        value_of(metric.encode_family(&labels)?, kind, value)?;
    }
    Ok(())
}

/// Writes one metric without labels.
fn single(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    value: u64,
) -> Result<(), Error> {
    value_of(encoder.encode_descriptor(name, help, None, kind)?, kind, value)
}

fn value_of(mut metric: MetricEncoder<'_>, kind: MetricType, value: u64) -> Result<(), Error> {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        _ => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

impl Collector for MetricsSnapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.encode_member(&mut encoder)?;
        self.encode_listeners(&mut encoder)?;
        self.encode_backends(&mut encoder)?;
        self.encode_vips(&mut encoder)
    }
}

impl MetricsSnapshot {
    fn encode_member(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let states = STATES
            .map(|state| (vec![("state", state.as_str().to_owned())], u64::from(state == self.raft.state)));
        family(
            encoder,
            ("trestle_raft_state", "1 for the part that this member has in Raft"),
            MetricType::Gauge,
            states,
        )?;
        let gauges = [
            ("trestle_raft_term", "Raft term", self.raft.term),
            (
                "trestle_raft_leader_id",
                "Id of the leader that this member knows; 0 if none",
                self.raft.leader.map_or(0, |id| id.0),
            ),
            ("trestle_raft_last_log_index", "Index of the last log entry", self.raft.last_log_index),
            ("trestle_raft_committed_index", "Index of the last committed log entry", self.raft.committed),
            ("trestle_raft_applied_index", "Index of the last applied log entry", self.raft.applied),
            ("trestle_raft_voters", "Members that vote", self.raft.voters.len() as u64),
            ("trestle_raft_learners", "Members that do not vote", self.raft.learners.len() as u64),
            ("trestle_revision", "Revision of the configuration that this member knows", self.revision),
            ("trestle_in_force_revision", "Revision that is in force in the data plane", self.in_force),
        ];
        for (name, help, value) in gauges {
            single(encoder, (name, help), MetricType::Gauge, value)?;
        }
        let transports = TransportSecurity::TABLE.iter().map(|known| {
            (vec![("transport", known.word.to_owned())], u64::from(known.value == self.transport))
        });
        family(
            encoder,
            (
                "trestle_transport_security",
                "1 for what the admin and peer ports of this member accept: off and accept let in whoever reaches them",
            ),
            MetricType::Gauge,
            transports,
        )?;
        self.encode_times(encoder)?;
        let dropped =
            ("trestle_log_lines_dropped", "Log lines dropped because the log's reader was too slow");
        single(encoder, dropped, MetricType::Counter, self.log_lines_dropped)?;
        self.encode_connections(encoder)?;
        self.encode_ports(encoder)?;
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        family(encoder, ("trestle_build_info", "The program's version"), MetricType::Gauge, [(build, 1)])
    }

    /// Ends are times rather than what is left, so that they are right however old the answer is.
    fn encode_times(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let ends = self.certificate_ends.iter().map(|(kind, end)| (vec![("kind", (*kind).to_owned())], *end));
        family(
            encoder,
            (
                "trestle_certificate_expiry_timestamp_seconds",
                "When the certificate of this member and of the authority that signs end, and the first of the users', since 1970",
            ),
            MetricType::Gauge,
            ends,
        )?;
        if self.log_time > 0 {
            let about =
                ("trestle_log_timestamp_seconds", "The time that the cluster's log has come to, since 1970");
            single(encoder, about, MetricType::Gauge, self.log_time)?;
        }
        let Some(skew) = self.clock_skew else { return Ok(()) };
        let about = "How far this machine's clock is ahead of what a quorum of the voters' clocks agree on; missing if none does";
        let mut metric =
            encoder.encode_descriptor("trestle_clock_skew_seconds", about, None, MetricType::Gauge)?;
        metric.encode_gauge(&skew)
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let dropped = (
            "trestle_access_log_dropped",
            "Lines of the access log that could not be written, or not fast enough",
        );
        single(encoder, dropped, MetricType::Counter, self.access_lines_dropped)?;
        let pauses =
            ("trestle_accept_pauses", "How often accepting paused because file descriptors were used up");
        single(encoder, pauses, MetricType::Counter, self.descriptors.pauses)?;
        let met = self.shortages.iter().map(|(kind, count)| {
            let labels: Labels = vec![("kind", kind.as_str().to_owned())];
            (labels, *count)
        });
        let about = (
            "trestle_shortages",
            "Connects and checks that could not be made for want of something on this member",
        );
        family(encoder, about, MetricType::Counter, met)?;
        let used = ("trestle_descriptors_used", "File descriptors of listening sockets and connections");
        single(encoder, used, MetricType::Gauge, self.descriptors.used as u64)?;
        let Some(limit) = self.descriptors.limit else { return Ok(()) };
        let max =
            ("trestle_descriptors_max", "File descriptors that these may have; missing if there is no limit");
        single(encoder, max, MetricType::Gauge, limit as u64)
    }

    fn encode_ports(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let port = |port: &PortUse| ("port", port.name.to_owned());
        let open = self.ports.iter().map(|used| (vec![port(used)], used.open));
        let about = ("trestle_port_connections", "Connections that are open at a port of the member itself");
        family(encoder, about, MetricType::Gauge, open)?;
        let refusals = self.ports.iter().flat_map(|used| {
            used.refusals.map(|(reason, count)| (vec![port(used), ("reason", reason.to_owned())], count))
        });
        let about = (
            "trestle_port_refusals",
            "Connections and calls at a port of the member itself that were refused or given up, by reason",
        );
        family(encoder, about, MetricType::Counter, refusals)
    }

    /// A sum over the members above 1 is what must never be.
    fn encode_vips(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let of = |value: fn(&VipReport) -> u64| {
            self.vips.iter().map(move |view| {
                let name = view.name.strip_prefix("vips/").unwrap_or(&view.name).to_owned();
                (vec![("vip", name)] as Labels, value(view))
            })
        };
        let holds = ("trestle_vip_holds", "Whether this member's kernel serves the virtual IP");
        family(encoder, holds, MetricType::Gauge, of(|view| u64::from(view.holds)))?;
        let foreign = ("trestle_vip_foreign_claims", "Whether another host was heard to claim it");
        family(encoder, foreign, MetricType::Gauge, of(|view| u64::from(!view.foreign_mac.is_empty())))?;
        let unfit =
            ("trestle_vip_unfit_reasons", "Reasons for which another member had better hold virtual IPs");
        single(encoder, unfit, MetricType::Gauge, self.unfit)
    }

    fn encode_listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let all: Vec<_> = self
            .listeners
            .iter()
            .map(|(l, counts)| (vec![("listener", l.config.name.to_string())], l, counts))
            .collect();
        let gauge = |value: fn(&Listener, &TrafficCounts) -> u64| {
            all.iter().map(move |(labels, listener, counts)| (labels.clone(), value(listener, counts)))
        };
        let about = ("trestle_listener_active_connections", "Connections that are open now");
        family(encoder, about, MetricType::Gauge, gauge(|_, counts| counts.active))?;
        let about = ("trestle_listener_addresses_bound", "Addresses that accept connections");
        family(encoder, about, MetricType::Gauge, gauge(|listener, _| listener.bound().count() as u64))?;
        let about = ("trestle_listener_addresses_failed", "Addresses that could not be bound");
        family(encoder, about, MetricType::Gauge, gauge(|listener, _| listener.failed().count() as u64))?;
        for (name, help, value) in LISTENER_COUNTS {
            let values = all.iter().map(|(labels, _, counts)| (labels.clone(), value(counts)));
            family(encoder, (name, help), MetricType::Counter, values)?;
        }
        let closes = all.iter().flat_map(|(labels, _, counts)| closes(labels, counts));
        let about = ("trestle_listener_closes", "Connections that ended, by reason");
        family(encoder, about, MetricType::Counter, closes)
    }

    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut all = Vec::new();
        for (backend, counts) in &self.backends {
            let labels: Labels =
                vec![("pool", backend.pool().to_string()), ("backend", backend.config.name.to_string())];
            all.push((labels, backend, counts));
        }
        let verdicts = all.iter().flat_map(|(labels, backend, _)| {
            [Verdict::Unknown, Verdict::Healthy, Verdict::Unhealthy].map(|verdict| {
                let labels = [labels.clone(), vec![("verdict", verdict.to_string())]].concat();
                (labels, u64::from(self.table.verdict(backend) == verdict))
            })
        });
        let about = ("trestle_backend_verdict", "1 for this member's verdict on the backend");
        family(encoder, about, MetricType::Gauge, verdicts)?;
        let active = all.iter().map(|(labels, _, counts)| (labels.clone(), counts.active));
        let about = ("trestle_backend_active_connections", "Connections that are open now");
        family(encoder, about, MetricType::Gauge, active)?;
        let checks = all.iter().flat_map(|(labels, _, counts)| {
            [("success", counts.checks_ok), ("failure", counts.checks_failed)].map(|(result, count)| {
                ([labels.clone(), vec![("result", result.to_owned())]].concat(), count)
            })
        });
        family(encoder, ("trestle_backend_checks", "Checks, by result"), MetricType::Counter, checks)?;
        for (name, help, value) in BACKEND_COUNTS {
            let values = all.iter().map(|(labels, _, counts)| (labels.clone(), value(counts)));
            family(encoder, (name, help), MetricType::Counter, values)?;
        }
        let closes = all.iter().flat_map(|(labels, _, counts)| closes(labels, counts));
        let about = ("trestle_backend_closes", "Connections that ended, by reason");
        family(encoder, about, MetricType::Counter, closes)
    }
}

/// Connections that ended, by reason; reasons that never happened are left out, since there are many backends.
fn closes(labels: &Labels, counts: &TrafficCounts) -> Vec<(Labels, u64)> {
    CloseReason::ALL
        .into_iter()
        .map(|reason| {
            ([labels.clone(), vec![("reason", reason.as_str().to_owned())]].concat(), counts.closed(reason))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}
