//! A pool as the table has it: picking a backend, and taking a place there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use trestle_engine::{Picked, Schedule, Standing};
use trestle_model::{self as model, BackendName};

use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::Live;
use crate::upstream::queue::{Places, Queue};
use crate::upstream::random::random;
use crate::upstream::slot::{Place, Taken};
use crate::upstream::stickiness::Sticky;

/// A pool with its backends, prepared for picking.
#[derive(Debug)]
pub struct Pool {
    /// Its configuration.
    pub config: Arc<model::Pool>,
    /// Its backends in the order of their names.
    pub backends: Vec<Arc<Backend>>,
    pub(crate) schedule: Schedule,
    pub(crate) turns: Arc<Turns>,
    pub(crate) queue: Arc<Queue>,
    /// Who had which backend, if the pool remembers.
    pub(crate) sticky: Option<Sticky>,
}

/// The next turns of a pool; shared by all workers and outliving tables, so that turns go on across changes.
#[derive(Debug)]
pub(crate) struct Turns {
    /// For the first backend of a connection.
    first: AtomicU64,
    /// For those after a failed connect. Were they taken from the others, then each would bring the backend that does
    /// not answer round sooner; of two backends it would come first for every connection.
    again: AtomicU64,
}

impl Turns {
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

    /// Clients that wait for a place at its backends now.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Takes a place for a connection from `client` that has failed at the backends of `tried`. While others wait, there
    /// is none: who comes now waits behind them.
    pub(crate) fn take(&self, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        if self.queue.waiting() > 0 { Taken::Full } else { self.place(client, tried) }
    }

    /// A place at the backend that the client had last, or else another. It keeps its own while that is only full, and
    /// gets the new one for its own when the former is gone, down, or has just failed it.
    fn place_sticky(&self, sticky: &Sticky, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        let known = sticky.find(client).filter(|position| self.schedule.admits(*position));
        let known = known.and_then(|position| self.backends.get(position));
        let own = known.filter(|backend| !tried.iter().any(|t| Arc::ptr_eq(t, &backend.live)));
        let mut taken = match own.and_then(|backend| Some((Place::take(backend)?, backend))) {
            Some((place, backend)) => Taken::Place(place, backend),
            None => self.pick(client, tried),
        };
        if let Taken::Place(place, backend) = &mut taken {
            let passing = own.is_some_and(|own| !Arc::ptr_eq(own, backend));
            place.visit = Some(Box::new(sticky.begin(client, backend.live.tenure(), passing)));
        }
        taken
    }

    fn pick(&self, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        let turn = if tried.is_empty() { &self.turns.first } else { &self.turns.again };
        let standing = |position: usize| match self.backends.get(position) {
            Some(b) if tried.iter().any(|t| Arc::ptr_eq(t, &b.live)) => Standing::Tried,
            Some(b) if b.live.counters.is_full(b.config.spec.max_connections) => Standing::Full,
            Some(_) => Standing::Open,
            None => Standing::Tried,
        };
        loop {
            let picked = self.schedule.pick(
                client,
                || turn.fetch_add(1, Relaxed),
                random,
                |position| self.backends.get(position).map_or(0, |b| b.live.counters.active()),
                standing,
            );
            let backend = match picked {
                Picked::At(position) => self.backends.get(position),
                Picked::Full => return Taken::Full,
                Picked::Nothing => None,
            };
            let Some(backend) = backend else { return Taken::Nothing };
            // Another worker may have taken the last place in the meantime; then there is one less to look at.
            if let Some(place) = Place::take(backend) {
                return Taken::Place(place, backend);
            }
        }
    }
}

impl Places for Pool {
    fn place(&self, client: SocketAddr, tried: &[Arc<Live>]) -> Taken<'_> {
        match &self.sticky {
            None => self.pick(client, tried),
            Some(sticky) => self.place_sticky(sticky, client, tried),
        }
    }
}
