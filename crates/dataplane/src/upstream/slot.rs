//! A slot at a backend: one of the connections that it may have.

use std::sync::Arc;

use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::stickiness::StickyVisit;

/// A slot taken at a backend, counted there for as long as this lives. Then the next client that waits gets it.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pub(crate) runtime: Arc<BackendRuntime>,
    pub(crate) epoch: u32,
    /// Tells the pool's stickiness of the end, in a pool that has it; in a box, because most have not.
    pub(crate) visit: Option<Box<StickyVisit>>,
}

impl ConnectionSlot {
    /// Takes a slot, unless the backend has all the connections that it may have.
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
        // While the slot is still taken, so that the client that gets it next sees the end of the visit.
        drop(self.visit.take());
        self.runtime.counters.release();
        self.runtime.queue.slot_freed();
    }
}

/// The result of selecting a backend for a connection.
#[derive(Debug)]
pub(crate) enum SlotSelection<'a> {
    /// A slot at this backend.
    Taken(ConnectionSlot, &'a Arc<Backend>),
    /// A slot comes free later: [`crate::upstream::queue::Queue::wait`] for it.
    Full,
    /// No usable backend is left to try.
    Nothing,
}
