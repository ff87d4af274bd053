//! Verdicts: what a row of check results says about a backend.

use std::fmt;
use std::time::Duration;

use trestle_model::{HealthCheck, InitialState};

/// What a member thinks of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// No check has ended yet and the pool says nothing else, or it has no check. Used while no healthy backend is there.
    #[default]
    Unknown,
    /// The last checks succeeded, or the pool takes that for granted until they fail.
    Healthy,
    /// The last checks failed, or the pool takes that for granted until they succeed; takes no connections.
    Unhealthy,
}

impl From<InitialState> for Verdict {
    fn from(state: InitialState) -> Self {
        match state {
            InitialState::Unknown => Verdict::Unknown,
            InitialState::Healthy => Verdict::Healthy,
            InitialState::Unhealthy => Verdict::Unhealthy,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Unknown => "unknown",
            Verdict::Healthy => "healthy",
            Verdict::Unhealthy => "unhealthy",
        })
    }
}

/// What follows from one check result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Whether the verdict is another one than before.
    pub changed: bool,
    /// When the next check begins, on the clock that was passed in; never before `now`.
    pub next: Duration,
}

/// The rise and fall of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    verdict: Verdict,
    /// Results in a row that contradict the verdict.
    contrary: u32,
    /// False until the first result since the checks were started.
    spread: bool,
}

impl Health {
    /// Checks that start, or start anew with other settings, for a backend that has `verdict`: the check's initial state
    /// where nothing is known of it. Only from [`Verdict::Unknown`] does the first result decide.
    pub fn new(verdict: Verdict) -> Self {
        Self { verdict, contrary: 0, spread: false }
    }

    /// The current verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes the result of a check that began at `started` and ended at `now`, both on one monotonic clock.
    ///
    /// The first result decides at once when nothing is known. While results contradict the verdict, checks follow
    /// in the fast interval (or the normal one, if that is shorter). Intervals count from the beginning of a check;
    /// a check that took longer is followed by the next one immediately. `random` is any number, drawn anew for each
    /// call: it moves the next check by up to the jitter, and puts the second one anywhere in the first interval, so
    /// that checks that were started together do not stay together.
    pub fn observe(
        &mut self,
        check: &HealthCheck,
        success: bool,
        started: Duration,
        now: Duration,
        random: u32,
    ) -> Observed {
        let (result, needed) =
            if success { (Verdict::Healthy, check.rise) } else { (Verdict::Unhealthy, check.fall) };
        let before = self.verdict;
        if before == result {
            self.contrary = 0;
        } else {
            self.contrary = self.contrary.saturating_add(1);
            if before == Verdict::Unknown || self.contrary >= needed {
                self.verdict = result;
                self.contrary = 0;
            }
        }
        let delay = self.delay(check, random);
        Observed { changed: self.verdict != before, next: started.saturating_add(delay).max(now) }
    }

    /// When to check again after no check could be made between `started` and `now`, for a reason that says nothing of the
    /// backend: soon, and the row of results goes on where it was.
    pub fn put_off(&self, check: &HealthCheck, started: Duration, now: Duration, random: u32) -> Duration {
        let part = f64::from(random) / f64::from(u32::MAX);
        let pause = jittered(check.fast_interval.min(check.interval), check.jitter_percent, part);
        started.saturating_add(pause).max(now)
    }

    fn delay(&mut self, check: &HealthCheck, random: u32) -> Duration {
        let part = f64::from(random) / f64::from(u32::MAX);
        if self.contrary > 0 {
            return jittered(check.fast_interval.min(check.interval), check.jitter_percent, part);
        }
        if !self.spread {
            self.spread = true;
            return check.interval.mul_f64(part);
        }
        jittered(check.interval, check.jitter_percent, part)
    }
}

/// `interval` moved by up to `percent` either way; `part` is 0 to 1.
fn jittered(interval: Duration, percent: u32, part: f64) -> Duration {
    let reach = f64::from(percent.min(100)) / 100.0;
    interval.mul_f64(1.0 - reach + 2.0 * reach * part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    const MID: u32 = u32::MAX / 2;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn exact() -> HealthCheck {
        HealthCheck { jitter_percent: 0, ..HealthCheck::default() }
    }

    /// Feeds results (`+` success, `-` failure) and returns the verdicts that follow, one letter each.
    fn verdicts(check: &HealthCheck, results: &str) -> String {
        let mut health = Health::new(Verdict::Unknown);
        let letter = |r| {
            health.observe(check, r == '+', at(0), at(0), MID);
            match health.verdict() {
                Verdict::Unknown => '?',
                Verdict::Healthy => 'H',
                Verdict::Unhealthy => 'U',
            }
        };
        results.chars().map(letter).collect()
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(verdicts(&exact(), "+"), "H");
        assert_eq!(verdicts(&exact(), "-"), "U");
    }

    #[test]
    fn an_initial_state_stands_until_enough_results_contradict_it() {
        let after = |state: InitialState, results: &str| {
            let mut health = Health::new(state.into());
            for result in results.chars() {
                health.observe(&exact(), result == '+', at(0), at(0), MID);
            }
            health.verdict()
        };
        assert_eq!(after(InitialState::Unknown, "-"), Verdict::Unhealthy);
        assert_eq!(after(InitialState::Healthy, "--"), Verdict::Healthy);
        assert_eq!(after(InitialState::Healthy, "---"), Verdict::Unhealthy);
        assert_eq!(after(InitialState::Unhealthy, "+"), Verdict::Unhealthy);
        assert_eq!(after(InitialState::Unhealthy, "++"), Verdict::Healthy);
    }

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        assert_eq!(verdicts(&exact(), "+--+--+---"), "HHHHHHHHHU");
        assert_eq!(verdicts(&exact(), "-+-+-++"), "UUUUUUH");
    }

    #[test]
    fn doubt_shortens_the_interval_and_certainty_restores_it() {
        let check = exact();
        let mut health = Health::new(Verdict::Healthy);
        health.observe(&check, true, at(0), at(1), MID);
        assert_eq!(health.observe(&check, true, at(100), at(101), MID).next, at(2100));
        assert_eq!(health.observe(&check, false, at(2100), at(2101), MID).next, at(2600));
        assert_eq!(health.observe(&check, false, at(2600), at(2601), MID).next, at(3100));
        assert_eq!(
            health.observe(&check, false, at(3100), at(3101), MID),
            Observed { changed: true, next: at(5100) }
        );
        assert_eq!(health.observe(&check, true, at(5100), at(5101), MID).next, at(5600));
    }

    #[test]
    fn the_fast_interval_is_never_the_longer_one() {
        let check = HealthCheck { interval: at(100), fast_interval: at(500), ..exact() };
        let mut health = Health::new(Verdict::Healthy);
        assert_eq!(health.observe(&check, false, at(0), at(0), MID).next, at(100));
    }

    #[test]
    fn a_check_that_took_long_is_followed_at_once() {
        let mut health = Health::new(Verdict::Healthy);
        assert_eq!(health.observe(&exact(), false, at(0), at(1000), MID).next, at(1000));
    }

    #[test]
    fn a_check_that_could_not_be_made_counts_for_nothing() {
        let check = exact();
        let mut health = Health::new(Verdict::Healthy);
        for _ in 0..2 {
            health.observe(&check, false, at(0), at(0), MID);
            assert_eq!(health.put_off(&check, at(0), at(1), MID), at(500));
        }
        assert_eq!(health.verdict(), Verdict::Healthy);
        assert!(health.observe(&check, false, at(0), at(0), MID).changed);
    }

    #[test]
    fn restarting_keeps_the_verdict_but_not_the_count() {
        let check = exact();
        let mut health = Health::new(Verdict::Healthy);
        health.observe(&check, false, at(0), at(0), MID);
        health.observe(&check, false, at(0), at(0), MID);
        let mut health = Health::new(health.verdict());
        assert!(!health.observe(&check, false, at(0), at(0), MID).changed);
        assert_eq!(health.verdict(), Verdict::Healthy);
    }

    proptest! {
        #[test]
        fn a_verdict_changes_only_after_enough_results_in_a_row(
            rise in 1u32..6, fall in 1u32..6, results in prop::collection::vec(any::<bool>(), 1..200),
        ) {
            let check = HealthCheck { rise, fall, ..HealthCheck::default() };
            let mut health = Health::new(Verdict::Unknown);
            for (i, &result) in results.iter().enumerate() {
                let observed = health.observe(&check, result, at(0), at(0), MID);
                let row = results[..=i].iter().rev().take_while(|r| **r == result).count() as u32;
                let needed = if result { rise } else { fall };
                let agrees = health.verdict() == if result { Verdict::Healthy } else { Verdict::Unhealthy };
                prop_assert_eq!(agrees, i == 0 || row >= needed || {
                    // The verdict was this one all along, and the row that contradicted it was too short.
                    let other = if result { fall } else { rise };
                    let contrary = results[..=i].iter().rev().skip(row as usize)
                        .take_while(|r| **r != result).count() as u32;
                    agrees && (contrary < other || contrary as usize + row as usize == i + 1)
                });
                prop_assert!(!observed.changed || agrees);
            }
        }

        #[test]
        fn jitter_stays_in_its_bounds(percent in 0u32..=50, random in any::<u32>(), ms in 50u64..100_000) {
            let check = HealthCheck { interval: at(ms), jitter_percent: percent, ..HealthCheck::default() };
            let mut health = Health::new(Verdict::Healthy);
            prop_assert!(health.observe(&check, true, at(0), at(0), random).next <= at(ms));
            let next = health.observe(&check, true, at(0), at(0), random).next.as_secs_f64();
            let reach = at(ms).as_secs_f64() * f64::from(percent) / 100.0;
            let middle = at(ms).as_secs_f64();
            prop_assert!((middle - reach - 1e-6..=middle + reach + 1e-6).contains(&next));
        }
    }
}
