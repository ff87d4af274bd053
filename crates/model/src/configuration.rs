//! The whole replicated configuration as one value, as a backup holds it.

use crate::document::{Document, ResourceName};
use crate::pool::AdminState;
use crate::state::{ClusterState, Revision};

/// Every setting that the members agree on but who is a member: a document for each resource, in any order. Revisions are not
/// part of it, and a backend without a document of what it is switched to is enabled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration(pub Vec<Document>);

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
