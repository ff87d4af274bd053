//! Addresses of listeners, of which each has one listener, and the ports of all together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::batch::Failures;
use crate::address::{Bind, Port};
use crate::defaults;
use crate::document::ResourceName;
use crate::listener::{Listener, ListenerSpec};
use crate::name::{ListenerName, VipName};
use crate::refusal::Refusal;
use crate::state::ClusterState;
use crate::violation::Violations;

/// The addresses of listeners. Found by address, because there may be ten thousand listeners, and each would else be compared
/// with each.
#[derive(Default)]
pub(super) struct Addresses<'a> {
    /// Ranges of ports of each address by their first one: the last one, and whose they are.
    ranges: BTreeMap<(IpAddr, Port), (Port, &'a ListenerName)>,
    /// Ports of all listeners.
    ports: usize,
}

impl<'a> Addresses<'a> {
    /// Adds those of a listener, all or none. One that has no more ports than `before` has them whatever the others have.
    fn claim(&mut self, listener: &'a Listener, before: usize) -> Result<(), Refusal> {
        for bind in &listener.binds {
            // Ranges do not overlap, so that only the last one that begins before the end of this one can.
            let before = self.ranges.range((bind.ip, Port::MIN)..=(bind.ip, bind.last)).next_back();
            if let Some((_, (_, holder))) = before.filter(|(_, (last, _))| *last >= bind.first) {
                return Err(taken(bind, holder));
            }
        }
        within(&listener.name, listener.spec.ports(), before, self.ports)?;
        self.add(listener);
        Ok(())
    }

    fn add(&mut self, listener: &'a Listener) {
        self.ports += listener.spec.ports();
        let ranges = listener.binds.iter().map(|bind| ((bind.ip, bind.first), (bind.last, &listener.name)));
        self.ranges.extend(ranges);
    }

    /// Those of the `changed` listeners that cannot have the addresses that they have in `new`.
    pub(super) fn conflicts(
        old: &ClusterState,
        new: &'a ClusterState,
        changed: &BTreeSet<&ListenerName>,
    ) -> Failures {
        if changed.is_empty() {
            return Failures::new();
        }
        let mut addresses = Addresses::default();
        let (changed, others): (Vec<_>, Vec<_>) =
            new.listeners.values().partition(|listener| changed.contains(&listener.name));
        others.into_iter().for_each(|other| addresses.add(other));
        let mut failed = Failures::new();
        for listener in changed {
            if let Err(refused) = addresses.claim(listener, ports_of(old, &listener.name)) {
                failed.push((ResourceName::Listener(listener.name.clone()), refused));
            }
        }
        failed
    }
}

fn ports_of(state: &ClusterState, name: &ListenerName) -> usize {
    state.listeners.get(name).map_or(0, |listener| listener.spec.ports())
}

fn taken(bind: &Bind, holder: &ListenerName) -> Refusal {
    Refusal::BindTaken { bind: bind.to_string(), listener: holder.to_string() }
}

/// A listener with more ports than before must leave all listeners together no more than they may have.
fn within(name: &ListenerName, ports: usize, before: usize, others: usize) -> Result<(), Refusal> {
    let max = defaults::PORTS_MAX;
    if ports <= before || others + ports <= max {
        return Ok(());
    }
    Err(Refusal::TooManyPorts { listener: name.to_string(), ports, others, max })
}

impl ClusterState {
    /// What a listener's addresses mean.
    ///
    /// # Errors
    /// Every name that no virtual IP has, and every address that comes twice.
    pub(super) fn resolved(&self, spec: &ListenerSpec) -> Result<Vec<Bind>, Refusal> {
        let alone = spec.binds.len() == 1;
        let place = |i| if alone { "listener.binds".to_owned() } else { format!("listener.binds[{i}]") };
        let mut v = Violations::new();
        let mut binds: Vec<Bind> = Vec::new();
        for (i, address) in spec.binds.iter().enumerate() {
            let resolved = address.resolved(|name| Some(self.vips.get(name)?.spec.address.ip));
            match (resolved, address.vip()) {
                (Some(bind), _) if binds.iter().any(|before| before.overlaps(bind)) => {
                    v.add("listener.binds", address, "must not be named twice");
                }
                (Some(bind), _) => binds.push(bind),
                (None, name) => {
                    let rule = format!(
                        "must be an address, or the name of a vip, with a port, as in 0.0.0.0:6443; there is no vip \
                         \"{}\"; see \"trestle vip list\"",
                        name.map_or("", VipName::as_str)
                    );
                    v.add(place(i), address, rule);
                }
            }
        }
        v.into_result()?;
        Ok(binds)
    }

    /// A listener must claim no address that another one has, nor too many.
    pub(super) fn check_addresses(&self, listener: &Listener) -> Result<(), Refusal> {
        let others = || self.listeners.values().filter(|other| other.name != listener.name);
        for bind in &listener.binds {
            let has = |other: &&Arc<Listener>| other.binds.iter().any(|b| b.overlaps(*bind));
            if let Some(other) = others().find(has) {
                return Err(taken(bind, &other.name));
            }
        }
        let ports = others().map(|other| other.spec.ports()).sum();
        within(&listener.name, listener.spec.ports(), ports_of(self, &listener.name), ports)
    }
}
