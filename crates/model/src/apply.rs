//! Applying a command to the state: deterministic, total, pure.

mod addresses;
mod authorities;
mod batch;
mod levels;
mod members;
mod restore;
mod rules;
mod time;
mod tokens;
mod users;
mod vips;

use std::sync::Arc;

use crate::address::HostPort;
use crate::change::{Change, ChangeKind, Resource};
use crate::command::{Command, Outcome, Proposal};
use crate::defaults;
use crate::kind::Kind;
use crate::machine::Applied;
use crate::member::{Member, MemberId, MemberSpec};
use crate::name::PoolName;
use crate::pool::PoolEntry;
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::transport::FoundingIdentities;
use crate::violation::{Invalid, Violation, Violations};

use tokens::Joining;
use vips::noted;

type Result = std::result::Result<Applied, Refusal>;

fn missing(kind: Kind, name: impl ToString) -> Refusal {
    Refusal::NotFound { kind, name: name.to_string() }
}

fn exists(kind: Kind, name: impl ToString, revision: Revision) -> Refusal {
    Refusal::Exists { kind, name: name.to_string(), revision }
}

/// Refuses when the caller named a revision and the resource has another.
fn check_revision(
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
        self.apply_as(index, command, None)
    }

    /// As [`apply`](Self::apply), and keeps a record of what it changes.
    ///
    /// # Errors
    /// A [`Refusal`], which changes nothing.
    pub(crate) fn apply_recorded(&mut self, index: Revision, proposal: &Proposal) -> Result {
        self.apply_as(index, &proposal.command, Some(proposal))
    }

    fn apply_as(&mut self, index: Revision, command: &Command, proposal: Option<&Proposal>) -> Result {
        match command {
            Command::TakeVips { tenure, time_ms, reason } => {
                return self.take_vips(index, *tenure, *time_ms, reason);
            }
            Command::ReleaseVips { member, term, time_ms, reason } => {
                return self.release_vips(index, *member, *term, *time_ms, reason);
            }
            _ => {}
        }
        let before = self.feature_level;
        let mut applied = self.decide(index, command)?;
        if let Some(record) = proposal.and_then(|proposal| self.record_of(proposal, &applied)) {
            self.keep_record(record);
        }
        match command {
            Command::FoundCluster { cluster_id, member, identities } => {
                self.cluster_id = Some(cluster_id.clone());
                self.feature_level = member.feature_level_max;
                self.found_identities(index, identities.as_ref());
            }
            Command::PinMemberKey { id, key } => self.pin_key(*id, *key),
            Command::SetTransport(transport) => self.transport = *transport,
            Command::PutToken { .. } | Command::DeleteToken(_) | Command::JoinMember { .. } => {
                self.change_tokens(index, command, &applied);
            }
            Command::NoteKeyHolder { .. }
            | Command::AddAuthority { .. }
            | Command::ActivateAuthority(_)
            | Command::RetireAuthority(_) => self.change_authorities(command),
            Command::PutUser { user, .. } => self.put_user(index, applied.revision, user),
            Command::DeleteUser { name, .. } => drop(self.users.remove(name)),
            Command::NoteUserCertificate { user, key } => self.note_certificate(index, user, key),
            Command::NoteTime { time_ms } => self.time_ms = *time_ms,
            Command::RaiseLevel { level } => self.feature_level = self.feature_level.max(*level),
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
        self.note_before(&mut applied.changes);
        applied.changes.iter().for_each(|change| self.replay(change));
        // A level and identities are part of what is agreed on, though no resources that are watched: members of one revision have
        // the same.
        let identities = command.is_about_identities() && applied.revision == index;
        if !applied.changes.is_empty() || self.feature_level != before || identities {
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
        self.check_level(command)?;
        match command {
            Command::FoundCluster { member, identities, .. } => {
                self.found(index, member, identities.as_ref())
            }
            Command::AddMember(spec) => self.add_member(index, MemberId(index), spec),
            Command::RemoveMember(id) => self.remove_member(index, *id),
            Command::UpdateMember { id, peer_address, admin_address } => {
                self.update_member(index, *id, peer_address.as_ref(), admin_address.as_ref())
            }
            Command::NoteStart { member, start, replaces, feature_level_max, .. } => {
                self.note_start(index, *member, (*start, *replaces), *feature_level_max)
            }
            Command::Batch(operations) => self.batch(index, operations),
            Command::DrainMember { name, draining, timeout } => {
                self.drain_member(index, name, *draining, *timeout)
            }
            Command::Restore { configuration, replace } => self.restore(index, configuration, *replace),
            Command::Recover { member, recovery, .. } => self.recover(index, *member, *recovery),
            Command::PutUser { user, expected } => self.decide_user(index, user, *expected),
            Command::DeleteUser { name, expected } => self.delete_user(index, name, *expected),
            Command::NoteUserCertificate { user, key } => self.decide_certificate(index, user, key),
            Command::NoteTime { time_ms } => self.decide_time(index, *time_ms),
            Command::PutToken { token, time_ms } => self.decide_token(index, token, *time_ms),
            Command::DeleteToken(id) => self.delete_token(index, *id),
            Command::JoinMember { spec, key, token, secret_hash, time_ms } => {
                self.decide_join(index, Joining { spec, key, token: *token, secret_hash, time_ms: *time_ms })
            }
            Command::NoteKeyHolder { generation, member } => {
                self.decide_key_holder(index, *generation, *member)
            }
            Command::AddAuthority { generation, certificate, maker, .. } => {
                self.decide_authority(index, *generation, certificate, *maker)
            }
            Command::ActivateAuthority(generation) => self.decide_activation(index, *generation),
            Command::RetireAuthority(generation) => self.decide_retirement(index, *generation),
            Command::PinMemberKey { id, key } => self.decide_pin(index, *id, key),
            Command::SetTransport(transport) => self.decide_transport(index, *transport),
            Command::RaiseLevel { .. }
            | Command::TakeVips { .. }
            | Command::ReleaseVips { .. }
            | Command::StagePiece { .. }
            | Command::ApplyStaged { .. } => Ok(noted(index)),
        }
    }

    /// Makes a change that was decided, here or where this state is followed from.
    pub fn replay(&mut self, change: &Change) {
        let gone = change.kind == ChangeKind::Deleted;
        match &change.resource {
            Resource::Member(member) if gone => {
                self.members.remove(&member.id);
                self.starts.remove(&member.id);
                self.sockets.remove(&member.id);
                self.member_keys.remove(&member.id);
                self.joins_as.remove(&member.id);
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

    fn found(&self, index: Revision, spec: &MemberSpec, identities: Option<&FoundingIdentities>) -> Result {
        if self.cluster_id.is_some() {
            return Err(Refusal::Founded);
        }
        if let Some(token) = identities.and_then(|identities| identities.token.as_ref()) {
            valid(|v| token.check(v))?;
        }
        // The first member needs an id before there is a log that could allocate one; no log index of a later member
        // is 1, because founding takes that and more.
        let mut applied = self.add_member(index, MemberId::FOUNDER, spec)?;
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
        self.check_member_level(&spec.name, spec.feature_level_max)?;
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

    fn note_start(
        &self,
        index: Revision,
        id: MemberId,
        (start, replaces): (u64, u64),
        feature_level_max: u32,
    ) -> Result {
        let member = self.members.get(&id).ok_or_else(|| missing(Kind::Member, id))?;
        let recorded = self.starts.get(&id).copied().unwrap_or(0);
        if recorded != start {
            check_revision(Kind::Member, id, Some(replaces), recorded)?;
        }
        self.check_member_level(&member.spec.name, feature_level_max)?;
        if member.spec.feature_level_max == feature_level_max {
            return Ok(noted(index));
        }
        // The program of another version.
        let spec = MemberSpec { feature_level_max, ..member.spec.clone() };
        let member = Arc::new(Member { spec, revision: index, ..Member::clone(member) });
        let change = Change::new(ChangeKind::Updated, Resource::Member(member));
        Ok(Applied { changes: vec![change], ..noted(index) })
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
}
