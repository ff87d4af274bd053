//! Counters: relaxed atomics that outlive every table and go with the resource they belong to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::reason::CloseReason;

/// What was counted for a listener or a backend up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
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
    closes: [u64; CloseReason::ALL.len()],
}

impl Counts {
    /// Connections that ended for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closes.get(reason as usize).copied().unwrap_or(0)
    }
}

/// Counters of one listener or backend. Aligned so that two of them never share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
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
    pub fn read(&self) -> Counts {
        Counts {
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

    /// Connections now, as in [`Counts::active`].
    pub fn active(&self) -> u64 {
        self.active.load(Relaxed)
    }

    pub(crate) fn opened(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// Bytes that came from a client and bytes that went to it.
    pub(crate) fn moved(&self, up: u64, down: u64) {
        if up > 0 {
            self.bytes_in.fetch_add(up, Relaxed);
        }
        if down > 0 {
            self.bytes_out.fetch_add(down, Relaxed);
        }
    }

    pub(crate) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn checked(&self, success: bool) {
        let counter = if success { &self.checks_ok } else { &self.checks_failed };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        if let Some(counter) = self.closes.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }
}
