//! Signs of life of this crate's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time between two signs of life of a thread that has nothing to do.
pub(crate) const REST: Duration = Duration::from_secs(1);

/// A thread that has given none for longer hangs: longer than anything that a busy machine does to it.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// The sign of life of a thread, without a lock.
#[derive(Debug, Clone)]
pub(crate) struct Alive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    origin: Instant,
    /// Milliseconds from the origin to the last one.
    last: AtomicU64,
}

impl Alive {
    pub(crate) fn new(name: &'static str) -> Self {
        Self(Arc::new(Inner { name, origin: Instant::now(), last: AtomicU64::new(0) }))
    }

    fn since_origin(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.0.origin).as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives a sign of life.
    pub(crate) fn beat(&self) {
        self.0.last.store(self.since_origin(Instant::now()), Ordering::Relaxed);
    }

    /// The name of the thread, and how long it has given none, if that is too long.
    pub(crate) fn silent(&self, now: Instant) -> Option<(&'static str, Duration)> {
        let last = self.0.last.load(Ordering::Relaxed);
        let silent = Duration::from_millis(self.since_origin(now).saturating_sub(last));
        (silent > SILENT_MAX).then_some((self.0.name, silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_a_sign_of_life_is_named() {
        let alive = Alive::new("vip upkeep");
        let start = Instant::now();
        assert_eq!(alive.silent(start + SILENT_MAX / 2), None);
        let late = alive.silent(start + 2 * SILENT_MAX).unwrap_or_default();
        assert_eq!((late.0, late.1 >= SILENT_MAX), ("vip upkeep", true));
        alive.beat();
        assert_eq!(alive.silent(Instant::now()), None);
    }
}
