//! Puts a member together: makes its parts, gives each service those that it uses, and starts the servers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trestle_dataplane::DataPlane;
use trestle_model::ClusterState;

use crate::accept::PlainCallers;
use crate::access::{AccessControl, Entrance, LocalUsers};
use crate::admin::{Admin, AdminTurns};
use crate::connections::OwnConnections;
use crate::events::{EventSources, Journal};
use crate::health::ProcessHealth;
use crate::http::{self, HttpPages};
use crate::identities::{ClockFollower, OwnLeaf, Signer};
use crate::joining::{self, Joins};
use crate::lag::{self, Lag};
use crate::local_socket::LocalSocket;
use crate::metrics::{DroppedLines, MetricSources};
use crate::own_sockets::OwnSockets;
use crate::peer::PeerServer;
use crate::peers::Peers;
use crate::ports::ServicePorts;
use crate::registration::{self, Registrar};
use crate::report::Reports;
use crate::revision_waits::RevisionWaits;
use crate::supervise::{Lifetime, Supervisor};
use crate::this_member::ThisMember;
use crate::vips::{OwnFitness, Succession, Transfers, Vips, Whole};
use crate::{join, levels, serve, state_follower};

/// What serves, and what ends it.
pub(crate) struct Servers {
    /// Cancelled first: readiness fails.
    pub(crate) leaving: CancellationToken,
    /// Cancelled when connections have finished: servers end.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

/// The parts of a member that is about to serve.
pub(crate) struct MemberParts {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
    pub(crate) plane: Arc<DataPlane>,
    vips: Arc<Vips>,
    pub(crate) supervisor: Supervisor,
    pub(crate) journal: Journal,
    health: Arc<ProcessHealth>,
    fitness: OwnFitness,
    pub(crate) leaf: OwnLeaf,
    pub(crate) succession: Succession,
}

impl MemberParts {
    /// Founds a cluster with others or joins one, as its configuration says, until the stop.
    pub(crate) fn come_in(&self, stop: &CancellationToken) {
        let join = join::ask(self.local.clone(), self.leaf.clone(), self.peers.clone(), stop.clone());
        self.supervisor.spawn(&tokio::runtime::Handle::current(), "join", Lifetime::UntilDone, join);
    }

    pub(crate) fn new(
        local: ThisMember,
        leaf: OwnLeaf,
        plane: Arc<DataPlane>,
        vips: Arc<Vips>,
        journal: Journal,
    ) -> Self {
        let (peers, supervisor) = (Peers::new(local.clone()), Supervisor::new());
        let health = Arc::new(ProcessHealth {
            local: local.clone(),
            plane: plane.clone(),
            vips: vips.clone(),
            supervisor: supervisor.clone(),
            leaf: leaf.clone(),
        });
        let fitness = OwnFitness::new(local.clone(), plane.clone(), &vips);
        let succession = Succession::new(local.clone(), peers.clone(), vips.clone(), fitness.clone());
        Self { local, peers, plane, vips, supervisor, journal, health, fitness, leaf, succession }
    }

    /// Whether every part of the process gives signs of life. A process that is gone has no parts to miss.
    pub(crate) fn whole(&self) -> Whole {
        let weak = Arc::downgrade(&self.health);
        Arc::new(move || weak.upgrade().is_none_or(|health| health.is_whole()))
    }

    fn reports(&self, lag: Arc<Lag>, plain: Arc<PlainCallers>) -> Arc<Reports> {
        Arc::new(Reports {
            local: self.local.clone(),
            peers: self.peers.clone(),
            plane: self.plane.clone(),
            vips: self.vips.clone(),
            fitness: self.fitness.clone(),
            health: self.health.clone(),
            lag,
            plain,
            started: Instant::now(),
            last_digest: Default::default(),
        })
    }

    fn metrics(&self, ports: &ServicePorts, log_lines_dropped: DroppedLines) -> MetricSources {
        MetricSources {
            local: self.local.clone(),
            plane: self.plane.clone(),
            vips: self.vips.clone(),
            ports: ports.clone(),
            log_lines_dropped,
        }
    }

    /// Starts the servers, and what looks after this member's place in the cluster and how far its data plane is.
    pub(crate) fn serve(
        &self,
        own: OwnSockets,
        local_socket: Option<LocalSocket>,
        state: watch::Sender<Arc<ClusterState>>,
        log_lines_dropped: DroppedLines,
    ) -> std::io::Result<Servers> {
        let Self { local, peers, plane, supervisor, journal, health, succession, leaf, .. } = self;
        let (leaving, stop) = (CancellationToken::new(), CancellationToken::new());
        let (api, raft) = (tokio::runtime::Handle::current(), local.consensus.runtime());
        let signer = Signer::new(local.clone(), peers.clone());
        let ports = ServicePorts::new(local, &leaf.watch());
        let lag = Arc::new(Lag::default());
        let waits = RevisionWaits::new(local.clone(), peers.clone(), plane.clone());
        let events = EventSources { local: local.clone(), peers: peers.clone(), journal: journal.clone() };
        let connections = OwnConnections { consensus: local.consensus.clone(), plane: plane.clone() };
        let joins = Joins { local: local.clone(), peers: peers.clone(), signer: signer.clone() };
        let registrar = Registrar { local: local.clone(), peers: peers.clone() };
        let reports = self.reports(lag.clone(), ports.plain.clone());
        let admin = Admin {
            local: local.clone(),
            peers: peers.clone(),
            plane: plane.clone(),
            reports: reports.clone(),
            waits: waits.clone(),
            events: events.clone(),
            connections: connections.clone(),
            transfers: Transfers::new(succession.clone()),
            signer: signer.clone(),
            leaf: leaf.clone(),
            joins: joins.clone(),
            turns: AdminTurns::default(),
        };
        let peer_server = PeerServer {
            local: local.clone(),
            admin: admin.clone(),
            reports,
            registrar: registrar.clone(),
            waits: waits.clone(),
            events,
            connections,
            api: api.clone(),
        };
        let metrics = self.metrics(&ports, log_lines_dropped);
        let pages = HttpPages::new(metrics, health.clone(), waits, leaving.clone());
        // Heartbeats are answered on Raft's own runtime, where nothing of the API runs.
        let consensus = local.consensus.clone();
        let access = Arc::new(AccessControl::new(LocalUsers::new(&local.config.admin_socket.roles)));
        let peer_server = serve::peers(
            own.peer.into_std()?,
            (ports.peers, access.at(Entrance::Peer)),
            peer_server,
            consensus.clone(),
            stop.clone(),
        );
        let guard = access.at(Entrance::Admin);
        let over_socket = local_socket.map(|socket| {
            let entrance = (ports.local, guard.clone());
            serve::admin(socket, entrance, admin.clone(), leaving.clone(), stop.clone())
        });
        let admin = serve::admin(own.admin, (ports.admin, guard), admin, leaving.clone(), stop.clone());
        let state = state_follower::follow(local.clone(), peers.clone(), plane.clone(), state);
        let part = |name, body| supervisor.spawn(&api, name, Lifetime::UntilStop, body);
        let mut tasks = vec![
            supervisor.spawn(&raft, "peer server", Lifetime::UntilStop, peer_server),
            part("admin server", Box::pin(admin) as Pin<Box<dyn Future<Output = ()> + Send>>),
            part("HTTP server", Box::pin(http::serve(own.http, ports.http, pages))),
            part("state follower", Box::pin(state)),
        ];
        tasks.extend(over_socket.map(|server| part("admin socket server", Box::pin(server))));
        api.spawn(ClockFollower { local: local.clone(), peers: peers.clone() }.follow(stop.clone()));
        api.spawn(leaf.clone().follow(signer, stop.clone()));
        api.spawn(registration::follow(registrar.clone(), stop.clone()));
        api.spawn(joining::follow(joins, stop.clone()));
        api.spawn(levels::follow(registrar, journal.clone(), stop.clone()));
        api.spawn(lag::follow(lag, consensus, plane.clone(), stop.clone()));
        Ok(Servers { leaving, stop, tasks })
    }
}
