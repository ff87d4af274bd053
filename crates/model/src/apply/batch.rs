//! Batches of documents: all of their operations, or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::addresses::Addresses;
use super::rules::Named;
use super::{Result, changed, check_revision, exists, missing, unchanged, valid};
use crate::change::{Change, ChangeKind, Resource};
use crate::command::Outcome;
use crate::defaults;
use crate::document::{Document, Expected, Operation, ResourceName};
use crate::listener::Listener;
use crate::machine::Applied;
use crate::name::{BackendName, PoolName};
use crate::pool::{AdminState, Backend, BackendSpec, Pool};
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};
use crate::vip::Vip;

/// The operations that failed, with the reasons.
pub(super) type Failures = Vec<(ResourceName, Refusal)>;

/// The refusal of a batch that is about one resource is that resource's; of others, each failed operation is named.
fn refusal(mut failed: Failures, alone: bool) -> Refusal {
    failed.dedup_by(|one, other| alone && one.1 == other.1);
    match failed.as_slice() {
        [(_, only)] if alone => only.clone(),
        _ => Refusal::Batch(failed),
    }
}

fn too_many(operations: usize) -> Refusal {
    let max = defaults::OPERATIONS_MAX;
    let rule = format!("must be 1 to {max}");
    Invalid(vec![Violation::new("operations", operations, rule)]).into()
}

impl ClusterState {
    /// Decides a batch.
    pub(super) fn batch(&self, index: Revision, operations: &[Operation]) -> Result {
        match operations {
            [one] => self.alone(index, one),
            many if (2..=defaults::OPERATIONS_MAX).contains(&many.len()) => self.together(index, many),
            _ => Err(too_many(operations.len())),
        }
    }

    /// Decides a batch of one operation, which needs no copy of the state.
    fn alone(&self, index: Revision, operation: &Operation) -> Result {
        let mut changes = self.changes(index, operation, self)?;
        if changes.is_empty() {
            let name = operation.resource();
            let revision = self.revision_of(&name).unwrap_or(self.revision);
            let outcome = self.outcome(&name).ok_or_else(|| missing(name.kind(), name.id()))?;
            return unchanged(revision, outcome);
        }
        self.check_rules(operation, self, Named::Members)?;
        if let [
            Change {
                kind: ChangeKind::Created | ChangeKind::Updated,
                resource: Resource::Listener(listener),
                ..
            },
        ] = changes.as_slice()
        {
            self.check_addresses(listener)?;
        }
        match changes.len() {
            1 => {
                let Change { kind, resource, .. } = changes.remove(0);
                changed(index, kind, resource)
            }
            _ => Ok(Applied { revision: index, outcome: Outcome::Deleted, changes }),
        }
    }

    /// Decides several operations on a copy.
    fn together(&self, index: Revision, operations: &[Operation]) -> Result {
        let resources: BTreeSet<ResourceName> =
            operations.iter().map(|operation| operation.resource().shown_as()).collect();
        let new = self
            .assembled(index, operations, self.clone(), Named::Members)
            .map_err(|failed| refusal(failed, resources.len() == 1))?;
        let changes = self.diff(&new);
        let revision = if changes.is_empty() { self.revision } else { index };
        let only = resources.first().filter(|_| resources.len() == 1);
        let outcome = match only.and_then(|name| new.outcome(name)) {
            Some(outcome) => outcome,
            None => {
                Outcome::Batch(operations.iter().map(|operation| self.kind_of(operation, &new)).collect())
            }
        };
        let revision = match only.and_then(|name| new.revision_of(name)) {
            Some(of_resource) if changes.is_empty() => of_resource,
            _ => revision,
        };
        Ok(Applied { revision, outcome, changes })
    }

    /// What an operation made of its resource; `None` where it changed nothing.
    fn kind_of(&self, operation: &Operation, new: &Self) -> Option<ChangeKind> {
        let name = operation.resource();
        match (self.document(&name), new.document(&name)) {
            (None, None) => None,
            (None, Some(_)) => Some(ChangeKind::Created),
            (Some(_), None) => Some(ChangeKind::Deleted),
            (Some(before), Some(after)) => (before != after).then_some(ChangeKind::Updated),
        }
    }

    /// The state after all operations, which begin with `new`; each of them is expected to find what `self` has.
    ///
    /// # Errors
    /// Every operation that fails, with the reason.
    pub(super) fn assembled(
        &self,
        index: Revision,
        operations: &[Operation],
        mut new: Self,
        who: Named,
    ) -> std::result::Result<Self, Failures> {
        // Who is needed comes first, and what goes away goes last: what refers to what is judged at the end only.
        let mut order: Vec<(bool, ResourceName, &Operation)> = operations
            .iter()
            .map(|operation| (matches!(operation, Operation::Delete { .. }), operation.resource(), operation))
            .collect();
        order.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        let mut failed = Failures::new();
        let mut seen = BTreeSet::new();
        let mut touched = Vec::new();
        for (_, name, operation) in &order {
            if !seen.insert(name) {
                let twice = Violation::new("operations", name, "must not be named twice");
                failed.push((name.clone(), Invalid(vec![twice]).into()));
                continue;
            }
            match self.changes(index, operation, &new) {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => {
                    changes.iter().for_each(|change| new.replay(change));
                    touched.push((name, *operation));
                }
                Err(refused) => failed.push((name.clone(), refused)),
            }
        }
        let rules = touched.iter().map(|(name, operation)| (*name, new.check_rules(operation, self, who)));
        failed.extend(rules.filter_map(|(name, checked)| Some((name.clone(), checked.err()?))));
        let listeners = touched.iter().filter_map(|(name, _)| match name {
            ResourceName::Listener(name) => Some(name),
            _ => None,
        });
        let listeners = listeners.collect();
        failed.extend(Addresses::conflicts(self, &new, &listeners));
        failed.sort_by(|one, other| one.0.cmp(&other.0));
        if failed.is_empty() { Ok(new) } else { Err(failed) }
    }

    /// The changes that an operation makes, if what is in `self` is what it expects; none when it changes nothing. `base` is
    /// what the operations before it have made.
    fn changes(
        &self,
        index: Revision,
        operation: &Operation,
        base: &Self,
    ) -> std::result::Result<Vec<Change>, Refusal> {
        let name = operation.resource();
        let there = self.revision_of(&name);
        match (operation, there) {
            (Operation::Put { document, expected }, there) => {
                match (*expected, there) {
                    (Expected::Any, _) | (Expected::Absent, None) => {}
                    (Expected::Absent, Some(revision)) => {
                        return Err(exists(name.kind(), name.id(), revision));
                    }
                    (Expected::Revision(_), None) => return Err(self.not_there(&name)),
                    (Expected::Revision(expected), Some(actual)) => {
                        check_revision(name.kind(), name.id(), Some(expected), actual)?;
                    }
                }
                let kind = if there.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
                let made = self.made(index, document, base)?;
                Ok(made.map(|resource| Change::new(kind, resource)).into_iter().collect())
            }
            (Operation::Delete { expected, .. }, Some(actual)) => {
                check_revision(name.kind(), name.id(), *expected, actual)?;
                self.deleted(&name)
            }
            (Operation::Delete { .. }, None) => Err(self.not_there(&name)),
        }
    }

    /// Whose absence is told: a backend's pool, where that is not there either.
    pub fn not_there(&self, name: &ResourceName) -> Refusal {
        match name {
            ResourceName::Backend(pool, _) | ResourceName::AdminState(pool, _)
                if !self.pools.contains_key(pool) =>
            {
                missing(crate::kind::Kind::Pool, pool)
            }
            other => missing(other.kind(), other.id()),
        }
    }

    /// The resource that a document makes; `None` when it is there as it is.
    fn made(
        &self,
        index: Revision,
        document: &Document,
        base: &Self,
    ) -> std::result::Result<Option<Resource>, Refusal> {
        Ok(match document {
            Document::Vip(name, spec) => {
                let there = self.vips.get(name);
                if let Some(vip) = there.filter(|vip| vip.spec.address != spec.address) {
                    let rule = format!(
                        "is {} and never changes; delete the vip and create it anew",
                        vip.spec.address
                    );
                    return Err(Invalid(vec![Violation::new("vip.address", spec.address, rule)]).into());
                }
                let same = there.is_some_and(|vip| vip.spec == *spec);
                let vip = || Vip { name: name.clone(), spec: spec.clone(), revision: index };
                (!same).then(|| Resource::Vip(Arc::new(vip())))
            }
            Document::Pool(name, spec) => {
                let entry = self.pools.get(name);
                let same = entry.is_some_and(|entry| entry.pool.spec == **spec);
                let pool = || Pool { name: name.clone(), spec: (**spec).clone(), revision: index };
                let backends = entry.map_or(0, |entry| entry.backends.len());
                (!same).then(|| Resource::Pool(Arc::new(pool()), backends))
            }
            Document::Backend(pool, name, spec) => {
                base.pool(pool)?;
                let there = self.backend(pool, name);
                let same = there.is_some_and(|backend| backend.spec == *spec);
                let admin_state = there.map(|backend| backend.admin_state).unwrap_or_default();
                (!same).then(|| backend(index, pool, name, spec.clone(), admin_state))
            }
            Document::AdminState(pool, name, state) => {
                let there = base
                    .backend(pool, name)
                    .ok_or_else(|| base.not_there(&ResourceName::AdminState(pool.clone(), name.clone())))?;
                let same = there.admin_state == *state;
                (!same).then(|| backend(index, pool, name, there.spec.clone(), *state))
            }
            Document::Listener(name, spec) => {
                let there = self.listeners.get(name);
                let same = there.is_some_and(|listener| listener.spec == *spec);
                if same {
                    return Ok(None);
                }
                // Of settings that are wrong anyway nothing else is told.
                valid(|v| spec.check(v))?;
                let created = there.map_or(index, |listener| listener.created);
                let (name, spec, binds) = (name.clone(), spec.clone(), base.resolved(spec)?);
                Some(Resource::Listener(Arc::new(Listener { name, spec, binds, revision: index, created })))
            }
        })
    }

    /// The changes that take a resource away: contents first.
    fn deleted(&self, name: &ResourceName) -> std::result::Result<Vec<Change>, Refusal> {
        let gone = |resource| Change::new(ChangeKind::Deleted, resource);
        let not_there = || self.not_there(name);
        Ok(match name {
            ResourceName::Vip(name) => {
                vec![gone(Resource::Vip(self.vips.get(name).ok_or_else(not_there)?.clone()))]
            }
            ResourceName::Pool(name) => {
                let entry = self.pool(name)?;
                let backends = entry.backends.values();
                let backends = backends.map(|b| gone(Resource::Backend(name.clone(), b.clone())));
                let pool = gone(Resource::Pool(entry.pool.clone(), entry.backends.len()));
                backends.chain([pool]).collect()
            }
            ResourceName::Backend(pool, backend) => {
                let there = self.backend(pool, backend).ok_or_else(not_there)?;
                vec![gone(Resource::Backend(pool.clone(), there.clone()))]
            }
            ResourceName::AdminState(..) => {
                let rule = "goes with its backend and cannot be deleted; enable the backend instead";
                return Err(Invalid(vec![Violation::new("resource", name, rule)]).into());
            }
            ResourceName::Listener(name) => {
                let there = self.listeners.get(name).ok_or_else(not_there)?;
                vec![gone(Resource::Listener(there.clone()))]
            }
        })
    }

    /// A resource as an answer tells of it.
    pub fn outcome(&self, name: &ResourceName) -> Option<Outcome> {
        Some(match name {
            ResourceName::Vip(name) => Outcome::Vip(self.vips.get(name)?.clone()),
            ResourceName::Pool(name) => {
                let entry = self.pools.get(name)?;
                Outcome::Pool(entry.pool.clone(), entry.backends.len())
            }
            ResourceName::Backend(pool, name) | ResourceName::AdminState(pool, name) => {
                Outcome::Backend(pool.clone(), self.backend(pool, name)?.clone())
            }
            ResourceName::Listener(name) => Outcome::Listener(self.listeners.get(name)?.clone()),
        })
    }
}

fn backend(
    revision: Revision,
    pool: &PoolName,
    name: &BackendName,
    spec: BackendSpec,
    admin_state: AdminState,
) -> Resource {
    let backend = Backend { name: name.clone(), spec, admin_state, revision };
    Resource::Backend(pool.clone(), Arc::new(backend))
}
