//! A place at a backend: one of the connections that it may have.

use std::sync::Arc;

use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::stickiness::StickyVisit;

/// A place taken at a backend, counted there for as long as this lives. Then it goes to the next client that waits.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pub(crate) runtime: Arc<BackendRuntime>,
    pub(crate) epoch: u32,
    /// What tells the pool's memory of the end, in a pool that has one; in a box, because most have none.
    pub(crate) visit: Option<Box<StickyVisit>>,
}

impl ConnectionSlot {
    /// Takes a place, unless the backend has all the connections that it may have.
    pub(crate) fn take(backend: &Backend) -> Option<Self> {
        backend.runtime.counters.try_acquire(backend.config.spec.max_connections).then(|| Self {
            runtime: backend.runtime.clone(),
            epoch: backend.epoch,
            visit: None,
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // While the place is still taken, so that who comes next knows of it.
        drop(self.visit.take());
        self.runtime.counters.release();
        self.runtime.queue.slot_freed();
    }
}

/// What a pool has for a connection.
#[derive(Debug)]
pub(crate) enum SlotSelection<'a> {
    /// A place at this backend.
    Taken(ConnectionSlot, &'a Arc<Backend>),
    /// A place later: [`crate::upstream::queue::Queue::wait`] for it.
    Full,
    /// Nothing: no usable backend is left to try.
    Nothing,
}
