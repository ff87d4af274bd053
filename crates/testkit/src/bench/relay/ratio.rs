//! Ratios of what was measured in the same round, and how sure they are.

use std::fmt;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// The median of ratios and its 95 % interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Ratio {
    /// Of values measured in the same rounds.
    ///
    /// # Panics
    /// When there are none.
    pub(super) fn of(ours: &[f64], theirs: &[f64]) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        // Knuth's MMIX generator: the same numbers in every run.
        let mut state = 1_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ratios[(state >> 33) as usize % ratios.len()]
        };
        let mut medians: Vec<f64> =
            (0..RESAMPLES).map(|_| median((0..ratios.len()).map(|_| draw()).collect())).collect();
        medians.sort_by(f64::total_cmp);
        let (low, high) = (medians[RESAMPLES / 40], medians[RESAMPLES - 1 - RESAMPLES / 40]);
        Self { median: median(ratios), low, high }
    }

    /// Whether both ends of the interval lie within 5 % of 1, as they must where a product is compared with itself.
    pub(super) fn is_one(&self) -> bool {
        self.low >= 0.95 && self.high <= 1.05
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}]", self.median, self.low, self.high)
    }
}
