//! Picking: which backend takes the next connection.

use trestle_model::{AdminState, Algorithm, BackendSpec};

use crate::health::Verdict;

/// Backends that are used together: a tier is touched only once every backend of the tiers before it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Tier {
    /// Positions in the pool.
    members: Vec<u32>,
    /// Sum of the weights up to and including each member, divided by their greatest common divisor. Empty when all
    /// weights are equal: then a turn is a position.
    ends: Vec<u64>,
    /// Turns after which the order repeats.
    cycle: u64,
    /// Distance between the places that two turns in a row take in the cycle.
    stride: u64,
}

/// A pool's backends prepared for picking; built once for each change of backends or verdicts.
///
/// A schedule is as long as the pool has usable backends, whatever their weights are. In it every backend owns a
/// stretch of a circle, as long as its weight. Turns walk the circle in steps of about the golden section, with a step
/// that shares no divisor with the circumference: every place is taken exactly once in a cycle, so weights are exact,
/// and places taken in a row lie far apart, so a heavy backend's turns are spread out (the three-distance theorem; the
/// same idea as multiplicative hashing in Knuth, TAOCP vol. 3, §6.4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    algorithm: Algorithm,
    /// Best first: healthy primaries, unknown primaries, healthy backups, unknown backups; empty tiers are left out.
    tiers: Vec<Tier>,
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest partial quotient of the continued fraction of `a / b`, or `None` when they have a common divisor.
/// Multiples of `a` are spread the more evenly modulo `b` the smaller it is.
fn unevenness(mut a: u64, mut b: u64) -> Option<u64> {
    let mut largest = 0;
    while a > 0 {
        largest = largest.max(b / a);
        (a, b) = (b % a, a);
    }
    (b == 1).then_some(largest)
}

/// A step of about the golden section of `cycle` that reaches every place and spreads turns evenly.
fn stride(cycle: u64) -> u64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    // Among this many numbers there is always one whose partial quotients are small; more gained nothing.
    const LOOKED_AT: u64 = 64;
    // A cycle is at most 20 000 backends of weight 256, far below what a double holds exactly.
    let near = (cycle as f64 * GOLDEN).round() as u64;
    let both_sides = (0..LOOKED_AT.min(cycle)).flat_map(|d| [near + d, near.saturating_sub(d)]);
    let rated =
        both_sides.filter(|s| (1..cycle).contains(s)).filter_map(|s| Some((unevenness(s, cycle)?, s)));
    // `min_by_key` keeps the first of equals, which is the nearest.
    rated.min_by_key(|(rating, _)| *rating).map_or(1, |(_, s)| s)
}

impl Tier {
    fn build(members: Vec<(u32, u16)>) -> Self {
        let divisor = members.iter().fold(0, |d, (_, w)| gcd(d, u64::from(*w))).max(1);
        let mut cycle = 0;
        let ends: Vec<u64> = members
            .iter()
            .map(|(_, weight)| {
                cycle += u64::from(*weight) / divisor;
                cycle
            })
            .collect();
        let equal = cycle == members.len() as u64;
        Self {
            members: members.into_iter().map(|(position, _)| position).collect(),
            ends: if equal { Vec::new() } else { ends },
            cycle,
            stride: if equal { 1 } else { stride(cycle) },
        }
    }

    /// Index in `members` of the backend whose turn it is.
    fn at(&self, turn: u64) -> usize {
        // Both factors are below 2^23, see `stride`.
        let place = (turn % self.cycle) * self.stride % self.cycle;
        if self.ends.is_empty() { place as usize } else { self.ends.partition_point(|end| *end <= place) }
    }

    fn weight(&self, index: usize) -> u64 {
        match self.ends.get(index) {
            Some(end) => end - index.checked_sub(1).and_then(|i| self.ends.get(i)).unwrap_or(&0),
            None => 1,
        }
    }

    /// Members from `start` on and around, each once.
    fn around(&self, start: usize) -> impl Iterator<Item = (usize, usize)> {
        let (before, after) = self.members.split_at(start.min(self.members.len()));
        let indexed = |offset: usize| move |(i, m): (usize, &u32)| (i + offset, *m as usize);
        after.iter().enumerate().map(indexed(before.len())).chain(before.iter().enumerate().map(indexed(0)))
    }

    fn round_robin(&self, mut turn: impl FnMut() -> u64, tried: &impl Fn(usize) -> bool) -> Option<usize> {
        // A retry takes further turns before it searches, so that the share of a backend that does not answer is
        // spread over the others and does not all fall on its neighbour.
        const TURNS: usize = 4;
        let mut index = 0;
        for _ in 0..TURNS {
            index = self.at(turn());
            let position = self.members.get(index).map(|m| *m as usize);
            if position.is_some_and(|p| !tried(p)) {
                return position;
            }
        }
        self.around(index).map(|(_, position)| position).find(|p| !tried(*p))
    }

    fn least_connections(
        &self,
        turn: u64,
        active: &impl Fn(usize) -> u64,
        tried: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        // Starting at the backend whose turn it would be spreads ties, and so idle pools, by weight.
        let open = self.around(self.at(turn)).filter(|(_, position)| !tried(*position));
        let load = open.map(|(index, position)| (active(position), self.weight(index), position));
        // a/v < b/w without division; `reduce` keeps the first of equals.
        let least = load.reduce(|best, next| if next.0 * best.1 < best.0 * next.1 { next } else { best });
        least.map(|(_, _, position)| position)
    }
}

impl Schedule {
    /// Prepares the backends of a pool, given in the order of their positions.
    ///
    /// Usable is what is enabled, has a weight, and is not unhealthy. Healthy backends come before those of which
    /// nothing is known; backups come only when no other backend is usable.
    pub fn build<'a>(
        algorithm: Algorithm,
        backends: impl IntoIterator<Item = (&'a BackendSpec, Verdict)>,
    ) -> Self {
        let mut tiers: [Vec<(u32, u16)>; 4] = Default::default();
        for (position, (spec, verdict)) in (0u32..).zip(backends) {
            if spec.admin_state != AdminState::Enabled || spec.weight == 0 {
                continue;
            }
            let tier = match (spec.backup, verdict) {
                (_, Verdict::Unhealthy) => continue,
                (false, Verdict::Healthy) => 0,
                (false, Verdict::Unknown) => 1,
                (true, Verdict::Healthy) => 2,
                (true, Verdict::Unknown) => 3,
            };
            tiers[tier].push((position, spec.weight));
        }
        let tiers = tiers.into_iter().filter(|t| !t.is_empty()).map(Tier::build).collect();
        Self { algorithm, tiers }
    }

    /// Whether any backend can take a connection.
    pub fn is_usable(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// Picks the position of a backend for a connection, or `None` when every usable one was tried.
    ///
    /// `turn` gives the next turn of the pool and moves it on; `active` says how many connections the backend at a
    /// position has; `tried` says whether this connection has failed there already.
    pub fn pick(
        &self,
        mut turn: impl FnMut() -> u64,
        active: impl Fn(usize) -> u64,
        tried: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.tiers.iter().find_map(|tier| match self.algorithm {
            Algorithm::RoundRobin => tier.round_robin(&mut turn, &tried),
            Algorithm::LeastConnections => tier.least_connections(turn(), &active, &tried),
        })
    }
}

#[cfg(test)]
mod tests;
