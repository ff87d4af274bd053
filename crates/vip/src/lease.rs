//! Until when virtual IPs may be served.

use std::sync::Arc;
use std::time::Instant;

use crate::atomic_instant::AtomicInstant;

/// A deadline that whoever hears from the quorum moves on and that the lease thread reads: no lock, no waiting, no system
/// call. Clones are the same lease. It starts out over.
///
/// Several virtual IPs may share one lease; those that outlive a lost quorum take another.
#[derive(Debug, Clone, Default)]
pub struct Lease(Arc<AtomicInstant>);

impl Lease {
    /// A lease that is over.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the deadline to `deadline` (monotonic clock); an earlier one than is known changes nothing. The kernel hears of
    /// it at the lease thread's next tick, at most [`TICK`](crate::TICK) later.
    pub fn extend(&self, deadline: Instant) {
        self.0.advance(deadline);
    }

    /// Ends the lease: nothing is renewed any more, until it is extended again. What the kernel was told already stands until
    /// its deadline; only [`LinuxKernel::release`](crate::LinuxKernel::release) silences a virtual IP at once.
    pub fn end(&self) {
        self.0.clear();
    }

    /// The deadline, past or to come; `None` for a lease that was never extended or has been ended.
    pub fn until(&self) -> Option<Instant> {
        self.0.get()
    }

    /// The deadline, if it lies after `now`.
    pub(crate) fn running(&self, now: Instant) -> Option<Instant> {
        self.until().filter(|until| *until > now)
    }
}
