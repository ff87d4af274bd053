//! The connections of this member: what each of them is doing, and closing single ones.
//!
//! Each connection has one [`ConnectionEntry`], which its own task writes and others read. Entries are found through the slab of
//! the worker that accepted them; its lock is taken when a connection begins or ends and when somebody lists them, never
//! for bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use slab::Slab;
use tokio::time::sleep_until;

use super::entry::{ConnectionEntry, Stage};
use super::relay_state::RelayState;
use super::timeouts::TimeoutQueue;
use crate::forwarder::{Connections, OpenConnection};
use crate::observe::access_log::AccessRecord;
use crate::observe::close_reason::CloseReason;
use crate::observe::snapshot::ConnectionSnapshot;
use crate::upstream::backend_runtime::BackendRuntime;

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    pub(crate) shared: Arc<RelayState>,
    entries: Mutex<Slab<Arc<ConnectionEntry>>>,
    timeouts: Mutex<TimeoutQueue>,
}

impl ConnectionTable {
    pub(crate) fn new(shared: Arc<RelayState>) -> Self {
        let timeouts = Mutex::new(TimeoutQueue::new(Instant::now()));
        Self { shared, entries: Mutex::default(), timeouts }
    }

    fn entries(&self) -> MutexGuard<'_, Slab<Arc<ConnectionEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the entry that `make` makes for its place here.
    pub(super) fn add(&self, make: impl FnOnce(u32) -> ConnectionEntry) -> Arc<ConnectionEntry> {
        let mut entries = self.entries();
        let vacant = entries.vacant_entry();
        // Each connection takes two descriptors, so there are never more than fit.
        let entry = Arc::new(make(u32::try_from(vacant.key()).unwrap_or(u32::MAX)));
        vacant.insert(entry.clone());
        entry
    }

    pub(super) fn remove(&self, place: u32) {
        let removed = self.entries().try_remove(place as usize);
        drop(removed);
    }

    pub(super) fn timeouts(&self) -> MutexGuard<'_, TimeoutQueue> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes bounded connections whose time is over; `None` when there are none left to look at, or when to look next.
    pub(crate) fn close_due(&self, now: Instant) -> Option<Instant> {
        let mut over = Vec::new();
        let mut timeouts = self.timeouts();
        let entries = self.entries();
        while let Some((id, mut timed)) = timeouts.due(now) {
            let entry = entries.get(timed.slot() as usize);
            let Some(entry) = entry.filter(|entry| entry.id == id) else { continue };
            let moved = entry.bytes_in.load(Relaxed) + entry.bytes_out.load(Relaxed);
            match timed.look(moved, now) {
                Some(reason) => over.push((entry.clone(), reason)),
                None => timeouts.look_again(id, timed, now),
            }
        }
        drop(entries);
        let next = timeouts.next_look(now);
        drop(timeouts);
        for (entry, reason) in over {
            entry.end(reason);
        }
        next
    }

    /// Looks at each connection of this worker that has not ended. Those that begin or end meanwhile may be left out.
    fn each(&self, mut look: impl FnMut(&Arc<ConnectionEntry>)) {
        let mut found = Vec::with_capacity(AT_ONCE);
        let mut start = 0;
        loop {
            let entries = self.entries();
            if start >= entries.capacity() {
                return;
            }
            found.extend((start..start + AT_ONCE).filter_map(|place| entries.get(place).cloned()));
            drop(entries);
            found.drain(..).for_each(|entry| look(&entry));
            start += AT_ONCE;
        }
    }
}

/// Looks at a worker's bounded connections as long as there are any.
pub(super) async fn close_overdue(connections: Arc<ConnectionTable>) {
    while let Some(next) = connections.close_due(Instant::now()) {
        sleep_until(next.into()).await;
    }
}

/// Places of a slab that are looked at under one lock, so that the worker waits for some 10 µs at most.
const AT_ONCE: usize = 256;

/// The connections of all workers, in the order of their numbers.
pub(crate) fn list(connection_tables: &[Arc<ConnectionTable>]) -> Vec<ConnectionSnapshot> {
    let mut all = Vec::new();
    connection_tables.iter().for_each(|connections| connections.each(|entry| all.push(entry.read())));
    all.sort_unstable_by_key(|connection| connection.id);
    all
}

/// Closes connections by number for `reason`, and says how many of them were there and not about to be closed already.
pub(crate) fn close(connection_tables: &[Arc<ConnectionTable>], ids: &[u64], reason: CloseReason) -> usize {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut closed = 0;
    for connections in connection_tables {
        connections.each(|entry| {
            if ids.binary_search(&entry.id).is_ok() && entry.end(reason) {
                closed += 1;
            }
        });
    }
    closed
}

/// Closes connections to these addresses of these backends.
pub(crate) fn close_at(
    connection_tables: &[Arc<ConnectionTable>],
    addresses: &[(Arc<BackendRuntime>, IpAddr)],
    reason: CloseReason,
) {
    if addresses.is_empty() {
        return;
    }
    let is_there = |entry: &ConnectionEntry| match &entry.progress().stage {
        Stage::Relaying { runtime, backend, .. } => {
            let ip = SocketAddr::from(*backend).ip();
            addresses.iter().any(|(of, at)| *at == ip && Arc::ptr_eq(of, runtime))
        }
        Stage::Accepted | Stage::Opening(_) | Stage::Waiting(_) => false,
    };
    for connections in connection_tables {
        connections.each(|entry| {
            if is_there(entry) {
                entry.end(reason);
            }
        });
    }
}

/// The connections that relay to these backends, by the place of the backend in memory, with their numbers. All connections are
/// looked at once, however many backends there are.
pub(crate) fn of(
    connection_tables: &[Arc<ConnectionTable>],
    backends: &[Arc<BackendRuntime>],
) -> BTreeMap<*const BackendRuntime, Connections> {
    let mut found: BTreeMap<_, Connections> =
        backends.iter().map(|backend| (Arc::as_ptr(backend), Vec::new())).collect();
    if found.is_empty() {
        return found;
    }
    for connections in connection_tables {
        connections.each(|entry| {
            if let Stage::Relaying { runtime, .. } = &entry.progress().stage
                && let Some(connections) = found.get_mut(&Arc::as_ptr(runtime))
            {
                let open: Weak<dyn OpenConnection> = Arc::<ConnectionEntry>::downgrade(entry);
                connections.push((entry.id, open));
            }
        });
    }
    found
}

/// Wakes the connections of these backends, so that they see that an epoch has begun. All connections are looked at,
/// 0.1 µs each, because a signal that they listened to would take each of them as much memory as an entry does.
pub(crate) fn wake(connection_tables: &[Arc<ConnectionTable>], backends: &[Arc<BackendRuntime>]) {
    let backends: BTreeSet<_> = backends.iter().map(Arc::as_ptr).collect();
    if backends.is_empty() {
        return;
    }
    for connections in connection_tables {
        connections.each(|entry| {
            let progress = entry.progress();
            if matches!(&progress.stage, Stage::Relaying { runtime, .. } if backends.contains(&Arc::as_ptr(runtime))) {
                progress.wake();
            }
        });
    }
}
