//! Listeners: where clients connect.

use std::collections::BTreeSet;

use crate::address::Bind;
use crate::defaults;
use crate::name::{ListenerName, PoolName};
use crate::state::Revision;
use crate::violation::Violations;

/// The settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Addresses that every member binds; 1 to 16, all different.
    pub binds: Vec<Bind>,
    /// The pool that connections go to.
    pub pool: PoolName,
}

impl ListenerSpec {
    /// Notes every setting that breaks a rule.
    pub fn check(&self, v: &mut Violations) {
        if self.binds.is_empty() || self.binds.len() > defaults::BINDS_MAX {
            let rule = format!("must name 1 to {} addresses", defaults::BINDS_MAX);
            v.add("listener.binds", format!("{} addresses", self.binds.len()), rule);
        }
        let mut seen = BTreeSet::new();
        for bind in &self.binds {
            if !seen.insert(bind) {
                v.add("listener.binds", bind, "must not be named twice");
            }
        }
    }

    /// The settings after a patch.
    #[must_use]
    pub fn patched(&self, patch: &ListenerPatch) -> Self {
        Self {
            binds: patch.binds.clone().unwrap_or_else(|| self.binds.clone()),
            pool: patch.pool.clone().unwrap_or_else(|| self.pool.clone()),
        }
    }
}

/// A change to a listener's settings: only what is `Some` changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerPatch {
    /// Addresses that every member binds.
    pub binds: Option<Vec<Bind>>,
    /// The pool that connections go to.
    pub pool: Option<PoolName>,
}

/// A listener: addresses that lead to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The listener's name.
    pub name: ListenerName,
    /// Its settings.
    pub spec: ListenerSpec,
    /// Revision that last changed it.
    pub revision: Revision,
}
