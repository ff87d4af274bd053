//! Samples, and lines of the report.

use std::time::Duration;

/// Durations of one kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn extend(&mut self, samples: impl IntoIterator<Item = Duration>) {
        self.0.extend(samples);
    }

    pub(crate) fn join(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// The sample below which this part of all samples lies; `1.0` is the greatest.
    ///
    /// # Panics
    /// When there are no samples.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        // Nearest rank: never less than what was seen.
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }
}

/// Milliseconds, for people.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// Prints one figure; `good` says whether it reaches its target.
pub(crate) fn line(what: &str, found: &str, target: &str, good: bool) {
    println!("{what:<58} {found:>14}   {target:<12} {}", if good { "reached" } else { "MISSED" });
}

/// Prints a duration with its bound.
pub(crate) fn at_most(what: &str, found: Duration, bound: Duration) {
    line(what, &ms(found), &format!("<= {} ms", bound.as_millis()), found <= bound);
}

/// Prints a figure without a target.
pub(crate) fn note(what: &str, found: &str) {
    println!("{what:<58} {found:>14}");
}
