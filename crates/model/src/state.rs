//! The replicated state: one value that every member computes from the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::listener::Listener;
use crate::member::{ClusterId, Member, MemberId};
use crate::name::{BackendName, ListenerName, MemberName, PoolName, VipName};
use crate::pool::{Backend, PoolEntry};
use crate::record::RevisionRecord;
use crate::sockets::MemberSockets;
use crate::tenure::{Tenure, VipEvent};
use crate::vip::Vip;

/// Index of the log entry that last changed something; grows, with gaps.
pub type Revision = u64;

/// Everything that the members agree on. Values are shared behind `Arc`, so a clone costs one pointer for each pool,
/// listener and member, and an unchanged part of two states is recognised by its address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterState {
    /// The cluster's identity, once it is founded.
    pub cluster_id: Option<ClusterId>,
    /// How often the cluster was made anew from a single member; 0 for never.
    pub recovery: u64,
    /// What was drawn at the last of these times, by their numbers, as far as it was recorded. No configuration.
    pub recovery_draws: BTreeMap<u64, u64>,
    /// What the cluster may ask of its members: the highest level that all of them know. 0 before it is founded.
    pub feature_level: u32,
    /// Index of the last entry that changed this state.
    pub revision: Revision,
    /// Pools by name.
    pub pools: BTreeMap<PoolName, Arc<PoolEntry>>,
    /// Listeners by name.
    pub listeners: BTreeMap<ListenerName, Arc<Listener>>,
    /// Members by id.
    pub members: BTreeMap<MemberId, Arc<Member>>,
    /// Virtual IPs by name.
    pub vips: BTreeMap<VipName, Arc<Vip>>,
    /// The number that each member's process drew when it started, as it was last recorded; of two processes that are the same
    /// member, it tells which one started later. No configuration: changing it makes no revision.
    pub starts: BTreeMap<MemberId, u64>,
    /// Where that process listens; of no member whose process did not say. As little a configuration.
    pub sockets: BTreeMap<MemberId, Arc<MemberSockets>>,
    /// Who may hold them. No configuration: changing it makes no revision.
    pub tenure: Option<Tenure>,
    /// Who took and released them, oldest first; as little a configuration.
    pub vip_events: VecDeque<Arc<VipEvent>>,
    /// The last changes of the configuration, oldest first: at most 64, of which all together take 4 MiB.
    pub records: VecDeque<Arc<RevisionRecord>>,
}

impl ClusterState {
    /// A pool's backend.
    pub fn backend(&self, pool: &PoolName, name: &BackendName) -> Option<&Arc<Backend>> {
        self.pools.get(pool)?.backends.get(name)
    }

    /// The current member of that name.
    pub fn member_named(&self, name: &MemberName) -> Option<&Arc<Member>> {
        self.members.values().find(|m| m.spec.name == *name)
    }
}
