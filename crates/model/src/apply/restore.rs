//! Making the configuration exactly what a document says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Result;
use crate::address::Port;
use crate::command::Outcome;
use crate::configuration::{Configuration, Restored};
use crate::defaults::PORTS_MAX;
use crate::diff::{Change, ChangeKind};
use crate::listener::ListenerSpec;
use crate::machine::Applied;
use crate::name::ListenerName;
use crate::pool::PoolEntry;
use crate::refusal::Refusal;
use crate::state::{ClusterState, Revision};
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

/// The addresses of a document's listeners. Found by address, because there may be ten thousand listeners, and each would
/// else be compared with each.
#[derive(Default)]
struct Addresses<'a> {
    /// Ranges of ports of each address by their first one: the last one, and whose they are.
    ranges: BTreeMap<(IpAddr, Port), (Port, &'a ListenerName)>,
    /// Ports of all listeners.
    ports: usize,
}

impl<'a> Addresses<'a> {
    /// Adds those of a listener, all or none.
    fn claim(&mut self, name: &'a ListenerName, spec: &ListenerSpec) -> std::result::Result<(), Refusal> {
        for bind in &spec.binds {
            // Ranges do not overlap, so that only the last one that begins before the end of this one can.
            let before = self.ranges.range((bind.ip, Port::MIN)..=(bind.ip, bind.last)).next_back();
            if let Some((_, (_, holder))) = before.filter(|(_, (last, _))| *last >= bind.first) {
                return Err(Refusal::BindTaken { bind: bind.to_string(), listener: holder.to_string() });
            }
        }
        let (ports, others, max) = (spec.ports(), self.ports, PORTS_MAX);
        if others + ports > max {
            return Err(Refusal::TooManyPorts { listener: name.to_string(), ports, others, max });
        }
        self.ports += ports;
        self.ranges.extend(spec.binds.iter().map(|bind| ((bind.ip, bind.first), (bind.last, name))));
        Ok(())
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
                keep_unchanged(backend, old, |a, b| a.spec == b.spec);
            }
            keep_unchanged(entry, old, |a, b| a == b);
        }
        for (name, listener) in &mut new.listeners {
            let old = self.listeners.get(name);
            if let Some(old) = old {
                Arc::make_mut(listener).created = old.created;
            }
            keep_unchanged(listener, old, |a, b| a.spec == b.spec);
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

    /// This state with the document's resources instead of its own. Members that a virtual IP names may be added later, as
    /// they may be removed later.
    fn rebuilt(&self, index: Revision, document: &Configuration) -> std::result::Result<Self, Refusal> {
        let mut new = Self {
            pools: Default::default(),
            listeners: Default::default(),
            vips: Default::default(),
            ..self.clone()
        };
        let mut found = Vec::new();
        let mut add = |new: &mut Self, resource: &dyn Fn() -> String, decided: Result| match decided {
            Ok(applied) => applied.changes.iter().for_each(|change| new.write(change)),
            Err(refusal) => note(&mut found, &resource(), refusal),
        };
        for (name, spec) in &document.vips {
            let decided = new.new_vip(index, name, spec);
            add(&mut new, &|| format!("vips/{name}"), decided);
        }
        for (name, spec) in &document.pools {
            let decided = new.create_pool(index, name, spec);
            add(&mut new, &|| format!("pools/{name}"), decided);
        }
        for (pool, name, spec) in &document.backends {
            let decided = new.create_backend(index, pool, name, spec);
            add(&mut new, &|| format!("pools/{pool}/backends/{name}"), decided);
        }
        let mut addresses = Addresses::default();
        for (name, spec) in &document.listeners {
            let decided = new.create_listener_alone(index, name, spec);
            let decided = decided.and_then(|applied| addresses.claim(name, spec).map(|()| applied));
            add(&mut new, &|| format!("listeners/{name}"), decided);
        }
        if found.is_empty() { Ok(new) } else { Err(Invalid(found).into()) }
    }
}
