//! How long the owner has given no sign of life.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use trestle_engine::SignOfLife;

/// How many looks in a row must find the owner silent.
const LOOKS: u32 = 3;

/// The words for a silence that is a fault.
pub(super) fn words(silence: Duration) -> String {
    format!("the thread that holds them has given no sign of life for {} s", silence.as_secs())
}

/// What is seen of the owner from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The last sign of life, on the machine's clock.
    sign: SignOfLife,
    /// Looks in a row that found no sign of life.
    looks: AtomicU32,
    /// The owner has ended because it was told to.
    ended: AtomicBool,
}

impl Silence {
    /// Notes a sign of life.
    pub(super) fn end(&self, now: Duration) {
        self.sign.give(now);
    }

    /// Notes that the owner has ended in order, and gives no more signs.
    pub(super) fn is_no_fault(&self) {
        self.ended.store(true, Relaxed);
    }

    /// How long there has been no sign, if that is more than `patience`.
    fn over(&self, patience: Duration, now: Duration) -> Option<Duration> {
        let silence = self.sign.silence(now);
        (silence > patience && !self.ended.load(Relaxed)).then_some(silence)
    }

    /// Looks once.
    pub(super) fn look(&self, patience: Duration, now: Duration) {
        let looks = if self.over(patience, now).is_some() { self.looks.load(Relaxed) + 1 } else { 0 };
        self.looks.store(looks, Relaxed);
    }

    /// The silence of an owner that hangs. An owner that was stopped together with the whole process does not count: it goes on when
    /// the looks do.
    pub(super) fn of_hung(&self, patience: Duration, now: Duration) -> Option<Duration> {
        self.over(patience, now).filter(|_| self.looks.load(Relaxed) >= LOOKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_hangs_once_several_looks_in_a_row_found_it_silent() {
        let (patience, late) = (Duration::from_secs(1), Duration::from_secs(9));
        let silence = Silence::default();
        let hangs_after = |looks: u32, now| {
            (0..looks).for_each(|_| silence.look(patience, now));
            silence.of_hung(patience, now).is_some()
        };
        assert!(!hangs_after(LOOKS, patience));
        assert!(!hangs_after(LOOKS - 1, late) && hangs_after(1, late));
        silence.end(late);
        assert!(!hangs_after(LOOKS, late));
        // The process was stopped: the first look comes before the owner can run.
        assert!(!hangs_after(1, late + late));
        silence.is_no_fault();
        assert!(!hangs_after(LOOKS, late + late));
    }
}
