//! What a listener lets in: how many connections, and how fast, altogether and from one address. Shared by all workers;
//! outlives the listener's table entries.

mod clients;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;
use trestle_engine::rate::{Bucket, Rate};
use trestle_model::ListenerSpec;

use crate::plane::Shared;
use crate::table::Listener;
use clients::Clients;
pub(crate) use clients::Stay;

/// Parts of a second whose connections a listener takes at once after a pause. Who comes too fast only waits, so few will
/// do; with a whole second's, the first second would take twice the rate.
const BURST: u32 = 10;

/// Why a connection has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Until another one ends.
    Full,
    /// For this time.
    TooFast(Duration),
}

/// What the limits of one listener go by.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The origin of the clock that the engine sees.
    origin: Instant,
    /// `None` until there is a rate.
    bucket: Mutex<Option<Bucket>>,
    /// Accept loops that wait, so that no connection that ends tells nobody.
    ///
    /// A loop counts itself here and then looks for room; a connection that ends makes room and then looks here. Both
    /// steps of both are sequentially consistent, so at least one of them sees the other.
    waiting: AtomicUsize,
    changed: Notify,
    /// Made when an address is bounded for the first time.
    clients: OnceLock<Arc<Clients>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            bucket: Mutex::default(),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            clients: OnceLock::new(),
        }
    }
}

/// An accept loop's stay in front of a gate.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn begin(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, SeqCst);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Gate {
    /// A connection has ended.
    pub(crate) fn freed(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.changed.notify_one();
        }
    }

    /// The listener was published with other settings, or is gone.
    pub(crate) fn replaced(&self) {
        self.changed.notify_waiters();
    }

    fn take_token(&self, per_second: u32) -> Result<(), Held> {
        let rate = Rate { per_second, burst: (per_second / BURST).max(1) };
        let now = self.origin.elapsed();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.get_or_insert_with(|| Bucket::new(rate, now));
        // A rate of 0 is none and does not come here, so there is always an end to the wait.
        if bucket.take(rate, now) {
            Ok(())
        } else {
            Err(Held::TooFast(bucket.wait(rate, now).unwrap_or_default()))
        }
    }

    /// Lets in a connection from `ip`, which stays until what is returned is dropped; `None` where nobody needs to know.
    ///
    /// # Errors
    /// When the address has as many as it may, or opens them too fast.
    pub(crate) fn let_in(&self, ip: IpAddr, spec: &ListenerSpec) -> Result<Option<Stay>, TooMany> {
        if spec.max_connections_per_source == 0 && spec.accept_rate_per_source == 0 {
            return Ok(None);
        }
        self.clients.get_or_init(Arc::default).enter(ip, spec)
    }
}

/// An address has all the connections that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Listener {
    /// Counts one more connection, if the listener may have one now.
    ///
    /// # Errors
    /// Why it has to wait.
    pub(crate) fn enter(&self) -> Result<(), Held> {
        let spec = &self.config.spec;
        if !self.counters.try_open(spec.max_connections) {
            return Err(Held::Full);
        }
        if spec.accept_rate == 0 {
            return Ok(());
        }
        self.gate.take_token(spec.accept_rate).inspect_err(|_| self.leave())
    }

    /// Counts one more connection and answers true, or else waits until there may be room for one.
    async fn enter_or_wait(&self) -> bool {
        let _waiting = Waiting::begin(&self.gate);
        let changed = self.gate.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        match self.enter() {
            Ok(()) => return true,
            Err(Held::Full) => changed.await,
            // Ends at the latest then; another configuration ends it earlier.
            Err(Held::TooFast(time)) => timeout(time, changed).await.unwrap_or_default(),
        }
        false
    }

    /// A connection that was counted has ended.
    pub(crate) fn leave(&self) {
        self.counters.ended();
        self.gate.freed();
    }
}

/// Waits until the listener at `address` may have one more connection, and counts that; `None` when it is gone.
pub(crate) async fn entered(shared: &Shared, address: SocketAddr) -> Option<Arc<Listener>> {
    loop {
        let listener = shared.table.load().routes.get(&address).cloned()?;
        if listener.enter_or_wait().await {
            return Some(listener);
        }
    }
}

#[cfg(test)]
mod tests;
