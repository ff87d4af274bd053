//! Listeners: which addresses this member should have open, and having them opened and closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use trestle_model::{self as model, Claim, ClusterState, ListenerName, Overlaps, PoolName, Port, Revision};

use crate::accept::admission::Admission;
use crate::accept::bind::{self, BindError};
use crate::accept::listener::{BindStatus, Listener};
use crate::forwarder::{Forwarder, OpenMode};
use crate::observe::event::{Event, OnEvent};
use crate::upstream::loop_guard::{LoopGuard, OwnTargets, meets};

/// Ports of a listener up to which each of them has a socket for each worker, so that all cores accept there. With more, each
/// port has one socket, and the workers share the ports out: thousands of ports would else cost as many descriptors for
/// each core.
const SPREAD_PORTS_MAX: usize = 256;

/// How long a listener that is new here waits for the first checks of its backends. HAProxy serves at once and leads to
/// servers that it then finds down. After a time much longer than a check takes, clients are better served by any backend.
const FIRST_CHECKS_MAX: Duration = Duration::from_secs(2);

/// A listener whose addresses stay closed until its backends were checked for the first time.
#[derive(Debug, Clone, Copy)]
struct ListenerHold {
    /// When they are opened in any case, on the reconciler's clock.
    until: Duration,
    /// The revision that is in force without it.
    before: Revision,
}

/// Most addresses beside a wildcard that are listed one by one.
const SHADOWED_MAX: usize = 8;

type Published = (Arc<BTreeMap<ListenerName, Arc<Listener>>>, Arc<BTreeMap<SocketAddr, Arc<Listener>>>);

/// Whether two states have the same listeners, members, sockets of those and virtual IPs.
pub(super) fn same(old: &ClusterState, new: &ClusterState) -> bool {
    fn all<K, V>(old: &BTreeMap<K, Arc<V>>, new: &BTreeMap<K, Arc<V>>) -> bool {
        old.len() == new.len() && old.values().zip(new.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    }
    all(&old.listeners, &new.listeners)
        && all(&old.members, &new.members)
        && all(&old.sockets, &new.sockets)
        && all(&old.vips, &new.vips)
}

/// All listeners.
pub(super) struct ListenerReconciler {
    data_address: Option<IpAddr>,
    forwarder: Arc<dyn Forwarder>,
    published: Published,
    loop_guard: Arc<LoopGuard>,
    targets: OwnTargets,
    /// Own ports of the members on this machine.
    neighbours: Vec<SocketAddr>,
    /// Wildcards that get no connections at an address of another listener, in words.
    shadowed: Arc<[String]>,
    /// Of listeners that are published with other settings, or are gone.
    replaced: Vec<Arc<Admission>>,
    /// The addresses of virtual IPs.
    vips: Arc<BTreeSet<IpAddr>>,
    on_event: OnEvent,
    /// Listeners of which was told last that they are not bound.
    unbound: BTreeSet<ListenerName>,
    /// Listeners that are new and wait.
    held: BTreeMap<ListenerName, ListenerHold>,
    /// What was in force before the first address was put off that is not open yet.
    opening: Option<Revision>,
    drained: bool,
    stopped: bool,
}

impl ListenerReconciler {
    pub(super) fn new(
        data_address: Option<IpAddr>,
        targets: OwnTargets,
        forwarder: Arc<dyn Forwarder>,
        on_event: OnEvent,
    ) -> Self {
        Self {
            data_address,
            forwarder,
            published: Published::default(),
            loop_guard: Arc::default(),
            targets,
            neighbours: Vec::new(),
            shadowed: Arc::default(),
            replaced: Vec::new(),
            vips: Arc::default(),
            on_event,
            unbound: BTreeSet::new(),
            held: BTreeMap::new(),
            opening: None,
            drained: false,
            stopped: false,
        }
    }

    pub(super) fn published(&self) -> Published {
        self.published.clone()
    }

    /// Where no connection may go.
    pub(super) fn loop_guard(&self) -> Arc<LoopGuard> {
        self.loop_guard.clone()
    }

    /// Wildcards that get no connections at an address of another listener, in words.
    pub(super) fn shadowed(&self) -> Arc<[String]> {
        self.shadowed.clone()
    }

    /// The addresses of virtual IPs.
    pub(super) fn vips(&self) -> Arc<BTreeSet<IpAddr>> {
        self.vips.clone()
    }

    /// Closes every address at the next [`ListenerReconciler::follow`], and opens none from then on.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether, from the next [`ListenerReconciler::follow`] on, only addresses of virtual IPs have sockets. Answers whether that is
    /// new.
    pub(super) fn drain(&mut self, drained: bool) -> bool {
        std::mem::replace(&mut self.drained, drained) != drained
    }

    /// Puts listeners of `state` on hold that are new and whose pools are `unchecked`, and releases those whose time is over or
    /// whose pools are checked. `before` is the revision that is in force without those that are new.
    pub(super) fn hold(
        &mut self,
        state: &ClusterState,
        before: Revision,
        now: Duration,
        mut unchecked: impl FnMut(&PoolName) -> bool,
    ) {
        let mut waits = |listener: &model::Listener| pools(listener).any(&mut unchecked);
        self.held
            .retain(|name, hold| now < hold.until && state.listeners.get(name).is_some_and(|l| waits(l)));
        let new = state.listeners.iter().filter(|(name, _)| !self.published.0.contains_key(*name));
        for (name, _) in new.filter(|(_, listener)| waits(listener)) {
            let hold = ListenerHold { until: now.saturating_add(FIRST_CHECKS_MAX), before };
            self.held.entry(name.clone()).or_insert(hold);
        }
    }

    /// Whether a listener on hold can be released.
    pub(super) fn is_released(
        &self,
        state: &ClusterState,
        now: Duration,
        mut unchecked: impl FnMut(&PoolName) -> bool,
    ) -> bool {
        let mut waits = |listener: &Arc<model::Listener>| pools(listener).any(&mut unchecked);
        let mut over = |(name, hold): (&ListenerName, &ListenerHold)| {
            hold.until <= now || !state.listeners.get(name).is_some_and(&mut waits)
        };
        self.held.iter().any(&mut over)
    }

    /// When the next listener on hold opens in any case.
    pub(super) fn next_release(&self) -> Option<Duration> {
        self.held.values().map(|hold| hold.until).min()
    }

    /// Whether an address waits for its turn to be opened.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// The revision in force, of a configuration at `revision`.
    pub(super) fn in_force(&self, revision: Revision) -> Revision {
        self.held.values().map(|hold| hold.before).chain(self.opening).fold(revision, Revision::min)
    }

    /// Opens and closes sockets so that they are those of `state`, as far as the operating system allows, and
    /// prepares the table entries. What takes too long is left to the next call; `before` is the revision in force until then.
    pub(super) async fn follow(&mut self, state: &ClusterState, before: Revision) {
        self.vips = Arc::new(state.vips.values().map(|vip| vip.spec.address.ip).collect());
        self.neighbours = self.targets.of_this_machine(state);
        let owners = self.owners(state);
        let closing = {
            let closed = |address| closed(self.stopped, self.drained, &self.vips, address);
            let keep = |address| owners.contains_key(&address) && closed(address).is_none();
            self.forwarder.close_except(&keep)
        };
        closing.await;
        self.forwarder.begin_opening();
        let mut listeners = BTreeMap::new();
        let mut routes = BTreeMap::new();
        // Where descriptors are few, thousands of ports must not take them from the listeners that have one.
        let mut by_size: Vec<_> = state.listeners.iter().collect();
        by_size.sort_by_key(|(_, config)| config.spec.ports());
        for (name, config) in by_size {
            let was = self.published.0.get(name).cloned();
            let binds = self.bind(config, &owners);
            let listener = entry(config, binds, was.as_ref());
            self.tell(&listener, was.as_deref());
            for status in listener.binds.iter().filter(|b| b.error.is_none()) {
                routes.insert(status.effective, listener.clone());
            }
            listeners.insert(name.clone(), listener);
        }
        self.unbound.retain(|name| listeners.contains_key(name));
        self.opening = self.forwarder.has_put_off().then_some(self.opening.unwrap_or(before));
        let (before, _) = &self.published;
        let unchanged = before.len() == listeners.len()
            && before.values().zip(listeners.values()).all(|(a, b)| Arc::ptr_eq(a, b));
        if !unchanged {
            let stays = |was: &Arc<Listener>| {
                listeners.get(&was.config.name).is_some_and(|is: &Arc<Listener>| Arc::ptr_eq(is, was))
            };
            self.replaced.extend(before.values().filter(|was| !stays(was)).map(|was| was.admission.clone()));
            self.published = (Arc::new(listeners), Arc::new(routes));
        }
        self.shadowed = shadowed(&self.published, self.data_address);
        // Always anew: interfaces come and go.
        let listeners = self.published.0.values().map(|listener| &**listener);
        self.loop_guard = Arc::new(LoopGuard::new(state, listeners, self.data_address, &self.targets));
    }

    /// The listener that each address belongs to: the one that has it here, or else the oldest, on every member alike. It was
    /// there when the others came, whatever they are called and however often it has changed since.
    fn owners(&self, state: &ClusterState) -> BTreeMap<SocketAddr, ListenerName> {
        let mut owners = BTreeMap::new();
        let mut by_age: Vec<_> = state.listeners.values().collect();
        by_age.sort_by_key(|listener| listener.created);
        for listener in by_age {
            for bind in &listener.binds {
                for address in bind::effective(*bind, self.data_address) {
                    owners.entry(address).or_insert_with(|| listener.name.clone());
                }
            }
        }
        for (address, listener) in &*self.published.1 {
            let (name, owner) = (&listener.config.name, owners.get_mut(address));
            let Some(owner) = owner.filter(|owner| *owner != name) else { continue };
            let binds = state.listeners.get(name).map(|listener| &listener.binds);
            let mut binds = binds.into_iter().flatten().map(|bind| bind.on(self.data_address));
            if binds.any(|bind| bind.names(*address)) {
                owner.clone_from(name);
            }
        }
        owners
    }

    /// Opens the addresses that a listener lacks, and returns the status of each of its addresses.
    fn bind(
        &mut self,
        config: &model::Listener,
        owners: &BTreeMap<SocketAddr, ListenerName>,
    ) -> Vec<BindStatus> {
        let spread = config.spec.ports() <= SPREAD_PORTS_MAX;
        let held = self.held.contains_key(&config.name);
        let mut binds = Vec::new();
        for configured in &config.binds {
            for effective in bind::effective(*configured, self.data_address) {
                let error = match owners.get(&effective) {
                    Some(owner) if *owner != config.name => Some(BindError::Taken(owner.clone())),
                    _ if held => Some(BindError::Unchecked),
                    _ => self.open(effective, spread).err(),
                };
                binds.push(BindStatus { configured: *configured, effective, error });
            }
        }
        binds
    }

    /// Tells of addresses of a listener that are not bound and were not so before, or that all are bound again.
    fn tell(&mut self, listener: &Listener, was: Option<&Listener>) {
        let known: BTreeMap<_, _> = was.into_iter().flat_map(Listener::failed).collect();
        let come = listener.failed().filter(|(at, error)| !error.is_meant() && known.get(at) != Some(error));
        let (failures, name) = (bind::told(come), listener.config.name.clone());
        if !failures.is_empty() {
            self.unbound.insert(name.clone());
            self.on_event.tell(Event::ListenerUnbound { listener: name, failures });
        } else if listener.binds.iter().all(|status| status.error.is_none()) && self.unbound.remove(&name) {
            self.on_event.tell(Event::ListenerBound { listener: name });
        }
    }

    fn open(&mut self, address: SocketAddr, spread: bool) -> Result<(), BindError> {
        if self.forwarder.is_open(address) {
            return Ok(());
        }
        match closed(self.stopped, self.drained, &self.vips, address) {
            Some(why) => Err(why),
            None => {
                let opening = OpenMode { spread, ahead: self.vips.contains(&address.ip()) };
                let opened = self.forwarder.open(address, opening);
                // No other process is to be stopped then.
                opened.map_err(|error| match error.is_in_use() {
                    true if self.targets.takes(address) => BindError::OwnPort,
                    true if self.neighbours.iter().any(|own| meets(*own, address)) => {
                        BindError::NeighbourPort
                    }
                    _ => error,
                })
            }
        }
    }

    /// Has connections taken at addresses that were opened, and tells connections that wait to come in what has changed; the table must have
    /// the listeners by now.
    pub(super) fn accept_opened(&mut self) {
        self.replaced.drain(..).for_each(|admission| admission.replaced());
        self.forwarder.accept_opened();
    }
}

/// Where listeners are beside one another of which one is bound to the wildcard, in words. The kernel gives connections to the
/// more specific one.
fn shadowed((listeners, routes): &Published, data_address: Option<IpAddr>) -> Arc<[String]> {
    let binds = listeners.values().map(|listener| (&listener.config.name, &*listener.config.binds));
    let found = Overlaps::of(binds, data_address).shadows;
    let is_bound = |claim: &Claim<'_>, port: Port| {
        let at = routes.get(&SocketAddr::new(claim.effective.ip, port.get()));
        at.is_some_and(|listener| listener.config.name == *claim.listener)
    };
    let mut both = found.iter().filter(|(wildcard, one)| {
        let port = wildcard.effective.first.max(one.effective.first);
        is_bound(wildcard, port) && is_bound(one, port)
    });
    let words = |(wildcard, one): &(Claim<'_>, Claim<'_>)| {
        format!(
            "listener \"{}\" at {} takes the connections there from listener \"{}\" at {}; if that is not meant, give one of \
             them another address or port",
            one.listener, one.effective, wildcard.listener, wildcard.effective
        )
    };
    let mut told: Vec<String> = both.by_ref().take(SHADOWED_MAX).map(words).collect();
    let rest = both.count();
    if rest > 0 {
        told.push(format!(
            "{rest} more addresses take the connections there from listeners that have the wildcard"
        ));
    }
    told.into()
}

/// Why an address is to have no socket now, if it is not.
fn closed(stopped: bool, drained: bool, vips: &BTreeSet<IpAddr>, address: SocketAddr) -> Option<BindError> {
    match () {
        () if stopped => Some(BindError::Stopped),
        // No client reaches a virtual IP here while another member has it; once this member has it, it must answer.
        () if drained && !vips.contains(&address.ip()) => Some(BindError::Drained),
        () => None,
    }
}

/// The pools that a listener leads to.
fn pools(listener: &model::Listener) -> impl Iterator<Item = &PoolName> {
    listener.spec.routes.iter().map(|route| &route.pool).chain([&listener.spec.pool])
}

/// A listener's table entry: the old one where nothing has changed.
fn entry(
    config: &Arc<model::Listener>,
    binds: Vec<BindStatus>,
    was: Option<&Arc<Listener>>,
) -> Arc<Listener> {
    match was {
        Some(was) if Arc::ptr_eq(&was.config, config) && was.binds == binds => return was.clone(),
        _ => {}
    }
    let counters = was.map(|w| w.counters.clone()).unwrap_or_default();
    let admission = was.map(|w| w.admission.clone()).unwrap_or_default();
    Arc::new(Listener { config: config.clone(), binds, counters, admission })
}
