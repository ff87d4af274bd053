//! A place at a backend: one of the connections that it may have.

use std::sync::Arc;

use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::Live;
use crate::upstream::stickiness::Visit;

/// A place taken at a backend, counted there for as long as this lives. Then it goes to the next client that waits.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) live: Arc<Live>,
    pub(crate) epoch: u32,
    /// What tells the pool's memory of the end, in a pool that has one; in a box, because most have none.
    pub(crate) visit: Option<Box<Visit>>,
}

impl Place {
    /// Takes a place, unless the backend has all the connections that it may have.
    pub(crate) fn take(backend: &Backend) -> Option<Self> {
        backend.live.counters.try_open(backend.config.spec.max_connections).then(|| Self {
            live: backend.live.clone(),
            epoch: backend.epoch,
            visit: None,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // While the place is still taken, so that who comes next knows of it.
        drop(self.visit.take());
        self.live.counters.ended();
        self.live.queue.freed();
    }
}

/// What a pool has for a connection.
#[derive(Debug)]
pub(crate) enum Taken<'a> {
    /// A place at this backend.
    Place(Place, &'a Arc<Backend>),
    /// A place later: [`crate::upstream::queue::Queue::wait`] for it.
    Full,
    /// Nothing: no usable backend is left to try.
    Nothing,
}
