//! Clients that wait for a slot at the backends of one pool, over all workers of this member.
//!
//! The thread that frees a slot, or changes which slots there are, hands them out under the queue's lock, in the order in which
//! clients came. So a waiting client is told once, when it has its slot, and a worker that is slow to take it up keeps no other
//! client from its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;
use tokio::time::timeout;
use trestle_model::PoolSpec;

use crate::observe::close_reason::CloseReason;
use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::{BackendRuntime, SlotFreed};
use crate::upstream::slot::{ConnectionSlot, SlotSelection};

/// What hands out the slots that clients wait for: the pool as it was published last.
pub(crate) trait SlotSource: fmt::Debug + Send + Sync {
    /// A slot for the client whose turn it is: a connection from `client` that has failed at the backends of `tried`.
    fn select_slot(&self, client: SocketAddr, tried: &[Arc<BackendRuntime>]) -> SlotSelection<'_>;
}

/// A slot that was waited for, and its backend; or why there is none.
pub(crate) type QueueAnswer = Result<(ConnectionSlot, Arc<Backend>), CloseReason>;

/// A client that waits.
#[derive(Debug)]
struct Waiter {
    client: SocketAddr,
    /// Where it has failed to connect.
    tried: Vec<Arc<BackendRuntime>>,
    /// Empty once it has been told.
    tell: Option<oneshot::Sender<QueueAnswer>>,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Weak, since the pool holds the queue; `None` before it was published.
    pool: Option<Weak<dyn SlotSource>>,
    /// Set when this member stops: no client waits any more.
    stopped: bool,
    /// Number of the last client; they count up.
    last: u64,
    /// Clients whose connect has failed somewhere. Each can use another set of backends, so each slot is offered to all of
    /// them; they come first, since most came before the others.
    again: BTreeMap<u64, Waiter>,
    /// The other clients. When the first can take no slot, none of them can.
    fresh: BTreeMap<u64, Waiter>,
}

/// The queue of a pool; shared by its backends and table entries, and outliving both.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Clients that wait, so that no thread takes the lock where none do.
    ///
    /// A client counts itself here and then looks for a slot; a thread that frees a slot does so and then looks here. Both
    /// steps of both are sequentially consistent, so at least one of them sees the other, and no slot stays unused.
    waiting: AtomicUsize,
    inner: Mutex<QueueState>,
}

/// A client's position in the queue, which ends when this is dropped.
struct QueueTicket<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        // No longer there when it has been told. If it gave up at that very moment, its slot went with the channel, or came
        // back from it, and so on to the next client.
        let mut inner = self.queue.lock();
        let stayed = inner.fresh.remove(&self.number).or_else(|| inner.again.remove(&self.number));
        self.queue.count(&inner);
        drop(inner);
        drop(stayed);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    fn count(&self, inner: &QueueState) {
        self.waiting.store(inner.again.len() + inner.fresh.len(), SeqCst);
    }

    /// Waits for a slot for a connection from `client` that has failed at the backends of `tried`, as long as the
    /// pool's settings allow. A client that stops waiting loses its position, and nothing else.
    ///
    /// # Errors
    /// `QueueFull` at once when as many wait as may; `QueueTimeout`; `NoBackend`, or `ConnectFailed` after a failure,
    /// when the pool has nothing usable any more; `MemberShutdown`.
    pub(crate) async fn wait(
        &self,
        client: SocketAddr,
        tried: Vec<Arc<BackendRuntime>>,
        spec: &PoolSpec,
    ) -> QueueAnswer {
        let (tell, answer) = oneshot::channel();
        let _ticket = self.join(Waiter { client, tried, tell: Some(tell) }, spec.queue_length as usize)?;
        match timeout(spec.queue_timeout, answer).await {
            Ok(answer) => answer.unwrap_or(Err(CloseReason::NoBackend)),
            Err(_) => Err(CloseReason::QueueTimeout),
        }
    }

    /// Puts a client at the end of the queue, unless `length` clients wait already.
    fn join(&self, waiter: Waiter, length: usize) -> Result<QueueTicket<'_>, CloseReason> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(CloseReason::MemberShutdown);
        }
        if !inner.fresh.is_empty() && inner.again.len() + inner.fresh.len() >= length {
            return Err(CloseReason::QueueFull);
        }
        inner.last += 1;
        let number = inner.last;
        let queue = if waiter.tried.is_empty() { &mut inner.fresh } else { &mut inner.again };
        queue.insert(number, waiter);
        self.count(&inner);
        // A slot may have come free since the selection found none.
        let refused = inner.hand_out();
        let here = inner.fresh.contains_key(&number) || inner.again.contains_key(&number);
        let too_many = here && inner.again.len() + inner.fresh.len() > length;
        self.count(&inner);
        drop(inner);
        drop(refused);
        // Leaves again when there are too many.
        let ticket = QueueTicket { queue: self, number };
        if too_many { Err(CloseReason::QueueFull) } else { Ok(ticket) }
    }

    /// The pool was published, perhaps with slots for clients that wait; or it is gone, and `pool` is `None`.
    pub(crate) fn set_source(&self, pool: Option<Weak<dyn SlotSource>>) {
        self.hand_out_after(|inner| inner.pool = pool);
    }

    /// This member stops: clients that wait are told, and no client waits from now on.
    pub(crate) fn stop(&self) {
        self.hand_out_after(|inner| inner.stopped = true);
    }

    fn hand_out_after(&self, change: impl FnOnce(&mut QueueState)) {
        let mut inner = self.lock();
        change(&mut inner);
        let refused = inner.hand_out();
        self.count(&inner);
        drop(inner);
        // Dropping a slot takes the lock.
        drop(refused);
    }
}

impl SlotFreed for Queue {
    fn slot_freed(&self) {
        if self.waiting() > 0 {
            self.hand_out_after(|_| {});
        }
    }
}

impl QueueState {
    /// Gives slots to clients that wait, as far as there are any. Returns those that were meant for clients that had just
    /// gone, to be dropped without the lock.
    fn hand_out(&mut self) -> Vec<QueueAnswer> {
        let mut refused = Vec::new();
        if self.again.is_empty() && self.fresh.is_empty() {
            return refused;
        }
        let (pool, stopped) = (self.pool.as_ref().and_then(Weak::upgrade), self.stopped);
        let mut stays = |waiter: &mut Waiter| waiter.stays(pool.as_deref(), stopped, &mut refused);
        self.again.retain(|_, waiter| stays(waiter));
        while let Some(mut first) = self.fresh.first_entry() {
            if stays(first.get_mut()) {
                break;
            }
            first.remove();
        }
        refused
    }
}

impl Waiter {
    /// Tells the client of its slot, or why it gets none. False when it has been told.
    fn stays(
        &mut self,
        pool: Option<&dyn SlotSource>,
        stopped: bool,
        refused: &mut Vec<QueueAnswer>,
    ) -> bool {
        let pool = pool.filter(|_| !stopped);
        let answer =
            match pool.map_or(SlotSelection::Nothing, |pool| pool.select_slot(self.client, &self.tried)) {
                SlotSelection::Taken(slot, backend) => Ok((slot, backend.clone())),
                SlotSelection::Full => return true,
                SlotSelection::Nothing if stopped => Err(CloseReason::MemberShutdown),
                SlotSelection::Nothing if self.tried.is_empty() => Err(CloseReason::NoBackend),
                SlotSelection::Nothing => Err(CloseReason::ConnectFailed),
            };
        if let Some(tell) = self.tell.take() {
            refused.extend(tell.send(answer).err());
        }
        false
    }
}
