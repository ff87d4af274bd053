//! Listening sockets: which addresses this member should have, and opening and closing them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use trestle_model::{self as model, ClusterState, ListenerName, PoolName, Revision};

use crate::bind::{self, BindError};
use crate::gate::Gate;
use crate::guard::{Guard, OwnTargets};
use crate::plane::Shared;
use crate::table::{BindStatus, Listener};
use crate::worker::Order;

/// How long workers may take to empty the queues of sockets that are closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How long a listener that is new here waits for the first checks of its backends. HAProxy serves at once and leads to
/// servers that it then finds down; much longer than a check takes, and clients had better be served by anybody.
const FIRST_CHECKS_MAX: Duration = Duration::from_secs(2);

/// A listener that has no sockets until its backends were checked for the first time.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// When it opens them in any case, on the reconciler's clock.
    until: Duration,
    /// What is in force without it.
    before: Revision,
}

/// The address that orders sockets by port first, so that neighbours on a port are found without a search.
type Key = (u16, IpAddr);

fn key(address: SocketAddr) -> Key {
    (address.port(), address.ip())
}

type Published = (Arc<BTreeMap<ListenerName, Arc<Listener>>>, Arc<BTreeMap<SocketAddr, Arc<Listener>>>);

/// Whether two states have the same listeners, members and virtual IPs.
pub(super) fn same(old: &ClusterState, new: &ClusterState) -> bool {
    fn all<K, V>(old: &BTreeMap<K, Arc<V>>, new: &BTreeMap<K, Arc<V>>) -> bool {
        old.len() == new.len() && old.values().zip(new.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    }
    all(&old.listeners, &new.listeners) && all(&old.members, &new.members) && all(&old.vips, &new.vips)
}

/// All listeners.
pub(super) struct Listeners {
    data_address: Option<IpAddr>,
    workers: Vec<mpsc::UnboundedSender<Order>>,
    shared: Arc<Shared>,
    /// Addresses whose sockets are open.
    open: BTreeMap<Key, SocketAddr>,
    /// Sockets that are open and not with the workers yet.
    fresh: Vec<(SocketAddr, Vec<TcpListener>)>,
    published: Published,
    guard: Arc<Guard>,
    targets: OwnTargets,
    /// Of listeners that are published with other settings, or no more.
    replaced: Vec<Arc<Gate>>,
    /// The addresses of virtual IPs.
    vips: Arc<BTreeSet<IpAddr>>,
    /// Listeners that are new and wait.
    held: BTreeMap<ListenerName, Hold>,
    drained: bool,
    stopped: bool,
}

impl Listeners {
    pub(super) fn new(
        data_address: Option<IpAddr>,
        targets: OwnTargets,
        workers: Vec<mpsc::UnboundedSender<Order>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            data_address,
            workers,
            shared,
            open: BTreeMap::new(),
            fresh: Vec::new(),
            published: Published::default(),
            guard: Arc::default(),
            targets,
            replaced: Vec::new(),
            vips: Arc::default(),
            held: BTreeMap::new(),
            drained: false,
            stopped: false,
        }
    }

    pub(super) fn published(&self) -> Published {
        self.published.clone()
    }

    /// Where no connection may go.
    pub(super) fn guard(&self) -> Arc<Guard> {
        self.guard.clone()
    }

    /// The addresses of virtual IPs.
    pub(super) fn vips(&self) -> Arc<BTreeSet<IpAddr>> {
        self.vips.clone()
    }

    /// Has no socket from the next [`Listeners::follow`] on.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether, from the next [`Listeners::follow`] on, only addresses of virtual IPs have sockets. Answers whether that is
    /// new.
    pub(super) fn drain(&mut self, drained: bool) -> bool {
        std::mem::replace(&mut self.drained, drained) != drained
    }

    /// Has listeners of `state` wait that are new and whose pools are `unchecked`, and those no longer whose time is over
    /// or whose pools are not. `before` is the revision that is in force without those that are new.
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
            let hold = Hold { until: now.saturating_add(FIRST_CHECKS_MAX), before };
            self.held.entry(name.clone()).or_insert(hold);
        }
    }

    /// Whether a listener waits that need not wait any longer.
    pub(super) fn is_released(
        &self,
        state: &ClusterState,
        now: Duration,
        mut unchecked: impl FnMut(&PoolName) -> bool,
    ) -> bool {
        let mut waits = |listener: &Arc<model::Listener>| pools(listener).any(&mut unchecked);
        let mut over = |(name, hold): (&ListenerName, &Hold)| {
            hold.until <= now || !state.listeners.get(name).is_some_and(&mut waits)
        };
        self.held.iter().any(&mut over)
    }

    /// When the next listener that waits opens in any case.
    pub(super) fn next_release(&self) -> Option<Duration> {
        self.held.values().map(|hold| hold.until).min()
    }

    /// What is in force of a configuration at `revision`.
    pub(super) fn in_force(&self, revision: Revision) -> Revision {
        self.held.values().map(|hold| hold.before).fold(revision, Revision::min)
    }

    /// Why this address is to have no socket now, if it is not.
    fn closed(&self, address: SocketAddr) -> Option<BindError> {
        match () {
            () if self.stopped => Some(BindError::Stopped(address)),
            // Nobody reaches a virtual IP here while another member has it; once this one does, it must answer.
            () if self.drained && !self.vips.contains(&address.ip()) => Some(BindError::Drained(address)),
            () => None,
        }
    }

    /// Opens and closes sockets so that they are those of `state`, as far as the operating system allows, and
    /// prepares the table entries.
    pub(super) async fn follow(&mut self, state: &ClusterState) {
        self.vips = Arc::new(state.vips.values().map(|vip| vip.spec.address.ip).collect());
        let owners = self.owners(state);
        self.close_except(&owners).await;
        let mut listeners = BTreeMap::new();
        let mut routes = BTreeMap::new();
        for (name, config) in &state.listeners {
            let was = self.published.0.get(name).cloned();
            let binds: Vec<BindStatus> =
                config.spec.binds.iter().flat_map(|b| self.bind(name, *b, &owners)).collect();
            let listener = entry(config, binds, was.as_ref());
            for status in listener.binds.iter().filter(|b| b.error.is_none()) {
                routes.insert(status.effective, listener.clone());
            }
            listeners.insert(name.clone(), listener);
        }
        let (before, _) = &self.published;
        let unchanged = before.len() == listeners.len()
            && before.values().zip(listeners.values()).all(|(a, b)| Arc::ptr_eq(a, b));
        if !unchanged {
            let stays = |was: &Arc<Listener>| {
                listeners.get(&was.config.name).is_some_and(|is: &Arc<Listener>| Arc::ptr_eq(is, was))
            };
            self.replaced.extend(before.values().filter(|was| !stays(was)).map(|was| was.gate.clone()));
            self.published = (Arc::new(listeners), Arc::new(routes));
        }
        // Always anew: interfaces come and go.
        let listeners = self.published.0.values().map(|listener| &**listener);
        self.guard = Arc::new(Guard::new(state, listeners, self.data_address, &self.targets));
    }

    /// The listener that each address belongs to: the first by name, on every member alike.
    fn owners(&self, state: &ClusterState) -> BTreeMap<SocketAddr, ListenerName> {
        let mut owners = BTreeMap::new();
        for (name, listener) in &state.listeners {
            for bind in &listener.spec.binds {
                for address in bind::effective(*bind, self.data_address) {
                    owners.entry(address).or_insert_with(|| name.clone());
                }
            }
        }
        owners
    }

    /// Closes the sockets whose address nobody owns or that is to have none; returns once the workers have accepted what
    /// waited there.
    async fn close_except(&mut self, owners: &BTreeMap<SocketAddr, ListenerName>) {
        let (done, mut all_done) = mpsc::channel(1);
        let mut open = std::mem::take(&mut self.open);
        open.retain(|_, address| {
            let keep = owners.contains_key(address) && self.closed(*address).is_none();
            if !keep {
                self.shared.budget.give(self.workers.len());
                for worker in &self.workers {
                    // Fails only when the worker's thread is gone, and its sockets with it.
                    let _ = worker.send(Order::Close(*address, done.clone()));
                }
            }
            keep
        });
        self.open = open;
        drop(done);
        if timeout(CLOSE_LIMIT, all_done.recv()).await.is_err() {
            tracing::warn!(
                "a worker took longer than {CLOSE_LIMIT:?} to close its listening sockets; going on"
            );
        }
    }

    fn bind(
        &mut self,
        name: &ListenerName,
        configured: model::Bind,
        owners: &BTreeMap<SocketAddr, ListenerName>,
    ) -> Vec<BindStatus> {
        let addresses = bind::effective(configured, self.data_address);
        let status = |effective| {
            let error = match owners.get(&effective) {
                Some(owner) if owner != name => {
                    Some(BindError::Taken { address: effective, listener: owner.clone() })
                }
                _ if self.held.contains_key(name) => Some(BindError::Unchecked(effective)),
                _ => self.open(effective).err(),
            };
            BindStatus { configured, effective, error: error.map(Arc::new) }
        };
        addresses.map(status).collect()
    }

    fn open(&mut self, address: SocketAddr) -> Result<(), BindError> {
        if self.open.contains_key(&key(address)) {
            return Ok(());
        }
        if let Some(why) = self.closed(address) {
            return Err(why);
        }
        // A wildcard beside an address of the same port is meant: the kernel gives connections to the more specific
        // one. The test for strangers would only find our own socket.
        let same_port = (address.port(), IpAddr::from([0; 4]))..=(address.port(), IpAddr::from([0xff; 16]));
        let overlaps = self.open.range(same_port).any(|(_, other)| {
            other.is_ipv4() == address.is_ipv4()
                && (other.ip().is_unspecified() || address.ip().is_unspecified())
        });
        let ahead = self.vips.contains(&address.ip());
        let sockets = bind::open(address, self.workers.len(), !overlaps, ahead)?;
        self.shared.budget.take(sockets.len());
        self.open.insert(key(address), address);
        self.fresh.push((address, sockets));
        Ok(())
    }

    /// Gives new sockets to the workers, and tells connections that wait to come in what has changed; the table must have
    /// the listeners by now.
    pub(super) fn hand_over(&mut self) {
        self.replaced.drain(..).for_each(|gate| gate.replaced());
        for (address, sockets) in self.fresh.drain(..) {
            for (worker, socket) in self.workers.iter().zip(sockets) {
                let _ = worker.send(Order::Listen(address, socket));
            }
        }
    }
}

/// The pools that a listener leads to.
fn pools(listener: &model::Listener) -> impl Iterator<Item = &PoolName> {
    listener.spec.routes.iter().map(|route| &route.pool).chain([&listener.spec.pool])
}

/// Whether an address has no socket because that is wanted.
fn meant(error: &BindError) -> bool {
    matches!(error, BindError::Stopped(_) | BindError::Drained(_) | BindError::Unchecked(_))
}

/// A listener's table entry: the old one where nothing is different.
fn entry(
    config: &Arc<model::Listener>,
    binds: Vec<BindStatus>,
    was: Option<&Arc<Listener>>,
) -> Arc<Listener> {
    let text = |b: &BindStatus| b.error.as_ref().map(|e| e.to_string());
    let known = |b: &BindStatus| was.is_some_and(|w| w.binds.iter().any(|o| text(o) == text(b)));
    for status in binds.iter().filter(|b| !known(b)) {
        if let Some(error) = status.error.as_deref().filter(|e| !meant(e)) {
            tracing::warn!(listener = %config.name, %error, "a listener's address is not bound; tried again on a timer");
        }
    }
    let counters = was.map(|w| w.counters.clone()).unwrap_or_default();
    let gate = was.map(|w| w.gate.clone()).unwrap_or_default();
    match was {
        Some(was)
            if Arc::ptr_eq(&was.config, config) && was.binds.iter().map(text).eq(binds.iter().map(text)) =>
        {
            was.clone()
        }
        _ => Arc::new(Listener { config: config.clone(), binds, counters, gate }),
    }
}
