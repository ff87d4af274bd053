//! Applying a command to the state: deterministic, total, pure.

mod members;
mod restore;
mod vips;

use std::sync::Arc;

use crate::address::{Bind, HostPort};
use crate::check::CheckKind;
use crate::command::{Command, Outcome};
use crate::defaults;
use crate::diff::{Change, ChangeKind, Resource};
use crate::listener::{Listener, ListenerPatch, ListenerSpec};
use crate::machine::Applied;
use crate::member::{Member, MemberId, MemberSpec};
use crate::name::{BackendName, ListenerName, PoolName};
use crate::pool::{Backend, BackendPatch, BackendSpec, Pool, PoolEntry, PoolPatch, PoolSpec};
use crate::refusal::{Kind, Refusal};
use crate::state::{ClusterState, Revision};
use crate::violation::{Invalid, Violation, Violations};

use vips::noted;

type Result = std::result::Result<Applied, Refusal>;

fn missing(kind: Kind, name: impl ToString) -> Refusal {
    Refusal::NotFound { kind, name: name.to_string() }
}

fn exists(kind: Kind, name: impl ToString, revision: Revision) -> Refusal {
    Refusal::Exists { kind, name: name.to_string(), revision }
}

/// Refuses when the caller named a revision and the resource has another.
fn expect_revision(
    kind: Kind,
    name: impl ToString,
    expected: Option<Revision>,
    actual: Revision,
) -> std::result::Result<(), Refusal> {
    match expected {
        Some(expected) if expected != actual => {
            Err(Refusal::Moved { kind, name: name.to_string(), expected, actual })
        }
        _ => Ok(()),
    }
}

fn valid(check: impl FnOnce(&mut Violations)) -> std::result::Result<(), Refusal> {
    let mut violations = Violations::new();
    check(&mut violations);
    Ok(violations.into_result()?)
}

/// A check needs a port: the backend's own, or one that the pool's check names.
fn check_has_port(
    spec: &PoolSpec,
    backends: &[(&BackendName, &BackendSpec)],
) -> std::result::Result<(), Refusal> {
    if spec.health.kind == CheckKind::None || spec.health.port.is_some() {
        return Ok(());
    }
    let without = backends.iter().filter(|(_, b)| b.address.port.is_none());
    let rule = "has no port, so the pool's health check needs one of its own: set the pool's \
                health_check.port, or health check none, or give the backend a port";
    let found: Vec<Violation> =
        without.map(|(name, b)| Violation::new(format!("backend {name}"), &b.address, rule)).collect();
    if found.is_empty() { Ok(()) } else { Err(Invalid(found).into()) }
}

/// An answer for a command that changed nothing, at the revision that the resource has.
fn unchanged(revision: Revision, outcome: Outcome) -> Result {
    Ok(Applied { revision, outcome, changes: Vec::new() })
}

/// The answer to a command that changes one resource.
fn changed(index: Revision, kind: ChangeKind, resource: Resource) -> Result {
    let outcome = match &resource {
        _ if kind == ChangeKind::Deleted => Outcome::Deleted,
        Resource::Pool(pool, backends) => Outcome::Pool(pool.clone(), *backends),
        Resource::Backend(pool, backend) => Outcome::Backend(pool.clone(), backend.clone()),
        Resource::Listener(listener) => Outcome::Listener(listener.clone()),
        Resource::Member(member) => Outcome::Member(member.clone()),
        Resource::Vip(vip) => Outcome::Vip(vip.clone()),
    };
    Ok(Applied { revision: index, outcome, changes: vec![Change::new(kind, resource)] })
}

impl ClusterState {
    /// Applies the command at log index `index`.
    ///
    /// # Errors
    /// A [`Refusal`], which changes nothing.
    pub fn apply(&mut self, index: Revision, command: &Command) -> Result {
        match command {
            Command::TakeVips { tenure, time_ms, reason } => {
                return self.take_vips(index, *tenure, *time_ms, reason);
            }
            Command::ReleaseVips { member, term, time_ms, reason } => {
                return self.release_vips(index, *member, *term, *time_ms, reason);
            }
            _ => {}
        }
        let applied = self.decide(index, command)?;
        match command {
            Command::FoundCluster { cluster_id, .. } => self.cluster_id = Some(cluster_id.clone()),
            Command::Recover { recovery, draw, .. } => self.note_recovery(*recovery, *draw),
            Command::NoteStart { member, start, sockets, .. } => {
                self.starts.insert(*member, *start);
                match sockets {
                    Some(sockets) => drop(self.sockets.insert(*member, sockets.clone())),
                    None => drop(self.sockets.remove(member)),
                }
            }
            _ => {}
        }
        for change in &applied.changes {
            self.write(change);
        }
        if !applied.changes.is_empty() {
            self.revision = index;
        }
        Ok(applied)
    }

    /// What [`apply`](Self::apply) would answer, without changing or copying anything. The records of who holds the
    /// virtual IPs are not judged here: their rules are about terms, which only the log orders.
    ///
    /// # Errors
    /// The [`Refusal`] that it would give.
    pub fn decide(&self, index: Revision, command: &Command) -> Result {
        match command {
            Command::FoundCluster { member, .. } => self.found(index, member),
            Command::AddMember(spec) => self.add_member(index, MemberId(index), spec),
            Command::RemoveMember(id) => self.remove_member(index, *id),
            Command::UpdateMember { id, peer_address, admin_address } => {
                self.update_member(index, *id, peer_address.as_ref(), admin_address.as_ref())
            }
            Command::NoteStart { member, start, replaces, .. } => {
                self.note_start(index, *member, *start, *replaces)
            }
            Command::CreatePool { name, spec } => self.create_pool(index, name, spec),
            Command::UpdatePool { name, patch, expect } => self.update_pool(index, name, patch, *expect),
            Command::DeletePool { name, expect } => self.delete_pool(index, name, *expect),
            Command::CreateBackend { pool, name, spec } => self.create_backend(index, pool, name, spec),
            Command::UpdateBackend { pool, name, patch, expect } => {
                self.update_backend(index, pool, name, patch, *expect)
            }
            Command::DeleteBackend { pool, name, expect } => self.delete_backend(index, pool, name, *expect),
            Command::CreateListener { name, spec } => self.create_listener(index, name, spec),
            Command::UpdateListener { name, patch, expect } => {
                self.update_listener(index, name, patch, *expect)
            }
            Command::DeleteListener { name, expect } => self.delete_listener(index, name, *expect),
            Command::DrainMember { name, draining, timeout } => {
                self.drain_member(index, name, *draining, *timeout)
            }
            Command::CreateVip { name, spec } => self.create_vip(index, name, spec),
            Command::UpdateVip { name, patch, expect } => self.update_vip(index, name, patch, *expect),
            Command::DeleteVip { name, expect } => self.delete_vip(index, name, *expect),
            Command::Restore { configuration, replace } => self.restore(index, configuration, *replace),
            Command::Recover { member, recovery, .. } => self.recover(index, *member, *recovery),
            Command::TakeVips { .. }
            | Command::ReleaseVips { .. }
            | Command::StagePiece { .. }
            | Command::ApplyStaged { .. } => Ok(noted(index)),
        }
    }

    /// Makes a decided change.
    fn write(&mut self, change: &Change) {
        let gone = change.kind == ChangeKind::Deleted;
        match &change.resource {
            Resource::Member(member) if gone => {
                self.members.remove(&member.id);
                self.starts.remove(&member.id);
                self.sockets.remove(&member.id);
            }
            Resource::Member(member) => drop(self.members.insert(member.id, member.clone())),
            Resource::Pool(pool, _) if gone => drop(self.pools.remove(&pool.name)),
            Resource::Pool(pool, _) => match self.pools.get_mut(&pool.name) {
                Some(entry) => Arc::make_mut(entry).pool = pool.clone(),
                None => {
                    let entry = PoolEntry { pool: pool.clone(), backends: Default::default() };
                    self.pools.insert(pool.name.clone(), Arc::new(entry));
                }
            },
            Resource::Backend(pool, backend) => {
                let Some(entry) = self.pools.get_mut(pool) else { return };
                let backends = &mut Arc::make_mut(entry).backends;
                if gone {
                    backends.remove(&backend.name);
                } else {
                    backends.insert(backend.name.clone(), backend.clone());
                }
            }
            Resource::Listener(listener) if gone => drop(self.listeners.remove(&listener.name)),
            Resource::Listener(l) => drop(self.listeners.insert(l.name.clone(), l.clone())),
            Resource::Vip(vip) if gone => drop(self.vips.remove(&vip.name)),
            Resource::Vip(vip) => drop(self.vips.insert(vip.name.clone(), vip.clone())),
        }
    }

    fn found(&self, index: Revision, spec: &MemberSpec) -> Result {
        if self.cluster_id.is_some() {
            return Err(Refusal::Founded);
        }
        // The first member needs an id before there is a log that could allocate one; no log index of a later member
        // is 1, because founding takes that and more.
        let mut applied = self.add_member(index, MemberId(1), spec)?;
        if let Outcome::Member(member) = applied.outcome {
            applied.outcome = Outcome::Founded(member);
        }
        Ok(applied)
    }

    fn add_member(&self, index: Revision, id: MemberId, spec: &MemberSpec) -> Result {
        if let Some(member) = self.member_named(&spec.name) {
            return Err(exists(Kind::Member, &spec.name, member.revision));
        }
        self.peer_address_is_free(id, &spec.peer_address)?;
        if self.members.len() >= defaults::MEMBERS_MAX {
            return Err(Refusal::Full { kind: Kind::Member, max: defaults::MEMBERS_MAX });
        }
        let member = Arc::new(Member::joined(id, spec.clone(), index));
        changed(index, ChangeKind::Created, Resource::Member(member))
    }

    fn remove_member(&self, index: Revision, id: MemberId) -> Result {
        let member = self.members.get(&id).ok_or_else(|| missing(Kind::Member, id))?.clone();
        changed(index, ChangeKind::Deleted, Resource::Member(member))
    }

    /// Refuses the peer address of another member than `id`.
    fn peer_address_is_free(&self, id: MemberId, address: &HostPort) -> std::result::Result<(), Refusal> {
        let taken = self.members.values().find(|m| m.id != id && m.spec.peer_address == *address);
        let Some(other) = taken else { return Ok(()) };
        let rule = format!("is the peer address of member \"{}\" already", other.spec.name);
        Err(Invalid(vec![Violation::new("member.peer_address", address, rule)]).into())
    }

    fn update_member(
        &self,
        index: Revision,
        id: MemberId,
        peer_address: Option<&HostPort>,
        admin_address: Option<&HostPort>,
    ) -> Result {
        let member = self.members.get(&id).ok_or_else(|| missing(Kind::Member, id))?;
        let mut spec = member.spec.clone();
        if let Some(address) = peer_address {
            self.peer_address_is_free(id, address)?;
            spec.peer_address = address.clone();
        }
        if let Some(address) = admin_address {
            spec.admin_address = address.clone();
        }
        if spec == member.spec {
            return unchanged(member.revision, Outcome::Member(member.clone()));
        }
        let member = Arc::new(Member { spec, revision: index, ..Member::clone(member) });
        changed(index, ChangeKind::Updated, Resource::Member(member))
    }

    fn note_start(&self, index: Revision, member: MemberId, start: u64, replaces: u64) -> Result {
        if !self.members.contains_key(&member) {
            return Err(missing(Kind::Member, member));
        }
        let recorded = self.starts.get(&member).copied().unwrap_or(0);
        if recorded != start {
            expect_revision(Kind::Member, member, Some(replaces), recorded)?;
        }
        Ok(noted(index))
    }

    fn note_recovery(&mut self, recovery: u64, draw: u64) {
        if recovery > self.recovery {
            self.recovery = recovery;
            if draw != 0 {
                self.recovery_draws.insert(recovery, draw);
            }
            while self.recovery_draws.len() > defaults::RECOVERIES_KEPT {
                self.recovery_draws.pop_first();
            }
        }
    }

    fn pool(&self, name: &PoolName) -> std::result::Result<&Arc<PoolEntry>, Refusal> {
        self.pools.get(name).ok_or_else(|| missing(Kind::Pool, name))
    }

    fn create_pool(&self, index: Revision, name: &PoolName, spec: &PoolSpec) -> Result {
        if let Some(entry) = self.pools.get(name) {
            return Err(exists(Kind::Pool, name, entry.pool.revision));
        }
        if self.pools.len() >= defaults::POOLS_MAX {
            return Err(Refusal::Full { kind: Kind::Pool, max: defaults::POOLS_MAX });
        }
        valid(|v| spec.check(v))?;
        let pool = Arc::new(Pool { name: name.clone(), spec: spec.clone(), revision: index });
        changed(index, ChangeKind::Created, Resource::Pool(pool, 0))
    }

    fn update_pool(
        &self,
        index: Revision,
        name: &PoolName,
        patch: &PoolPatch,
        expect: Option<Revision>,
    ) -> Result {
        let entry = self.pool(name)?;
        expect_revision(Kind::Pool, name, expect, entry.pool.revision)?;
        let spec = entry.pool.spec.patched(patch);
        let count = entry.backends.len();
        if spec == entry.pool.spec {
            return unchanged(entry.pool.revision, Outcome::Pool(entry.pool.clone(), count));
        }
        valid(|v| spec.check(v))?;
        let backends: Vec<_> = entry.backends.values().map(|b| (&b.name, &b.spec)).collect();
        check_has_port(&spec, &backends)?;
        let pool = Arc::new(Pool { name: name.clone(), spec, revision: index });
        changed(index, ChangeKind::Updated, Resource::Pool(pool, count))
    }

    fn delete_pool(&self, index: Revision, name: &PoolName, expect: Option<Revision>) -> Result {
        let entry = self.pool(name)?.clone();
        expect_revision(Kind::Pool, name, expect, entry.pool.revision)?;
        let users = self.listeners.values().filter(|l| l.spec.pools().any(|pool| pool == name));
        let listeners: Vec<String> = users.map(|l| l.name.to_string()).collect();
        if !listeners.is_empty() {
            return Err(Refusal::InUse { kind: Kind::Pool, name: name.to_string(), listeners });
        }
        let gone = |resource| Change::new(ChangeKind::Deleted, resource);
        let mut changes: Vec<Change> =
            entry.backends.values().map(|b| gone(Resource::Backend(name.clone(), b.clone()))).collect();
        changes.push(gone(Resource::Pool(entry.pool.clone(), entry.backends.len())));
        Ok(Applied { revision: index, outcome: Outcome::Deleted, changes })
    }

    fn create_backend(
        &self,
        index: Revision,
        pool: &PoolName,
        name: &BackendName,
        spec: &BackendSpec,
    ) -> Result {
        let entry = self.pool(pool)?;
        if let Some(backend) = entry.backends.get(name) {
            return Err(exists(Kind::Backend, format!("{pool}/{name}"), backend.revision));
        }
        if entry.backends.len() >= defaults::BACKENDS_PER_POOL_MAX {
            return Err(Refusal::Full { kind: Kind::Backend, max: defaults::BACKENDS_PER_POOL_MAX });
        }
        valid(|v| spec.check(v))?;
        check_has_port(&entry.pool.spec, &[(name, spec)])?;
        let backend = Arc::new(Backend { name: name.clone(), spec: spec.clone(), revision: index });
        changed(index, ChangeKind::Created, Resource::Backend(pool.clone(), backend))
    }

    fn existing_backend(
        &self,
        pool: &PoolName,
        name: &BackendName,
        expect: Option<Revision>,
    ) -> std::result::Result<&Arc<Backend>, Refusal> {
        let entry = self.pool(pool)?;
        let full = || format!("{pool}/{name}");
        let backend = entry.backends.get(name).ok_or_else(|| missing(Kind::Backend, full()))?;
        expect_revision(Kind::Backend, full(), expect, backend.revision)?;
        Ok(backend)
    }

    fn update_backend(
        &self,
        index: Revision,
        pool: &PoolName,
        name: &BackendName,
        patch: &BackendPatch,
        expect: Option<Revision>,
    ) -> Result {
        let backend = self.existing_backend(pool, name, expect)?;
        let spec = backend.spec.patched(patch);
        if spec == backend.spec {
            return unchanged(backend.revision, Outcome::Backend(pool.clone(), backend.clone()));
        }
        valid(|v| spec.check(v))?;
        check_has_port(&self.pool(pool)?.pool.spec, &[(name, &spec)])?;
        let backend = Arc::new(Backend { name: name.clone(), spec, revision: index });
        changed(index, ChangeKind::Updated, Resource::Backend(pool.clone(), backend))
    }

    fn delete_backend(
        &self,
        index: Revision,
        pool: &PoolName,
        name: &BackendName,
        expect: Option<Revision>,
    ) -> Result {
        let backend = self.existing_backend(pool, name, expect)?.clone();
        changed(index, ChangeKind::Deleted, Resource::Backend(pool.clone(), backend))
    }

    /// One with more ports than before must leave all listeners together no more than they may have.
    fn check_ports(&self, name: &ListenerName, spec: &ListenerSpec) -> std::result::Result<(), Refusal> {
        let before = self.listeners.get(name).map_or(0, |listener| listener.spec.ports());
        let ports = spec.ports();
        if ports <= before {
            return Ok(());
        }
        let others = self.listeners.values().map(|other| other.spec.ports()).sum::<usize>() - before;
        let max = defaults::PORTS_MAX;
        if others + ports <= max {
            return Ok(());
        }
        Err(Refusal::TooManyPorts { listener: name.to_string(), ports, others, max })
    }

    /// A listener's settings must be in order and lead to a pool.
    fn check_listener(&self, spec: &ListenerSpec) -> std::result::Result<(), Refusal> {
        valid(|v| spec.check(v))?;
        spec.pools().try_for_each(|pool| self.pool(pool).map(|_| ()))
    }

    /// A listener must claim no address that another one has, nor too many.
    fn check_addresses(&self, name: &ListenerName, spec: &ListenerSpec) -> std::result::Result<(), Refusal> {
        let holder = |bind: &Bind| {
            let taken = |other: &&Arc<Listener>| other.spec.binds.iter().any(|b| b.overlaps(*bind));
            self.listeners.values().filter(|other| other.name != *name).find(taken)
        };
        for bind in &spec.binds {
            if let Some(other) = holder(bind) {
                return Err(Refusal::BindTaken { bind: bind.to_string(), listener: other.name.to_string() });
            }
        }
        self.check_ports(name, spec)
    }

    fn create_listener(&self, index: Revision, name: &ListenerName, spec: &ListenerSpec) -> Result {
        let applied = self.create_listener_alone(index, name, spec)?;
        self.check_addresses(name, spec)?;
        Ok(applied)
    }

    /// As [`create_listener`](Self::create_listener), whatever addresses other listeners have.
    fn create_listener_alone(&self, index: Revision, name: &ListenerName, spec: &ListenerSpec) -> Result {
        if let Some(listener) = self.listeners.get(name) {
            return Err(exists(Kind::Listener, name, listener.revision));
        }
        if self.listeners.len() >= defaults::LISTENERS_MAX {
            return Err(Refusal::Full { kind: Kind::Listener, max: defaults::LISTENERS_MAX });
        }
        self.check_listener(spec)?;
        let listener = Listener { name: name.clone(), spec: spec.clone(), revision: index, created: index };
        let listener = Arc::new(listener);
        changed(index, ChangeKind::Created, Resource::Listener(listener))
    }

    fn update_listener(
        &self,
        index: Revision,
        name: &ListenerName,
        patch: &ListenerPatch,
        expect: Option<Revision>,
    ) -> Result {
        let listener = self.listeners.get(name).ok_or_else(|| missing(Kind::Listener, name))?;
        expect_revision(Kind::Listener, name, expect, listener.revision)?;
        let spec = listener.spec.patched(patch);
        if spec == listener.spec {
            return unchanged(listener.revision, Outcome::Listener(listener.clone()));
        }
        self.check_listener(&spec)?;
        self.check_addresses(name, &spec)?;
        let created = listener.created;
        let listener = Arc::new(Listener { name: name.clone(), spec, revision: index, created });
        changed(index, ChangeKind::Updated, Resource::Listener(listener))
    }

    fn delete_listener(&self, index: Revision, name: &ListenerName, expect: Option<Revision>) -> Result {
        let listener = self.listeners.get(name).ok_or_else(|| missing(Kind::Listener, name))?.clone();
        expect_revision(Kind::Listener, name, expect, listener.revision)?;
        changed(index, ChangeKind::Deleted, Resource::Listener(listener))
    }
}
