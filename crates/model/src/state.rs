//! The replicated state: one value that every member computes from the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::authority::Authority;
use crate::configuration::Configuration;
use crate::document::{Document, ResourceName};
use crate::join_token::{JoinAs, JoinToken, TokenId};
use crate::key_pin::KeyPin;
use crate::listener::Listener;
use crate::member::{ClusterId, Member, MemberId};
use crate::name::{BackendName, ListenerName, MemberName, PoolName, UserName, VipName};
use crate::pool::{AdminState, Backend, PoolEntry};
use crate::record::RevisionRecord;
use crate::revision::Revision;
use crate::sockets::MemberSockets;
use crate::tenure::{Tenure, VipEvent};
use crate::transport::TransportSecurity;
use crate::user::User;
use crate::vip::Vip;

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
    /// What the cluster may ask of its members: a level that all of them know. Grows only; 0 before it is founded.
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
    /// The authorities that sign certificates, by generation; none in a cluster that has no identities.
    pub authorities: BTreeMap<u32, Arc<Authority>>,
    /// What the members' admin and peer ports accept.
    pub transport: TransportSecurity,
    /// The keys that each member may show, newest first: by them others know it. At most 2 each; none of a member that joined
    /// without one.
    pub member_keys: BTreeMap<MemberId, Vec<KeyPin>>,
    /// Tokens by which members join, by their ids. Neither a backup nor a restore has to do with them.
    pub tokens: BTreeMap<TokenId, Arc<JoinToken>>,
    /// What each member becomes that has joined by a token, without anybody's further help.
    pub joins_as: BTreeMap<MemberId, JoinAs>,
    /// Users by name. Neither a backup nor a restore has to do with them.
    pub users: BTreeMap<UserName, Arc<User>>,
    /// The time that the log has come to, as the clocks of a quorum of the voters had it: milliseconds since the beginning of 1970, UTC; 0
    /// for none. Never goes back. No configuration: changing it makes no revision.
    pub time_ms: u64,
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

    /// The configuration: pools with their backends, listeners, virtual IPs, each in the order of names.
    pub fn configuration(&self) -> Configuration {
        let mut documents = Vec::new();
        for entry in self.pools.values() {
            let pool = &entry.pool;
            documents.push((pool.name.clone(), pool.spec.clone()).into());
            for one in entry.backends.values() {
                documents.push((pool.name.clone(), one.name.clone(), one.spec.clone()).into());
                if one.admin_state != AdminState::Enabled {
                    documents.push((pool.name.clone(), one.name.clone(), one.admin_state).into());
                }
            }
        }
        documents.extend(self.listeners.values().map(|l| (l.name.clone(), l.spec.clone()).into()));
        documents.extend(self.vips.values().map(|vip| (vip.name.clone(), vip.spec.clone()).into()));
        Configuration(documents)
    }

    /// The document of a resource.
    pub fn document(&self, name: &ResourceName) -> Option<Document> {
        Some(match name {
            ResourceName::Vip(name) => (name.clone(), self.vips.get(name)?.spec.clone()).into(),
            ResourceName::Pool(name) => (name.clone(), self.pools.get(name)?.pool.spec.clone()).into(),
            ResourceName::Backend(pool, name) => {
                (pool.clone(), name.clone(), self.backend(pool, name)?.spec.clone()).into()
            }
            ResourceName::AdminState(pool, name) => {
                (pool.clone(), name.clone(), self.backend(pool, name)?.admin_state).into()
            }
            ResourceName::Listener(name) => (name.clone(), self.listeners.get(name)?.spec.clone()).into(),
        })
    }

    /// The revision that last changed a resource; a backend's also for what it is switched to.
    pub fn revision_of(&self, name: &ResourceName) -> Option<Revision> {
        Some(match name {
            ResourceName::Vip(name) => self.vips.get(name)?.revision,
            ResourceName::Pool(name) => self.pools.get(name)?.pool.revision,
            ResourceName::Backend(pool, name) | ResourceName::AdminState(pool, name) => {
                self.backend(pool, name)?.revision
            }
            ResourceName::Listener(name) => self.listeners.get(name)?.revision,
        })
    }
}
