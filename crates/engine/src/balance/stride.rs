//! Spreading turns evenly over backends of different weights.

pub(super) fn gcd(a: u64, b: u64) -> u64 {
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
pub(super) fn stride(cycle: u64) -> u64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    // Among this many numbers there is always one whose partial quotients are small; more gained nothing.
    const LOOKED_AT: u64 = 64;
    // A cycle is at most 20 000 backends of weight 256 in 20 steps of warmth, far below what a double holds exactly.
    let near = (cycle as f64 * GOLDEN).round() as u64;
    let both_sides = (0..LOOKED_AT.min(cycle)).flat_map(|d| [near + d, near.saturating_sub(d)]);
    let rated =
        both_sides.filter(|s| (1..cycle).contains(s)).filter_map(|s| Some((unevenness(s, cycle)?, s)));
    // `min_by_key` keeps the first of equals, which is the nearest.
    rated.min_by_key(|(rating, _)| *rating).map_or(1, |(_, s)| s)
}
