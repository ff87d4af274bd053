#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;

use proptest::prelude::*;
use trestle_model::{AdminState, Algorithm, BackendAddress, BackendSpec};

use super::{Schedule, gcd};
use crate::health::Verdict;

fn backend(weight: u16) -> BackendSpec {
    let address = BackendAddress::parse("127.0.0.1:80").unwrap();
    BackendSpec { weight, ..BackendSpec::at(address) }
}

fn schedule(algorithm: Algorithm, weights: &[u16]) -> Schedule {
    let specs: Vec<_> = weights.iter().map(|w| backend(*w)).collect();
    Schedule::build(algorithm, specs.iter().map(|s| (s, Verdict::Healthy)))
}

fn turns(schedule: &Schedule, count: u64) -> Vec<usize> {
    (0..count).map(|t| schedule.pick(|| t, |_| 0, |_| false).unwrap()).collect()
}

fn letters(schedule: &Schedule, count: u64) -> String {
    turns(schedule, count).iter().map(|p| char::from(b'a' + *p as u8)).collect()
}

/// Picks with connections that stay open; returns how many each backend has.
fn fill(schedule: &Schedule, backends: usize, connections: u64) -> Vec<u64> {
    let active = RefCell::new(vec![0u64; backends]);
    for t in 0..connections {
        let picked = schedule.pick(|| t, |p| active.borrow()[p], |_| false).unwrap();
        active.borrow_mut()[picked] += 1;
    }
    active.into_inner()
}

#[test]
fn equal_weights_take_turns_in_order() {
    assert_eq!(letters(&schedule(Algorithm::RoundRobin, &[7, 7, 7]), 7), "abcabca");
}

#[test]
fn heavy_backends_are_spread_out() {
    assert_eq!(letters(&schedule(Algorithm::RoundRobin, &[5, 1, 1]), 7), "abaacaa");
    assert_eq!(letters(&schedule(Algorithm::RoundRobin, &[3, 1]), 4), "abaa");
    assert_eq!(letters(&schedule(Algorithm::RoundRobin, &[2, 1]), 6), "abaaba");
}

#[test]
fn an_empty_pool_has_no_pick() {
    let empty = Schedule::build(Algorithm::RoundRobin, []);
    assert!(!empty.is_usable());
    assert_eq!(empty.pick(|| 0, |_| 0, |_| false), None);
}

#[test]
fn backups_wait_until_no_primary_is_usable() {
    let mut specs = [backend(1), backend(1), backend(1)];
    specs[2].backup = true;
    let picks = |verdicts: [Verdict; 3]| {
        let schedule = Schedule::build(Algorithm::RoundRobin, specs.iter().zip(verdicts));
        letters(&schedule, 2)
    };
    use Verdict::{Healthy, Unhealthy, Unknown};
    assert_eq!(picks([Healthy, Healthy, Healthy]), "ab");
    assert_eq!(picks([Unhealthy, Unknown, Healthy]), "bb");
    assert_eq!(picks([Healthy, Unknown, Healthy]), "aa");
    assert_eq!(picks([Unhealthy, Unhealthy, Healthy]), "cc");
    assert_eq!(picks([Unhealthy, Unhealthy, Unknown]), "cc");
}

#[test]
fn retries_reach_every_usable_backend_once_best_tier_first() {
    let mut specs = [backend(1), backend(1), backend(1), backend(1)];
    specs[1].backup = true;
    let verdicts = [Verdict::Unknown, Verdict::Healthy, Verdict::Healthy, Verdict::Unhealthy];
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
        let schedule = Schedule::build(algorithm, specs.iter().zip(verdicts));
        let mut tried = Vec::new();
        let mut turn = 0;
        let mut next = || {
            turn += 1;
            turn
        };
        while let Some(p) = schedule.pick(&mut next, |_| 0, |p| tried.contains(&p)) {
            tried.push(p);
        }
        assert_eq!(tried, [2, 0, 1]);
    }
}

#[test]
fn a_dead_backends_share_is_spread_over_the_others() {
    let schedule = schedule(Algorithm::RoundRobin, &[1; 4]);
    let mut again = 0;
    let mut retries = || {
        again += 1;
        again
    };
    let mut counts = [0; 4];
    for turn in 0..3000 {
        let first = schedule.pick(|| turn, |_| 0, |_| false).unwrap();
        let taken = if first == 0 { schedule.pick(&mut retries, |_| 0, |p| p == 0).unwrap() } else { first };
        counts[taken] += 1;
    }
    assert_eq!(counts, [0, 1000, 1000, 1000]);
}

#[test]
fn least_connections_evens_out_what_is_open() {
    let schedule = schedule(Algorithm::LeastConnections, &[1, 1, 1]);
    let open = [5, 2, 9];
    assert_eq!(schedule.pick(|| 0, |p| open[p], |_| false), Some(1));
    assert_eq!(schedule.pick(|| 0, |p| open[p], |p| p == 1), Some(0));
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(1u16..=256, 1..40)
}

proptest! {
    #[test]
    fn weights_are_exact_over_a_cycle(weights in weights()) {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let divisor = weights.iter().fold(0, |d, w| gcd(d, u64::from(*w)));
        let mut counts = vec![0u64; weights.len()];
        for p in turns(&schedule(Algorithm::RoundRobin, &weights), total / divisor) {
            counts[p] += 1;
        }
        let expected: Vec<u64> = weights.iter().map(|w| u64::from(*w) / divisor).collect();
        prop_assert_eq!(counts, expected);
    }

    #[test]
    fn weights_hold_within_one_percent_wherever_one_looks(weights in weights(), start in 0u64..1 << 40) {
        const LOOK: u64 = 10_000;
        let schedule = schedule(Algorithm::RoundRobin, &weights);
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut counts = vec![0u64; weights.len()];
        for t in start..start + LOOK {
            counts[schedule.pick(|| t, |_| 0, |_| false).unwrap()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let share = u64::from(*weight) as f64 / total as f64;
            prop_assert!((*count as f64 / LOOK as f64 - share).abs() <= 0.01, "{count} of {LOOK} for {share}");
        }
    }

    #[test]
    fn a_weighted_backend_never_waits_much_longer_than_its_share(weights in weights()) {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let picks = turns(&schedule(Algorithm::RoundRobin, &weights), 2 * total);
        for (i, weight) in weights.iter().enumerate() {
            let mut gap = 0;
            let longest = picks.iter().map(|p| { gap = if *p == i { 0 } else { gap + 1 }; gap }).max().unwrap();
            let fair = total as f64 / f64::from(*weight);
            // The three-distance theorem bounds the wait; 4 leaves room for steps that are moved off the golden
            // section to be free of common divisors.
            prop_assert!(f64::from(longest) <= 4.0 * fair + 1.0, "{longest} turns, fair {fair}");
        }
    }

    #[test]
    fn open_connections_follow_weights(weights in weights()) {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let open = fill(&schedule(Algorithm::LeastConnections, &weights), weights.len(), 4 * total);
        for (open, weight) in open.iter().zip(&weights) {
            prop_assert!(open.abs_diff(4 * u64::from(*weight)) <= 4, "{open} for weight {weight}");
        }
    }

    #[test]
    fn nothing_unusable_is_ever_picked(
        parts in prop::collection::vec((0u16..4, any::<bool>(), 0u8..3, 0u8..3), 0..30),
        least in any::<bool>(), turn in any::<u64>(), tried_mask in any::<u32>(),
    ) {
        let specs: Vec<(BackendSpec, Verdict)> = parts.iter().map(|(weight, backup, admin, verdict)| {
            let admin_state = match admin {
                0 => AdminState::Enabled,
                1 => AdminState::Draining { timeout: None },
                _ => AdminState::Disabled,
            };
            let verdict = match verdict { 0 => Verdict::Unknown, 1 => Verdict::Healthy, _ => Verdict::Unhealthy };
            (BackendSpec { backup: *backup, admin_state, ..backend(*weight) }, verdict)
        }).collect();
        let algorithm = if least { Algorithm::LeastConnections } else { Algorithm::RoundRobin };
        let schedule = Schedule::build(algorithm, specs.iter().map(|(s, v)| (s, *v)));
        let usable = |i: usize| {
            let (spec, verdict) = &specs[i];
            spec.admin_state == AdminState::Enabled && spec.weight > 0 && *verdict != Verdict::Unhealthy
        };
        let tried = |p: usize| tried_mask >> p & 1 == 1;
        let left: Vec<usize> = (0..specs.len()).filter(|i| usable(*i) && !tried(*i)).collect();
        match schedule.pick(|| turn, |_| 0, tried) {
            None => prop_assert!(left.is_empty()),
            Some(p) => {
                prop_assert!(left.contains(&p));
                prop_assert!(!specs[p].0.backup || left.iter().all(|i| specs[*i].0.backup));
                let rank = |i: usize| (specs[i].0.backup, specs[i].1 != Verdict::Healthy);
                prop_assert!(left.iter().all(|i| rank(p) <= rank(*i)));
            }
        }
        prop_assert_eq!(schedule.is_usable(), (0..specs.len()).any(usable));
    }
}
