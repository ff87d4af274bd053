//! What a client sees over time, in a line for each change.

use std::fmt;
use std::time::{Duration, Instant};

/// What a client has seen so far. It is told of each attempt when that ends.
#[derive(Debug)]
pub(super) struct Sightings {
    /// Who answered last.
    by: Option<String>,
    /// Failures since then.
    failed: u64,
    answered_at: Instant,
    totals: Totals,
}

/// Of all attempts.
#[derive(Debug, Default)]
pub(super) struct Totals {
    attempts: u64,
    failed: u64,
    longest: Duration,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, failed, longest } = self;
        let longest = longest.as_secs_f64();
        write!(f, "{attempts} connections, {failed} failed; longest time without an answer {longest:.2} s")
    }
}

impl Sightings {
    pub(super) fn since(start: Instant) -> Self {
        Self { by: None, failed: 0, answered_at: start, totals: Totals::default() }
    }

    /// Takes in how an attempt ended that began at `began`, and says what is new. One that failed and began before the last answer came
    /// says nothing of the time since.
    pub(super) fn take(
        &mut self,
        began: Instant,
        at: Instant,
        outcome: Result<String, String>,
    ) -> Option<String> {
        self.totals.attempts += 1;
        let gap = at.saturating_duration_since(self.answered_at);
        let by = match outcome {
            Ok(by) => by,
            Err(why) => {
                self.totals.failed += 1;
                if self.by.is_some() && began <= self.answered_at {
                    return None;
                }
                self.failed += 1;
                return (self.failed == 1).then(|| format!("no answer: {why}"));
            }
        };
        let failed = std::mem::take(&mut self.failed);
        self.answered_at = self.answered_at.max(at);
        if self.by.is_some() {
            self.totals.longest = self.totals.longest.max(gap);
        }
        let is_news = failed > 0 || self.by.as_ref() != Some(&by);
        let line = is_news.then(|| match failed {
            0 => format!("answers come through {by}"),
            _ => format!(
                "answers come through {by} after {:.2} s; {failed} connections failed",
                gap.as_secs_f64()
            ),
        });
        self.by = Some(by);
        line
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told_and_the_longest_gap_is_kept() {
        let zero = Instant::now();
        let mut seen = Sightings::since(zero);
        let mut take = |ms: u64, outcome: Result<&str, &str>| {
            let outcome = outcome.map(str::to_owned).map_err(str::to_owned);
            let at = zero + Duration::from_millis(ms);
            seen.take(at - Duration::from_millis(5), at, outcome)
        };
        assert_eq!(take(5, Err("refused")).as_deref(), Some("no answer: refused"));
        let first = "answers come through 10.0.0.1 after 0.10 s; 1 connections failed";
        assert_eq!(take(100, Ok("10.0.0.1")).as_deref(), Some(first));
        assert_eq!(take(110, Ok("10.0.0.1")), None);
        assert_eq!(take(120, Err("late")).as_deref(), Some("no answer: late"));
        assert_eq!(take(130, Err("late")), None);
        let moved = "answers come through 10.0.0.2 after 0.61 s; 2 connections failed";
        assert_eq!(take(720, Ok("10.0.0.2")).as_deref(), Some(moved));
        // It began before.
        assert_eq!(take(722, Err("late")), None);
        assert_eq!(take(730, Ok("10.0.0.1")).as_deref(), Some("answers come through 10.0.0.1"));
        let totals = "8 connections, 4 failed; longest time without an answer 0.61 s";
        assert_eq!(seen.totals().to_string(), totals);
    }
}
