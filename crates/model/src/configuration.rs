//! The whole replicated configuration as one value, as a backup holds it.

use crate::listener::ListenerSpec;
use crate::name::{BackendName, ListenerName, PoolName, VipName};
use crate::pool::{BackendSpec, PoolSpec};
use crate::state::ClusterState;
use crate::vip::VipSpec;

/// Every setting that the members agree on but who is a member. Revisions are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Pools.
    pub pools: Vec<(PoolName, PoolSpec)>,
    /// Backends, each with its pool.
    pub backends: Vec<(PoolName, BackendName, BackendSpec)>,
    /// Listeners.
    pub listeners: Vec<(ListenerName, ListenerSpec)>,
    /// Virtual IPs.
    pub vips: Vec<(VipName, VipSpec)>,
}

/// What a restore changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Resources that are new.
    pub created: u32,
    /// Resources with other settings than before.
    pub updated: u32,
    /// Resources that the document does not have.
    pub deleted: u32,
}

impl ClusterState {
    /// The configuration, in the order of names.
    pub fn configuration(&self) -> Configuration {
        let backends = self.pools.values().flat_map(|entry| {
            entry.backends.values().map(|b| (entry.pool.name.clone(), b.name.clone(), b.spec.clone()))
        });
        Configuration {
            pools: self.pools.values().map(|e| (e.pool.name.clone(), e.pool.spec.clone())).collect(),
            backends: backends.collect(),
            listeners: self.listeners.values().map(|l| (l.name.clone(), l.spec.clone())).collect(),
            vips: self.vips.values().map(|vip| (vip.name.clone(), vip.spec.clone())).collect(),
        }
    }
}
