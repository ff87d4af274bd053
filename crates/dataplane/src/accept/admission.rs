//! Admission to a listener: how many connections it takes and how fast, altogether and from one address. All workers share
//! it, and it outlives the listener's table entries.

mod rate_limiter;
mod source_permits;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, futures::Notified};
use trestle_model::ListenerSpec;

use crate::observe::counters::Counters;
use rate_limiter::RateLimiter;
use source_permits::SourcePermits;
pub(crate) use source_permits::{SourceLimitReached, SourcePermit};

/// The limits of one listener as they stand.
#[derive(Debug, Default)]
pub(crate) struct Admission {
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
    source_permits: OnceLock<Arc<SourcePermits>>,
}

/// An accept loop that waits for a connection to end.
struct WaitingLoop<'a>(&'a Admission);

impl<'a> WaitingLoop<'a> {
    fn begin(admission: &'a Admission) -> Self {
        admission.waiting.fetch_add(1, SeqCst);
        Self(admission)
    }
}

impl Drop for WaitingLoop<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Admission {
    /// The listener was published with other settings, or is gone.
    pub(crate) fn replaced(&self) {
        self.replaced.notify_waiters();
    }

    /// Counts one more connection of the listener, if it may have one now.
    ///
    /// No count is ever provisional: to take one back would have to tell those who wait of room, and so wake whoever does
    /// it, again and again.
    pub(crate) fn try_admit(&self, spec: &ListenerSpec, counters: &Counters) -> bool {
        if spec.accept_rate == 0 {
            return counters.try_acquire(spec.max_connections);
        }
        let Some(token) = self.rate.take(spec.accept_rate) else { return false };
        let admitted = counters.try_acquire(spec.max_connections);
        if admitted {
            // What is not used goes back.
            token.spend();
        }
        admitted
    }

    /// Waits until the listener may have one more connection, and counts it.
    pub(crate) async fn admit(&self, spec: &ListenerSpec, counters: &Counters) {
        let token = match spec.accept_rate {
            0 => None,
            per_second => Some(self.rate.reserve(per_second).await),
        };
        let _waiting = WaitingLoop::begin(self);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if counters.try_acquire(spec.max_connections) {
                break;
            }
            freed.await;
        }
        token.into_iter().for_each(rate_limiter::Token::spend);
    }

    /// A connection that was counted has ended, and is not in the count any more.
    pub(crate) fn release(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Waits until the listener is published with other settings, or is gone.
    pub(crate) fn until_replaced(&self) -> Notified<'_> {
        self.replaced.notified()
    }

    /// Counts a connection from `ip` until what is returned is dropped; `None` where the listener has no limit for an address.
    ///
    /// While the listener has room for `free` connections, with this one, an address has a share of them only.
    ///
    /// # Errors
    /// When the address has as many as it may, or opens them too fast.
    pub(crate) fn admit_source(
        &self,
        ip: IpAddr,
        spec: &ListenerSpec,
        free: usize,
    ) -> Result<Option<SourcePermit>, SourceLimitReached> {
        if spec.max_connections_per_source == 0
            && spec.accept_rate_per_source == 0
            && spec.max_connections == 0
        {
            return Ok(None);
        }
        self.source_permits.get_or_init(Arc::default).admit(ip, spec, free)
    }
}

#[cfg(test)]
mod tests;
