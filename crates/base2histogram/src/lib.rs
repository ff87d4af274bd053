//! Stands in for the crate of this name, with which openraft 0.10.0-alpha.37 counts batch sizes for a report that is only
//! made with its feature `runtime-stats`, which is off. At its first use that crate fills tables for all of its sixteen
//! precisions, 26 MiB that stay resident, and openraft uses one of them: more than all else that an idle member needs.
//!
//! The same types that openraft names, counting nothing. Look again when openraft is updated.

#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// A histogram without a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Takes no note of a value.
    pub fn record(&mut self, _value: u64) {}

    /// Takes no note of a value that came several times.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// No values.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of no values: all 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named as in the crate that this one stands in for")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not counted]")
    }
}

/// A chart of nothing.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty chart.
    pub const fn new() -> Self {
        Self
    }

    /// The chart as it was.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}
