//! Counters: relaxed atomics that outlive every table and go with the resource they belong to.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use crate::observe::close_reason::CloseReason;

/// What was counted for a listener or a backend up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCounts {
    /// Connections so far: accepted by the listener; established to the backend.
    pub connections: u64,
    /// Connections now; for a backend also those that are being established.
    pub active: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connects that failed or timed out.
    pub connect_failures: u64,
    /// Connects that were tried again elsewhere, counted where the first one failed.
    pub retries: u64,
    /// Checks that succeeded; 0 for a listener.
    pub checks_ok: u64,
    /// Checks that failed; 0 for a listener.
    pub checks_failed: u64,
    pub(crate) closes: [u64; CloseReason::ALL.len()],
}

impl TrafficCounts {
    /// Connections that ended for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closes.get(reason as usize).copied().unwrap_or(0)
    }
}

/// Counters of one listener or backend. Aligned so that two of them never share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    connections: AtomicU64,
    active: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connect_failures: AtomicU64,
    retries: AtomicU64,
    checks_ok: AtomicU64,
    checks_failed: AtomicU64,
    closes: [AtomicU64; CloseReason::ALL.len()],
}

impl Counters {
    /// What was counted up to now. The values are read one after another, not at one instant.
    pub(crate) fn read(&self) -> TrafficCounts {
        TrafficCounts {
            connections: self.connections.load(Relaxed),
            active: self.active(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            connect_failures: self.connect_failures.load(Relaxed),
            retries: self.retries.load(Relaxed),
            checks_ok: self.checks_ok.load(Relaxed),
            checks_failed: self.checks_failed.load(Relaxed),
            closes: std::array::from_fn(|i| self.closes.get(i).map_or(0, |c| c.load(Relaxed))),
        }
    }

    /// Connections now, as in [`TrafficCounts::active`].
    pub(crate) fn active(&self) -> u64 {
        self.active.load(Relaxed)
    }

    pub(crate) fn acquire(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    /// Whether there are as many connections as `max`; never with 0, which is no bound.
    pub(crate) fn is_full(&self, max: u32) -> bool {
        // Sequentially consistent for the sake of those who wait, see `Queue::waiting`.
        max != 0 && self.active.load(SeqCst) >= max.into()
    }

    /// Counts one more connection, unless there are as many as `max`; 0 is no bound.
    pub(crate) fn try_acquire(&self, max: u32) -> bool {
        if max == 0 {
            self.acquire();
            return true;
        }
        let more = |active| (active < u64::from(max)).then_some(active + 1);
        self.active.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// How many more there may be than now, up to `max`; 0 is no bound.
    pub(crate) fn free(&self, max: u32) -> u64 {
        if max == 0 { u64::MAX } else { u64::from(max).saturating_sub(self.active()) }
    }

    pub(crate) fn release(&self) {
        self.active.fetch_sub(1, SeqCst);
    }

    pub(crate) fn record_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Bytes that came from a client and bytes that went to it.
    pub(crate) fn record_bytes(&self, up: u64, down: u64) {
        if up > 0 {
            self.bytes_in.fetch_add(up, Relaxed);
        }
        if down > 0 {
            self.bytes_out.fetch_add(down, Relaxed);
        }
    }

    pub(crate) fn record_connect_failure(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn record_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn record_check(&self, success: bool) {
        let counter = if success { &self.checks_ok } else { &self.checks_failed };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn record_close(&self, reason: CloseReason) {
        if let Some(counter) = self.closes.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn no_two_threads_take_the_last_place() {
        const MAX: u32 = 3;
        let (counters, inside, most) = (Counters::default(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let thread = || {
                let mut taken = 0;
                while taken < 20_000 {
                    if counters.try_acquire(MAX) {
                        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                        inside.fetch_sub(1, SeqCst);
                        counters.release();
                        taken += 1;
                    }
                }
            };
            (0..6).for_each(|_| drop(scope.spawn(thread)));
        });
        assert!(most.into_inner() <= MAX.into());
        assert_eq!(counters.active(), 0);
    }

    #[test]
    fn nothing_bounds_what_has_no_bound() {
        let counters = Counters::default();
        assert!((0..1000).all(|_| counters.try_acquire(0)) && !counters.is_full(0) && counters.is_full(1000));
        assert!(!counters.try_acquire(1000));
    }
}
