//! A pool as the table has it: selecting a backend, and taking a slot there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use trestle_engine::{Availability, Schedule, Selection};
use trestle_model::{self as model, BackendName};

use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::queue::{Queue, SlotSource};
use crate::upstream::slot::{ConnectionSlot, SlotSelection};
use crate::upstream::stickiness::PoolStickiness;

/// A pool with its backends, prepared for selection.
#[derive(Debug)]
pub struct Pool {
    /// Its configuration.
    pub config: Arc<model::Pool>,
    /// Its backends in the order of their names.
    pub backends: Vec<Arc<Backend>>,
    pub(crate) schedule: Schedule,
    pub(crate) cursor: Arc<RoundRobinCursor>,
    pub(crate) queue: Arc<Queue>,
    /// Which client had which backend, in a pool with stickiness.
    pub(crate) sticky: Option<PoolStickiness>,
}

/// The next turns of a pool. All workers share it, and it outlives tables, so that turns go on across changes.
#[derive(Debug)]
pub(crate) struct RoundRobinCursor {
    /// For the first backend of a connection.
    first: AtomicU64,
    /// For selections after a failed connect. If both used one counter, each failure would bring the backend that does not
    /// answer up sooner; of two backends it would come first for every connection.
    again: AtomicU64,
}

impl RoundRobinCursor {
    /// Both begin at `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first: AtomicU64::new(first), again: AtomicU64::new(first) }
    }
}

impl Pool {
    /// A backend by name.
    pub fn backend(&self, name: &BackendName) -> Option<&Arc<Backend>> {
        let found = self.backends.binary_search_by(|b| b.config.name.cmp(name)).ok()?;
        self.backends.get(found)
    }

    /// Whether any backend can take a connection.
    pub fn is_usable(&self) -> bool {
        self.schedule.is_usable()
    }

    /// Clients that wait for a slot at the pool's backends now.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Takes a slot for a connection from `client` that has failed at the backends of `tried`. While others wait, there is
    /// none: a client that comes now waits behind them.
    pub(crate) fn select(&self, client: SocketAddr, tried: &[Arc<BackendRuntime>]) -> SlotSelection<'_> {
        if self.queue.waiting() > 0 { SlotSelection::Full } else { self.select_slot(client, tried) }
    }

    /// A slot at the backend that the client had last, or else at another. The client keeps its backend while that is only
    /// full; when that is gone, down, or has just failed it, the other one is its backend from now on.
    fn select_sticky(
        &self,
        sticky: &PoolStickiness,
        client: SocketAddr,
        tried: &[Arc<BackendRuntime>],
    ) -> SlotSelection<'_> {
        let known = sticky.find(client).filter(|position| self.schedule.admits(*position));
        let known = known.and_then(|position| self.backends.get(position));
        let own = known.filter(|backend| !tried.iter().any(|t| Arc::ptr_eq(t, &backend.runtime)));
        let mut taken = match own.and_then(|backend| Some((ConnectionSlot::take(backend)?, backend))) {
            Some((slot, backend)) => SlotSelection::Taken(slot, backend),
            None => self.select_scheduled(client, tried),
        };
        if let SlotSelection::Taken(slot, backend) = &mut taken {
            let passing = own.is_some_and(|own| !Arc::ptr_eq(own, backend));
            slot.visit = Some(Box::new(sticky.begin(client, backend.runtime.generation(), passing)));
        }
        taken
    }

    fn select_scheduled(&self, client: SocketAddr, tried: &[Arc<BackendRuntime>]) -> SlotSelection<'_> {
        let turn = if tried.is_empty() { &self.cursor.first } else { &self.cursor.again };
        let availability = |position: usize| match self.backends.get(position) {
            Some(b) if tried.iter().any(|t| Arc::ptr_eq(t, &b.runtime)) => Availability::Tried,
            Some(b) if b.runtime.counters.is_full(b.config.spec.max_connections) => Availability::Full,
            Some(_) => Availability::Open,
            None => Availability::Tried,
        };
        loop {
            let picked = self.schedule.pick(
                client,
                || turn.fetch_add(1, Relaxed),
                || fastrand::u64(..),
                |position| self.backends.get(position).map_or(0, |b| b.runtime.counters.active()),
                availability,
            );
            let backend = match picked {
                Selection::At(position) => self.backends.get(position),
                Selection::Full => return SlotSelection::Full,
                Selection::Nothing => None,
            };
            let Some(backend) = backend else { return SlotSelection::Nothing };
            // Another worker may have taken the last slot in the meantime; then there is one backend less to look at.
            if let Some(slot) = ConnectionSlot::take(backend) {
                return SlotSelection::Taken(slot, backend);
            }
        }
    }
}

impl SlotSource for Pool {
    fn select_slot(&self, client: SocketAddr, tried: &[Arc<BackendRuntime>]) -> SlotSelection<'_> {
        match &self.sticky {
            None => self.select_scheduled(client, tried),
            Some(sticky) => self.select_sticky(sticky, client, tried),
        }
    }
}
