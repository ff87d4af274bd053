//! What a run did, in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::dials::DialSummary;
use crate::streams::StreamSummary;

/// Counts of one run, or of several.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: usize,
    /// Faults by the name of their kind.
    pub(crate) faults: BTreeMap<&'static str, usize>,
    pub(crate) calls: usize,
    pub(crate) unanswered: usize,
    pub(crate) created: usize,
    pub(crate) served: usize,
    pub(crate) failed: usize,
    pub(crate) moves: usize,
    pub(crate) moves_in_calm: usize,
    pub(crate) streams: usize,
    pub(crate) broken: usize,
    pub(crate) chunks: usize,
    pub(crate) longest_gap: Duration,
    /// Of answered calls.
    pub(crate) latencies: Vec<Duration>,
    /// From the end of an episode to the first connection that is served.
    pub(crate) served_again: Vec<Duration>,
    /// From the end of an episode until all members take part.
    pub(crate) whole_again: Vec<Duration>,
    /// Members that ended by themselves and were started again, as a service manager does.
    pub(crate) ended: usize,
    /// Times in which nothing was broken and the address was let go of all the same.
    pub(crate) restless: usize,
    /// Terms of Raft that began with the faults.
    pub(crate) elections: u64,
    /// Streams to a member's own address that were broken off.
    pub(crate) broken_beside: usize,
}

impl Tally {
    pub(crate) fn dials(&mut self, dials: &DialSummary) {
        self.served += dials.served;
        self.failed += dials.failed;
        self.moves += dials.moves;
        self.moves_in_calm += dials.moves_in_calm;
        self.longest_gap = self.longest_gap.max(dials.longest_gap);
    }

    pub(crate) fn streams(&mut self, streams: StreamSummary) {
        self.streams += streams.whole;
        self.broken += streams.broken;
        self.broken_beside += streams.broken_beside;
        self.chunks += streams.chunks;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.elections += other.elections;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (sum, count) in [
            (&mut self.calls, other.calls),
            (&mut self.unanswered, other.unanswered),
            (&mut self.created, other.created),
            (&mut self.served, other.served),
            (&mut self.failed, other.failed),
            (&mut self.moves, other.moves),
            (&mut self.moves_in_calm, other.moves_in_calm),
            (&mut self.streams, other.streams),
            (&mut self.broken, other.broken),
            (&mut self.broken_beside, other.broken_beside),
            (&mut self.chunks, other.chunks),
            (&mut self.ended, other.ended),
            (&mut self.restless, other.restless),
        ] {
            *sum += count;
        }
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        self.latencies.extend(other.latencies);
        self.served_again.extend(other.served_again);
        self.whole_again.extend(other.whole_again);
    }
}

/// Half of them, 99 of 100 and all are at most this.
fn percentiles(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().wrapping_sub(1)));
    let shown = [50, 99, 100].map(|percent| at(percent).map_or(0.0, |time| time.as_secs_f64() * 1e3));
    format!("p50 {:.1}, p99 {:.1}, max {:.1} ms of {}", shown[0], shown[1], shown[2], times.len())
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(
            f,
            "runs {}, faults {}: {}",
            self.runs,
            self.faults.values().sum::<usize>(),
            faults.join(", ")
        )?;
        writeln!(
            f,
            "register calls {} ({} never answered), pools {}, {}",
            self.calls,
            self.unanswered,
            self.created,
            percentiles(&self.latencies)
        )?;
        writeln!(
            f,
            "connections served {}, failed {}, moves {} ({} in calm), longest gap {:.2} s",
            self.served,
            self.failed,
            self.moves,
            self.moves_in_calm,
            self.longest_gap.as_secs_f64()
        )?;
        writeln!(
            f,
            "streams whole {}, broken {} ({} at own addresses), chunks {}",
            self.streams, self.broken, self.broken_beside, self.chunks
        )?;
        writeln!(f, "served again after healing: {}", percentiles(&self.served_again))?;
        writeln!(f, "whole again after healing: {}", percentiles(&self.whole_again))?;
        write!(
            f,
            "members that ended by themselves: {}, terms: {}, restless calms: {}",
            self.ended, self.elections, self.restless
        )
    }
}
