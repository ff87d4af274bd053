//! The member's own ports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use trestle_engine::share::client_of;
use trestle_identity::tls::ServerLeaf;

use crate::accept::{ClientSource, Door, IsOwn, OpensTo, PlainCallers, PortDeadlines, ServicePort};
use crate::descriptors;
use crate::this_member::ThisMember;

/// Every HTTP/2 connection begins with these bytes (RFC 9113 §3.4).
const HTTP2_PREFACE: u64 = 24;

/// The deadlines of a gRPC port. A client whose idle connection is closed opens another one by itself.
const GRPC_DEADLINES: PortDeadlines = PortDeadlines {
    preface: (HTTP2_PREFACE, Duration::from_secs(5)),
    head: None,
    idle: Duration::from_secs(600),
    answer: Duration::from_secs(60),
    write: Duration::from_secs(30),
};

/// The deadlines of the HTTP port. Prometheus keeps its connection between two scrapes, which are a minute apart by default.
const HTTP_DEADLINES: PortDeadlines = PortDeadlines {
    preface: (1, Duration::from_secs(5)),
    head: Some(Duration::from_secs(5)),
    idle: Duration::from_secs(180),
    answer: Duration::from_secs(30),
    write: Duration::from_secs(10),
};

/// Admin API over TCP, peers, HTTP, and the UNIX socket of the admin API.
#[derive(Clone)]
pub(crate) struct ServicePorts {
    pub(crate) admin: Arc<ServicePort>,
    pub(crate) peers: Arc<ServicePort>,
    pub(crate) http: Arc<ServicePort>,
    pub(crate) local: Arc<ServicePort>,
    /// Who has called without TLS lately.
    pub(crate) plain: Arc<PlainCallers>,
}

/// What one port shows of itself: its name, the connections that are open, and each kind of refusal with its count.
pub(crate) struct PortUse {
    pub(crate) name: &'static str,
    pub(crate) open: u64,
    pub(crate) refusals: [(&'static str, u64); 4],
}

impl ServicePorts {
    /// The ports of one of so many members in this process, with as many connections as it has descriptors for.
    pub(crate) fn new(local: &ThisMember, leaf: &watch::Receiver<Option<ServerLeaf>>) -> Self {
        let limits = descriptors::own_ports(local.config.members_in_process);
        let view = local.consensus.view();
        let own_uid = rustix::process::geteuid().as_raw();
        let is_own: IsOwn = Arc::new(move |source| match source {
            ClientSource::Address(ip) => {
                let state = view.borrow().state.clone();
                state.members.values().any(|member| {
                    member.spec.peer_address.as_socket().is_some_and(|known| client_of(known.ip()) == ip)
                })
            }
            ClientSource::User(uid) => uid == 0 || uid == own_uid,
            ClientSource::Local => false,
        });
        let port = |name, limits, deadlines| ServicePort::new(name, limits, deadlines, is_own.clone());
        let plain = Arc::new(PlainCallers::default());
        let door =
            |opens_to, name| Door::new((opens_to, name), leaf.clone(), local.trust.clone(), plain.clone());
        let (users, members) = (door(OpensTo::Users, "admin"), door(OpensTo::Members, "peer"));
        Self {
            admin: Arc::new(port("admin", limits.admin, GRPC_DEADLINES).with_tls(users)),
            peers: Arc::new(port("peers", limits.peers, GRPC_DEADLINES).with_tls(members)),
            http: Arc::new(port("http", limits.http, HTTP_DEADLINES)),
            local: Arc::new(port("admin_socket", limits.local, GRPC_DEADLINES)),
            plain,
        }
    }

    /// What they hold and have refused.
    pub(crate) fn read(&self) -> [PortUse; 4] {
        [&self.admin, &self.peers, &self.http, &self.local].map(|port| {
            let of = |count: &AtomicU64| count.load(Relaxed);
            let counters = &port.counters;
            let refusals = [
                ("connection", of(&counters.refused)),
                ("evicted", of(&counters.evicted)),
                ("deadline", of(&counters.expired)),
                ("call", of(&counters.calls_refused)),
            ];
            PortUse { name: port.name, open: port.open() as u64, refusals }
        })
    }
}
