//! What repeats is told a few times, and then counted.

use std::time::{Duration, Instant};

/// How often one kind of thing is told: a few times in a window, and once at its end how many more there were.
#[derive(Debug, Clone)]
pub struct Repeats {
    window: Duration,
    told_max: u32,
    /// When the window began; `None` before the first.
    began: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Repeats {
    /// Tells at most `told_max` in each `window`, which begins with the first of them.
    pub const fn new(window: Duration, told_max: u32) -> Self {
        Self { window, told_max, began: None, told: 0, untold: 0 }
    }

    /// Whether to tell one that happens now: `Some` if so, with the number of those before it that were not told and that
    /// nobody was told of.
    pub fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            (self.began, self.told) = (Some(now), 0);
        }
        if self.told >= self.told_max {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }

    /// Whether no window is open: the next one would begin another.
    pub fn is_over(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| now.saturating_duration_since(began) >= self.window)
    }

    /// How many were not told in a window that has ended, and that nobody was told of; once.
    pub fn take_untold(&mut self, now: Instant) -> Option<u64> {
        (self.untold > 0 && self.is_over(now)).then(|| std::mem::take(&mut self.untold))
    }
}
