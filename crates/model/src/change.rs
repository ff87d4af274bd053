//! What changed: the form in which watchers and reconcilers learn of it.

use std::sync::Arc;

use crate::document::Document;
use crate::listener::Listener;
use crate::member::Member;
use crate::name::PoolName;
use crate::pool::{Backend, Pool};
use crate::vip::Vip;

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It has other settings.
    Updated,
    /// It is gone; the resource is as it last was.
    Deleted,
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A pool, with the number of its backends.
    Pool(Arc<Pool>, usize),
    /// A backend of a pool.
    Backend(PoolName, Arc<Backend>),
    /// A listener.
    Listener(Arc<Listener>),
    /// A member.
    Member(Arc<Member>),
    /// A virtual IP.
    Vip(Arc<Vip>),
}

impl Resource {
    /// The documents that it is kept as.
    pub(crate) fn documents(&self) -> Vec<Document> {
        match self {
            Self::Pool(pool, _) => vec![(pool.name.clone(), pool.spec.clone()).into()],
            Self::Backend(pool, b) => vec![
                (pool.clone(), b.name.clone(), b.spec.clone()).into(),
                (pool.clone(), b.name.clone(), b.admin_state).into(),
            ],
            Self::Listener(listener) => vec![(listener.name.clone(), listener.spec.clone()).into()],
            Self::Vip(vip) => vec![(vip.name.clone(), vip.spec.clone()).into()],
            Self::Member(_) => Vec::new(),
        }
    }
}

/// One change to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To what.
    pub resource: Resource,
    /// What was there before an update, as far as it is known.
    pub before: Option<Resource>,
}

impl Change {
    /// Names a change.
    pub fn new(kind: ChangeKind, resource: Resource) -> Self {
        Self { kind, resource, before: None }
    }
}
