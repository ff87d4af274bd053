//! Backends that are used together, and how each algorithm picks one of them.

use std::sync::Arc;

use trestle_model::Backend;

use super::maglev::Maglev;
use super::slow_start::SlowStartRamp;
use super::stride::{gcd, stride};

/// Backends that least connections compares at most, beginning with the one whose turn it is. With as many as this the
/// best of them is hardly worse than the best of thousands (two draws are known to be enough for most of the gain), and
/// the time for a pick does not grow with the pool.
const COMPARED: usize = 64;

/// A backend of a tier.
#[derive(Debug, Clone, Copy)]
pub(super) struct TierMember<'a> {
    /// Where it is in the pool.
    pub(super) position: u32,
    pub(super) backend: &'a Backend,
    pub(super) ramp: SlowStartRamp,
}

/// Backends that are used together: a tier is touched only once every backend of the tiers before it was tried.
///
/// It is as long as it has backends, whatever their weights are. Every backend owns a stretch of a circle, as long as
/// its weight. Turns walk the circle in steps of about the golden section, with a step that shares no divisor with the
/// circumference: every place is taken exactly once in a cycle, so weights are exact, and places taken in a row lie far
/// apart, so a heavy backend's turns are spread out (the three-distance theorem; the same idea as multiplicative
/// hashing in Knuth, TAOCP vol. 3, §6.4). Random numbers in place of turns give places at random.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tier {
    /// Positions in the pool.
    members: Vec<u32>,
    /// Sum of the weights up to and including each member, divided by their greatest common divisor. Empty when all
    /// weights are equal: then a turn is a position.
    ends: Vec<u64>,
    /// Turns after which the order repeats.
    cycle: u64,
    /// Distance between the places that two turns in a row take in the cycle.
    stride: u64,
    /// Whose each client is, for pools that hash sources.
    table: Option<Arc<Maglev>>,
}

impl Tier {
    /// A tier of backends in the order of their positions. A `table` is for [`Tier::hashed`].
    pub(super) fn build(members: &[TierMember<'_>], table: Option<Arc<Maglev>>) -> Self {
        let weight = |member: &TierMember<'_>| member.ramp.of(member.backend.spec.weight);
        let divisor = members.iter().fold(0, |d, member| gcd(d, weight(member))).max(1);
        let mut cycle = 0;
        let ends: Vec<u64> = members
            .iter()
            .map(|member| {
                cycle += weight(member) / divisor;
                cycle
            })
            .collect();
        let equal = cycle == members.len() as u64;
        Self {
            members: members.iter().map(|m| m.position).collect(),
            ends: if equal { Vec::new() } else { ends },
            cycle,
            stride: if equal { 1 } else { stride(cycle) },
            table,
        }
    }

    pub(super) fn table(&self) -> Option<&Arc<Maglev>> {
        self.table.as_ref()
    }

    /// Whether the backend at a position of the pool is one of these.
    pub(super) fn has(&self, position: usize) -> bool {
        u32::try_from(position).is_ok_and(|p| self.members.binary_search(&p).is_ok())
    }

    /// Whether something holds for the position of any backend.
    pub(super) fn any(&self, holds: impl Fn(usize) -> bool) -> bool {
        self.members.iter().any(|m| holds(*m as usize))
    }

    fn position(&self, index: usize) -> Option<usize> {
        self.members.get(index).map(|m| *m as usize)
    }

    /// Index in `members` of the backend whose turn it is.
    fn at(&self, turn: u64) -> usize {
        // Both factors are below 2^27, see `stride`.
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

    /// The index of an open backend, as `number` leads to it by weights.
    ///
    /// Further numbers are taken before it searches, so that the share of a backend that is full or does not answer is
    /// spread over the others and does not all fall on its neighbour.
    fn open(&self, mut number: impl FnMut() -> u64, closed: &impl Fn(usize) -> bool) -> Option<usize> {
        const NUMBERS: usize = 4;
        let mut index = 0;
        for _ in 0..NUMBERS {
            index = self.at(number());
            if self.position(index).is_some_and(|p| !closed(p)) {
                return Some(index);
            }
        }
        self.around(index).find(|(_, position)| !closed(*position)).map(|(index, _)| index)
    }

    pub(super) fn round_robin(
        &self,
        turn: impl FnMut() -> u64,
        closed: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.position(self.open(turn, closed)?)
    }

    pub(super) fn least_connections(
        &self,
        turn: u64,
        active: &impl Fn(usize) -> u64,
        closed: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        // Starting at the backend whose turn it would be spreads ties, and so idle pools, by weight.
        let open = self.around(self.at(turn)).filter(|(_, position)| !closed(*position)).take(COMPARED);
        let load = open.map(|(index, position)| (active(position), self.weight(index), position));
        // a/v < b/w without division; `reduce` keeps the first of equals.
        let least = load.reduce(|best, next| if next.0 * best.1 < best.0 * next.1 { next } else { best });
        least.map(|(_, _, position)| position)
    }

    /// Both draws are by weight and may give the same backend. Then, and when both are equally loaded, the first draw
    /// decides, so that weights hold exactly while nothing is open.
    pub(super) fn random_two(
        &self,
        mut random: impl FnMut() -> u64,
        active: &impl Fn(usize) -> u64,
        closed: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut draw = || {
            let index = self.open(&mut random, closed)?;
            let position = self.position(index)?;
            Some((active(position), self.weight(index), position))
        };
        let (first, second) = (draw()?, draw()?);
        Some(if second.0 * first.1 < first.0 * second.1 { second.2 } else { first.2 })
    }

    /// The backend of the entry that a client's `hash` gives, or of the next entry whose backend is open. Entries in a
    /// row belong to backends at random, so that a dead backend's clients are spread over the others.
    pub(super) fn hashed(&self, hash: u64, closed: &impl Fn(usize) -> bool) -> Option<usize> {
        // Otherwise a retry would look at the whole table in vain before it goes on to the next tier.
        let any = self.first(closed)?;
        let mut owners = self.table.iter().flat_map(|t| t.owners(hash));
        // Of more backends than entries, some have none.
        owners.find_map(|index| self.position(index).filter(|p| !closed(*p))).or(Some(any))
    }

    pub(super) fn first(&self, closed: &impl Fn(usize) -> bool) -> Option<usize> {
        self.around(0).map(|(_, position)| position).find(|p| !closed(*p))
    }
}
