//! Documents: everything that is configured, one resource each, and the operations on them that the log holds.

use std::fmt;

use crate::kind::Kind;
use crate::listener::ListenerSpec;
use crate::name::{BackendName, ListenerName, PoolName, VipName};
use crate::pool::{AdminState, BackendSpec, PoolSpec};
use crate::revision::Revision;
use crate::vip::VipSpec;

/// One resource as somebody wants it, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A virtual IP.
    Vip(VipName, VipSpec),
    /// A pool, without its backends.
    Pool(PoolName, Box<PoolSpec>),
    /// A backend of a pool.
    Backend(PoolName, BackendName, BackendSpec),
    /// What an operator switched a backend to. Apart from the backend, so that whoever writes the backend anew leaves it be.
    AdminState(PoolName, BackendName, AdminState),
    /// A listener.
    Listener(ListenerName, ListenerSpec),
}

/// Which document. The order is that in which resources can be made one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// A virtual IP.
    Vip(VipName),
    /// A pool.
    Pool(PoolName),
    /// A backend of a pool.
    Backend(PoolName, BackendName),
    /// What an operator switched a backend to.
    AdminState(PoolName, BackendName),
    /// A listener.
    Listener(ListenerName),
}

impl Document {
    /// Which one it is.
    pub fn resource(&self) -> ResourceName {
        match self {
            Self::Vip(name, _) => ResourceName::Vip(name.clone()),
            Self::Pool(name, _) => ResourceName::Pool(name.clone()),
            Self::Backend(pool, name, _) => ResourceName::Backend(pool.clone(), name.clone()),
            Self::AdminState(pool, name, _) => ResourceName::AdminState(pool.clone(), name.clone()),
            Self::Listener(name, _) => ResourceName::Listener(name.clone()),
        }
    }
}

impl ResourceName {
    /// What kind of resource it belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Vip(_) => Kind::Vip,
            Self::Pool(_) => Kind::Pool,
            Self::Backend(..) | Self::AdminState(..) => Kind::Backend,
            Self::Listener(_) => Kind::Listener,
        }
    }

    /// The name as errors tell it beside the kind: `web`, or `web/a` for a backend.
    pub fn id(&self) -> String {
        match self {
            Self::Vip(name) => name.to_string(),
            Self::Pool(name) => name.to_string(),
            Self::Backend(pool, name) | Self::AdminState(pool, name) => format!("{pool}/{name}"),
            Self::Listener(name) => name.to_string(),
        }
    }

    /// Parses a name as the API writes it; the error is the broken rule.
    ///
    /// # Errors
    /// When it has another form, or a part that is no name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (collection, rest) = text.split_once('/').unwrap_or((text, ""));
        match (collection, rest.split_once("/backends/")) {
            ("vips", None) => Ok(Self::Vip(VipName::parse(rest)?)),
            ("listeners", None) => Ok(Self::Listener(ListenerName::parse(rest)?)),
            ("pools", None) => Ok(Self::Pool(PoolName::parse(rest)?)),
            ("pools", Some((pool, backend))) => {
                let pool = PoolName::parse(pool)?;
                match backend.strip_suffix("/adminState") {
                    Some(name) => Ok(Self::AdminState(pool, BackendName::parse(name)?)),
                    None => Ok(Self::Backend(pool, BackendName::parse(backend)?)),
                }
            }
            _ => Err(
                "must be pools/POOL, pools/POOL/backends/BACKEND, pools/POOL/backends/BACKEND/adminState, \
                      listeners/LISTENER or vips/VIP"
                    .to_owned(),
            ),
        }
    }

    /// The resource whose answer tells of it: a backend's for what it is switched to.
    #[must_use]
    pub fn shown_as(&self) -> Self {
        match self {
            Self::AdminState(pool, name) => Self::Backend(pool.clone(), name.clone()),
            other => other.clone(),
        }
    }
}

/// The name as the API writes it: `pools/web/backends/a`.
impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vip(name) => write!(f, "vips/{name}"),
            Self::Pool(name) => write!(f, "pools/{name}"),
            Self::Backend(pool, name) => write!(f, "pools/{pool}/backends/{name}"),
            Self::AdminState(pool, name) => write!(f, "pools/{pool}/backends/{name}/adminState"),
            Self::Listener(name) => write!(f, "listeners/{name}"),
        }
    }
}

/// What must be there for an operation to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expected {
    /// Whatever is there.
    #[default]
    Any,
    /// Nothing of that name.
    Absent,
    /// The resource at this revision. A backend's revision is that of its last change, also of what it is switched to.
    Revision(Revision),
}

impl From<Option<Revision>> for Expected {
    fn from(revision: Option<Revision>) -> Self {
        revision.map_or(Self::Any, Self::Revision)
    }
}

/// One part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes a resource what the document says, whether it is new or not.
    Put {
        /// The document.
        document: Document,
        /// What must be there.
        expected: Expected,
    },
    /// Takes a resource away, a pool with its backends. Refused when it is not there, and while others need it.
    Delete {
        /// Which one. What a backend is switched to goes with the backend and cannot be deleted.
        resource: ResourceName,
        /// The revision that it must have, if any.
        expected: Option<Revision>,
    },
}

impl Operation {
    /// Makes a resource that must not be there.
    pub fn create(document: impl Into<Document>) -> Self {
        Self::Put { document: document.into(), expected: Expected::Absent }
    }

    /// Makes a resource what the document says, whatever is there.
    pub fn put(document: impl Into<Document>) -> Self {
        Self::Put { document: document.into(), expected: Expected::Any }
    }

    /// Takes a resource away, at whatever revision.
    pub fn delete(resource: impl Into<ResourceName>) -> Self {
        Self::Delete { resource: resource.into(), expected: None }
    }

    /// What it is about.
    pub fn resource(&self) -> ResourceName {
        match self {
            Self::Put { document, .. } => document.resource(),
            Self::Delete { resource, .. } => resource.clone(),
        }
    }
}

impl From<(PoolName, PoolSpec)> for Document {
    fn from((name, spec): (PoolName, PoolSpec)) -> Self {
        Self::Pool(name, Box::new(spec))
    }
}

impl From<(PoolName, BackendName, BackendSpec)> for Document {
    fn from((pool, name, spec): (PoolName, BackendName, BackendSpec)) -> Self {
        Self::Backend(pool, name, spec)
    }
}

impl From<(PoolName, BackendName, AdminState)> for Document {
    fn from((pool, name, state): (PoolName, BackendName, AdminState)) -> Self {
        Self::AdminState(pool, name, state)
    }
}

impl From<(ListenerName, ListenerSpec)> for Document {
    fn from((name, spec): (ListenerName, ListenerSpec)) -> Self {
        Self::Listener(name, spec)
    }
}

impl From<(VipName, VipSpec)> for Document {
    fn from((name, spec): (VipName, VipSpec)) -> Self {
        Self::Vip(name, spec)
    }
}

impl From<PoolName> for ResourceName {
    fn from(name: PoolName) -> Self {
        Self::Pool(name)
    }
}

impl From<(PoolName, BackendName)> for ResourceName {
    fn from((pool, name): (PoolName, BackendName)) -> Self {
        Self::Backend(pool, name)
    }
}

impl From<ListenerName> for ResourceName {
    fn from(name: ListenerName) -> Self {
        Self::Listener(name)
    }
}

impl From<VipName> for ResourceName {
    fn from(name: VipName) -> Self {
        Self::Vip(name)
    }
}
