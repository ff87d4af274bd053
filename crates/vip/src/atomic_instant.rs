//! An instant in an atomic word.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What all moments of this process count from.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

fn nanoseconds(instant: Instant) -> u64 {
    // 584 years fit.
    u64::try_from(instant.saturating_duration_since(base()).as_nanos()).unwrap_or(u64::MAX)
}

/// An instant that one thread sets and others read, neither waiting for the other; or none.
#[derive(Debug, Default)]
pub(crate) struct AtomicInstant(AtomicU64);

impl AtomicInstant {
    pub(crate) fn get(&self) -> Option<Instant> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            set => base().checked_add(Duration::from_nanos(set)),
        }
    }

    pub(crate) fn set(&self, instant: Instant) {
        self.0.store(nanoseconds(instant), Ordering::Release);
    }

    /// Moves it to `instant` unless it is later already.
    pub(crate) fn advance(&self, instant: Instant) {
        self.0.fetch_max(nanoseconds(instant), Ordering::AcqRel);
    }

    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }
}
