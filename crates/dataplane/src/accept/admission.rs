//! What a listener lets in: how many connections, and how fast, altogether and from one address. Shared by all workers;
//! outlives the listener's table entries.

mod clients;
mod rate_limiter;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use trestle_model::ListenerSpec;

use crate::plane::Shared;
use crate::table::Listener;
use clients::Clients;
pub(crate) use clients::Stay;
use rate_limiter::RateLimiter;

/// What the limits of one listener go by.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    rate: RateLimiter,
    /// Accept loops that wait for a connection to end, so that none that ends tells nobody.
    ///
    /// A loop counts itself here and then looks for room; a connection that ends makes room and then looks here. Both
    /// steps of both are sequentially consistent, so at least one of them sees the other.
    waiting: AtomicUsize,
    /// A connection has ended.
    freed: Notify,
    /// The listener was published with other settings, or is gone.
    replaced: Notify,
    /// Made when an address is bounded for the first time.
    clients: OnceLock<Arc<Clients>>,
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
    /// The listener was published with other settings, or is gone.
    pub(crate) fn replaced(&self) {
        self.replaced.notify_waiters();
    }

    /// Lets in a connection from `ip`, which stays until what is returned is dropped; `None` where nobody needs to know.
    ///
    /// While the listener has room for `free` connections, with this one, an address has a share of them only.
    ///
    /// # Errors
    /// When the address has as many as it may, or opens them too fast.
    pub(crate) fn let_in(
        &self,
        ip: IpAddr,
        spec: &ListenerSpec,
        free: usize,
    ) -> Result<Option<Stay>, TooMany> {
        if spec.max_connections_per_source == 0
            && spec.accept_rate_per_source == 0
            && spec.max_connections == 0
        {
            return Ok(None);
        }
        self.clients.get_or_init(Arc::default).enter(ip, spec, free)
    }
}

/// An address has all the connections that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Listener {
    /// Counts one more connection, if the listener may have one now.
    ///
    /// No count is ever provisional: to take one back would have to tell those who wait of room, and so wake whoever does
    /// it, again and again.
    pub(crate) fn enter(&self) -> bool {
        let spec = &self.config.spec;
        if spec.accept_rate == 0 {
            return self.counters.try_open(spec.max_connections);
        }
        self.gate.rate.take(spec.accept_rate).is_some_and(|token| self.enter_with(token))
    }

    /// As [`Listener::enter`], with leave of the rate; what is not used goes back.
    fn enter_with(&self, token: rate_limiter::Token<'_>) -> bool {
        let entered = self.counters.try_open(self.config.spec.max_connections);
        if entered {
            token.spend();
        }
        entered
    }

    /// Waits until the listener may have one more connection, and counts it.
    async fn enter_in_turn(&self) {
        let spec = &self.config.spec;
        let token = match spec.accept_rate {
            0 => None,
            per_second => Some(self.gate.rate.reserve(per_second).await),
        };
        let _waiting = Waiting::begin(&self.gate);
        loop {
            let freed = self.gate.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.counters.try_open(spec.max_connections) {
                break;
            }
            freed.await;
        }
        token.into_iter().for_each(rate_limiter::Token::spend);
    }

    /// A connection that was counted has ended.
    pub(crate) fn leave(&self) {
        self.counters.ended();
        if self.gate.waiting.load(SeqCst) > 0 {
            self.gate.freed.notify_one();
        }
    }
}

/// Waits until the listener at `address` may have one more connection, and counts that; `None` when it is gone.
pub(crate) async fn entered(shared: &Shared, address: SocketAddr) -> Option<Arc<Listener>> {
    let current = || shared.table.load().routes.get(&address).cloned();
    loop {
        let gate = current()?.gate.clone();
        let replaced = gate.replaced.notified();
        tokio::pin!(replaced);
        replaced.as_mut().enable();
        // Looked up again: of what is published from here on the gate tells.
        let listener = current()?;
        if !Arc::ptr_eq(&gate, &listener.gate) {
            continue;
        }
        tokio::select! {
            biased;
            () = listener.enter_in_turn() => {}
            () = replaced => continue,
        }
        return Some(listener);
    }
}

#[cfg(test)]
mod tests;
