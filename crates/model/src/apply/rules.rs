//! What a resource must be beside the others, whoever makes it so.

use crate::check::CheckKind;
use crate::defaults;
use crate::document::{Document, Operation, ResourceName};
use crate::kind::Kind;
use crate::name::{BackendName, PoolName, VipName};
use crate::pool::{BackendSpec, PoolSpec};
use crate::refusal::Refusal;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};
use crate::vip::{Vip, VipSpec};

use super::{missing, valid};

type Result = std::result::Result<(), Refusal>;

/// Whom a virtual IP may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// Members that there are.
    Members,
    /// Anybody: in a document that is restored they may be added later, as they may be removed later.
    Anybody,
}

/// A check needs a port: the backend's own, or one that the pool's check names.
fn check_has_port<'a>(
    spec: &PoolSpec,
    backends: impl IntoIterator<Item = (&'a BackendName, &'a BackendSpec)>,
) -> Result {
    if spec.health.kind == CheckKind::None || spec.health.port.is_some() {
        return Ok(());
    }
    let without = backends.into_iter().filter(|(_, b)| b.address.port.is_none());
    let rule = "has no port, so the pool's health check needs one of its own: give the backend a port, or the check \
                (health_check.port, --health-port), or check nothing (--health none)";
    let found: Vec<Violation> =
        without.map(|(name, b)| Violation::new(format!("backend {name}"), &b.address, rule)).collect();
    if found.is_empty() { Ok(()) } else { Err(Invalid(found).into()) }
}

/// There must be room for one more than `others`.
fn room(kind: Kind, others: usize, max: usize) -> Result {
    if others < max { Ok(()) } else { Err(Refusal::Full { kind, max }) }
}

impl ClusterState {
    /// Judges an operation by what is there beside what it makes: this is the state before it, or the one after it and all that
    /// come with it; `before` is the one before. Addresses of listeners are judged apart.
    pub(super) fn check_rules(&self, operation: &Operation, before: &Self, who: Named) -> Result {
        let document = match operation {
            Operation::Put { document, .. } => document,
            Operation::Delete { resource, .. } => return self.check_unused(resource, before),
        };
        match document {
            Document::Vip(name, spec) => self.check_vip(name, spec, who),
            Document::Pool(name, spec) => {
                let entry = self.pools.get(name);
                room(Kind::Pool, self.pools.len() - usize::from(entry.is_some()), defaults::POOLS_MAX)?;
                valid(|v| spec.check(v))?;
                let backends = entry.into_iter().flat_map(|entry| entry.backends.values());
                check_has_port(spec, backends.map(|backend| (&backend.name, &backend.spec)))
            }
            Document::Backend(pool, name, spec) => {
                let entry = self.pool(pool)?;
                let others = entry.backends.len() - usize::from(entry.backends.contains_key(name));
                room(Kind::Backend, others, defaults::BACKENDS_PER_POOL_MAX)?;
                valid(|v| spec.check(v))?;
                check_has_port(&entry.pool.spec, [(name, spec)])
            }
            Document::AdminState(pool, name, state) => {
                let entry = self.pool(pool)?;
                if !entry.backends.contains_key(name) {
                    return Err(missing(Kind::Backend, format!("{pool}/{name}")));
                }
                valid(|v| state.check(v))
            }
            Document::Listener(name, spec) => {
                let others = self.listeners.len() - usize::from(self.listeners.contains_key(name));
                room(Kind::Listener, others, defaults::LISTENERS_MAX)?;
                spec.pools().try_for_each(|pool| self.pool(pool).map(|_| ()))
            }
        }
    }

    /// A virtual IP has an address of its own.
    fn check_vip(&self, name: &VipName, spec: &VipSpec, who: Named) -> Result {
        let taken =
            self.vips.values().find(|vip| vip.name != *name && vip.spec.address.ip == spec.address.ip);
        valid(|v| {
            if let Some(other) = taken {
                let rule = format!("is the address of vip \"{}\" already", other.name);
                v.add("vip.address", spec.address, rule);
            }
        })?;
        let others = self.vips.len() - usize::from(self.vips.contains_key(name));
        room(Kind::Vip, others, defaults::VIPS_MAX)?;
        valid(|v| {
            spec.check(v);
            let is_wrong = |name| who == Named::Members && self.member_named(name).is_none();
            for (field, name) in spec.members().filter(|(_, name)| is_wrong(name)) {
                v.add(field, name, "is no member of this cluster; see \"trestle member list\"");
            }
        })
    }

    /// What goes away must not be needed.
    fn check_unused(&self, resource: &ResourceName, before: &Self) -> Result {
        let users: Vec<String> = match resource {
            ResourceName::Pool(name) => self.listeners_to(name),
            ResourceName::Vip(name) => {
                before.vips.get(name).map_or_else(Vec::new, |vip| self.listeners_on(vip))
            }
            ResourceName::Backend(..) | ResourceName::AdminState(..) | ResourceName::Listener(_) => {
                Vec::new()
            }
        };
        match users.is_empty() {
            true => Ok(()),
            false => Err(Refusal::InUse { kind: resource.kind(), name: resource.id(), listeners: users }),
        }
    }

    /// The listeners that lead to a pool.
    fn listeners_to(&self, pool: &PoolName) -> Vec<String> {
        let users = self.listeners.values().filter(|l| l.spec.pools().any(|used| used == pool));
        users.map(|listener| listener.name.to_string()).collect()
    }

    /// The listeners that accept connections on a virtual IP.
    fn listeners_on(&self, vip: &Vip) -> Vec<String> {
        let ip = vip.spec.address.ip;
        let users = self.listeners.values().filter(|l| l.binds.iter().any(|bind| bind.ip == ip));
        users.map(|listener| listener.name.to_string()).collect()
    }
}
