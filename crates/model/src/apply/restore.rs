//! Making the configuration exactly what a document says.

use std::sync::Arc;

use super::Result;
use super::rules::Named;
use crate::change::{Change, ChangeKind};
use crate::command::Outcome;
use crate::configuration::{Configuration, Restored};
use crate::document::Operation;
use crate::machine::Applied;
use crate::pool::PoolEntry;
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};

/// A resource that has the settings that it had keeps its revision.
fn keep_unchanged<T>(new: &mut Arc<T>, old: Option<&Arc<T>>, same: impl Fn(&T, &T) -> bool) {
    if let Some(old) = old.filter(|old| same(old, new)) {
        *new = old.clone();
    }
}

/// Names the resource in each of its mistakes.
fn note(found: &mut Vec<Violation>, resource: &str, refusal: Refusal) {
    match refusal {
        Refusal::Invalid(Invalid(mistakes)) => {
            found.extend(mistakes.into_iter().map(|mut mistake| {
                mistake.field = format!("{resource}: {}", mistake.field);
                mistake
            }));
        }
        other => found.push(Violation::new(resource, "", other.to_string())),
    }
}

fn count(changes: &[Change]) -> Restored {
    let of = |kind| u32::try_from(changes.iter().filter(|c| c.kind == kind).count()).unwrap_or(u32::MAX);
    Restored {
        created: of(ChangeKind::Created),
        updated: of(ChangeKind::Updated),
        deleted: of(ChangeKind::Deleted),
    }
}

impl ClusterState {
    /// Decides a restore: all of it, or a refusal with every mistake of the document.
    pub(super) fn restore(&self, index: Revision, document: &Configuration, replace: bool) -> Result {
        let mut new = self.rebuilt(index, document)?;
        for (name, entry) in &mut new.pools {
            let old = self.pools.get(name);
            let PoolEntry { pool, backends } = Arc::make_mut(entry);
            keep_unchanged(pool, old.map(|old| &old.pool), |a, b| a.spec == b.spec);
            for (name, backend) in backends {
                let old = old.and_then(|old| old.backends.get(name));
                keep_unchanged(backend, old, |a, b| (&a.spec, a.admin_state) == (&b.spec, b.admin_state));
            }
            keep_unchanged(entry, old, |a, b| a == b);
        }
        for (name, listener) in &mut new.listeners {
            let old = self.listeners.get(name);
            if let Some(old) = old {
                Arc::make_mut(listener).created = old.created;
            }
            keep_unchanged(listener, old, |a, b| (&a.spec, &a.binds) == (&b.spec, &b.binds));
        }
        for (name, vip) in &mut new.vips {
            keep_unchanged(vip, self.vips.get(name), |a, b| a.spec == b.spec);
        }
        let changes = self.diff(&new);
        let configured = [self.pools.len(), self.listeners.len(), self.vips.len()];
        if !replace && !changes.is_empty() && configured.iter().any(|count| *count > 0) {
            let [pools, listeners, vips] = configured;
            return Err(Refusal::Configured { pools, listeners, vips });
        }
        let revision = if changes.is_empty() { self.revision } else { index };
        Ok(Applied { revision, outcome: Outcome::Restored(count(&changes)), changes })
    }

    /// This state with the document's resources instead of its own.
    fn rebuilt(&self, index: Revision, document: &Configuration) -> std::result::Result<Self, Refusal> {
        let empty = Self {
            pools: Default::default(),
            listeners: Default::default(),
            vips: Default::default(),
            ..self.clone()
        };
        let operations: Vec<Operation> = document.0.iter().cloned().map(Operation::create).collect();
        empty.assembled(index, &operations, empty.clone(), Named::Anybody).map_err(|failed| {
            let mut found = Vec::new();
            failed.into_iter().for_each(|(name, refusal)| note(&mut found, &name.to_string(), refusal));
            Invalid(found).into()
        })
    }
}
