//! The published table: what workers look at for each connection, and what reports show.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use trestle_engine::Verdict;
use trestle_model::{ListenerName, PoolName, Revision};

use crate::accept::listener::Listener;
use crate::upstream::backend::Backend;
use crate::upstream::loop_guard::{Barred, LoopGuard};
use crate::upstream::pool::Pool;

/// Everything that the data plane acts on, at one instant. Parts that two tables have in common are shared.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Revision of the configuration that this table reflects.
    pub revision: Revision,
    /// Listeners by name.
    pub listeners: Arc<BTreeMap<ListenerName, Arc<Listener>>>,
    /// Pools by name.
    pub pools: Arc<BTreeMap<PoolName, Arc<Pool>>>,
    /// The listener that each bound address belongs to.
    pub(crate) routes: Arc<BTreeMap<SocketAddr, Arc<Listener>>>,
    /// Where no connection may go.
    pub(crate) loop_guard: Arc<LoopGuard>,
    /// Listeners that are bound to a wildcard and get no connections at an address of another one, in words.
    pub shadowed: Arc<[String]>,
    /// Addresses of virtual IPs, whether or not this member holds them.
    pub(crate) vips: Arc<BTreeSet<IpAddr>>,
    /// Whether this member takes no new connections because it is drained.
    pub drained: bool,
    /// When the connections that are left on it are closed for that reason.
    pub drain_ends: Option<Instant>,
}

impl Table {
    /// What this member says of a backend: nothing good of one to which it leads nobody, whatever its checks find.
    pub fn verdict(&self, backend: &Backend) -> Verdict {
        if self.barred(backend).is_some() { Verdict::Unhealthy } else { backend.verdict }
    }

    /// Why that is its verdict, in words.
    pub fn grounds(&self, backend: &Backend) -> String {
        match self.barred(backend) {
            Some(why) => format!("{why}, so no client is led there; {}", backend.grounds()),
            None => backend.grounds(),
        }
    }

    /// Why no client is ever led to a backend with a port of its own, if that is so: it is a listener of this cluster, a
    /// member's own port, or outside of this member's networks.
    pub fn barred(&self, backend: &Backend) -> Option<&'static str> {
        let port = backend.config.spec.address.port;
        let address = backend.ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port.get()));
        match self.loop_guard.bars(address?)? {
            Barred::Listener => Some("is a listener of this cluster"),
            Barred::OwnPort => Some("is a port of a member of this cluster itself"),
            Barred::Network => Some("is in none of this member's backend_networks"),
        }
    }

    /// The pools that listeners lead to.
    pub fn used_pools(&self) -> BTreeSet<&PoolName> {
        let specs = self.listeners.values().map(|listener| &listener.config.spec);
        specs.flat_map(|spec| spec.routes.iter().map(|route| &route.pool).chain([&spec.pool])).collect()
    }
}
