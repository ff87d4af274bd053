//! What the names of backends stand for, and which backends use them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use trestle_model::{BackendName, Host, PoolName};

use crate::resolve::{ResolverCommand, ResolverReport};

/// A backend of a pool.
pub(super) type BackendKey = (PoolName, BackendName);

struct Known {
    found: Result<Arc<[IpAddr]>, Arc<str>>,
    /// No lookup has ended yet.
    awaited: bool,
    users: BTreeSet<BackendKey>,
}

/// Every name in use.
pub(super) struct NameUsers {
    resolver: mpsc::UnboundedSender<ResolverCommand>,
    known: BTreeMap<Arc<str>, Known>,
}

impl NameUsers {
    pub(super) fn new(resolver: mpsc::UnboundedSender<ResolverCommand>) -> Self {
        Self { resolver, known: BTreeMap::new() }
    }

    /// The addresses of `host`, which `user` uses from now on; or, in words, why none is known.
    pub(super) fn find(&mut self, host: &Host, user: BackendKey) -> Result<Arc<[IpAddr]>, Arc<str>> {
        let name = match host {
            Host::Ip(ip) => return Ok([*ip].into()),
            Host::Name(name) => name,
        };
        let known = self.known.entry(name.clone()).or_insert_with(|| {
            // Fails only when the resolver's thread is gone, of which the log tells.
            let _ = self.resolver.send(ResolverCommand::Watch(name.clone()));
            let found = Err(format!("name {name}: not looked up yet").into());
            Known { found, awaited: true, users: BTreeSet::new() }
        });
        known.users.insert(user);
        known.found.clone()
    }

    /// Whether `host` is a name that was not looked up yet.
    pub(super) fn is_awaited(&self, host: &Host) -> bool {
        matches!(host, Host::Name(name) if self.known.get(name).is_some_and(|known| known.awaited))
    }

    /// Whether a report is the first one about its name.
    pub(super) fn is_first(&self, report: &ResolverReport) -> bool {
        self.known.get(&report.name).is_some_and(|known| known.awaited)
    }

    /// `user` no longer uses `host`.
    pub(super) fn leave(&mut self, host: &Host, user: &BackendKey) {
        let Host::Name(name) = host else { return };
        if let Some(known) = self.known.get_mut(name) {
            known.users.remove(user);
            if known.users.is_empty() {
                self.known.remove(name);
                let _ = self.resolver.send(ResolverCommand::Forget(name.clone()));
            }
        }
    }

    /// Takes over what was found; returns the backends that this is about.
    pub(super) fn report(&mut self, report: ResolverReport) -> Vec<BackendKey> {
        let Some(known) = self.known.get_mut(&report.name) else { return Vec::new() };
        (known.found, known.awaited) = (report.found, false);
        known.users.iter().cloned().collect()
    }
}
