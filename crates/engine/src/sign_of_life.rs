//! Signs of life of what there is one of: a thread or task that hangs gives none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest time between two signs of life of something that has nothing to do.
pub const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// What has given none for longer hangs: longer than anything that a busy machine does to it, and well below what a service
/// manager waits for.
pub const SILENT_MAX: Duration = Duration::from_secs(10);

/// The last sign of life, without a lock. Times are of one clock that never goes back, to the millisecond; it begins with one at 0.
#[derive(Debug, Default)]
pub struct SignOfLife(AtomicU64);

impl SignOfLife {
    /// Gives one.
    pub fn give(&self, now: Duration) {
        self.0.store(millis(now), Ordering::Relaxed);
    }

    /// How long there has been none, if that is too long.
    pub fn silent(&self, now: Duration) -> Option<Duration> {
        Some(self.silence(now)).filter(|silence| *silence > SILENT_MAX)
    }

    /// How long there has been none.
    pub fn silence(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_once_it_is_too_long_and_ends_with_a_sign() {
        let sign = SignOfLife::default();
        let late = SILENT_MAX + Duration::from_millis(1);
        assert_eq!([sign.silent(SILENT_MAX), sign.silent(late)], [None, Some(late)]);
        sign.give(late);
        assert_eq!([sign.silent(late + SILENT_MAX), sign.silent(late + late)], [None, Some(late)]);
        // The clock is read by others at the same time.
        assert_eq!(sign.silent(Duration::ZERO), None);
    }
}
