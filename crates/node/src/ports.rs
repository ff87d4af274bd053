//! The member's own ports.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use trestle_consensus::Consensus;
use trestle_engine::share::client_of;

use crate::accept::{IsMember, ServicePort};
use crate::{descriptors, http, serve};

/// Admin API, peers, HTTP.
#[derive(Clone)]
pub(crate) struct ServicePorts {
    pub(crate) admin: Arc<ServicePort>,
    pub(crate) peers: Arc<ServicePort>,
    pub(crate) http: Arc<ServicePort>,
}

/// What one port shows of itself: its name, the connections that are open, and each kind of refusal with its count.
pub(crate) struct PortUse {
    pub(crate) name: &'static str,
    pub(crate) open: u64,
    pub(crate) refusals: [(&'static str, u64); 4],
}

impl ServicePorts {
    /// The ports of one of so many members in this process, with as many connections as it has descriptors for.
    pub(crate) fn new(consensus: &Consensus, members: NonZeroUsize) -> Self {
        let limits = descriptors::own_ports(members);
        let view = consensus.view();
        let is_member: IsMember = Arc::new(move |ip| {
            let state = view.borrow().state.clone();
            state.members.values().any(|member| {
                member.spec.peer_address.as_socket().is_some_and(|known| client_of(known.ip()) == ip)
            })
        });
        let port =
            |name, limits, deadlines| Arc::new(ServicePort::new(name, limits, deadlines, is_member.clone()));
        Self {
            admin: port("admin", limits.admin, serve::GRPC_DEADLINES),
            peers: port("peers", limits.peers, serve::GRPC_DEADLINES),
            http: port("http", limits.http, http::DEADLINES),
        }
    }

    /// What they hold and have refused.
    pub(crate) fn read(&self) -> [PortUse; 3] {
        [&self.admin, &self.peers, &self.http].map(|port| {
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
