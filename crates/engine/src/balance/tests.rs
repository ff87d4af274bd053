#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use trestle_model::{
    AdminState, Algorithm, AllDown, Backend, BackendAddress, BackendName, BackendSpec, PoolSpec,
};

use super::Schedule;
use super::turns::gcd;
use crate::health::Verdict;

const ALL: [Algorithm; 5] = [
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::RandomTwo,
    Algorithm::SourceHash,
    Algorithm::First,
];

const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn client(number: u32) -> IpAddr {
    // As in a private network: neighbours, not addresses spread over everything.
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

/// A generator of random numbers, other than those of the code under test (Knuth's MMIX, upper half twice).
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    let mut half = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    };
    move || half() << 32 | half()
}

fn pool(algorithm: Algorithm) -> PoolSpec {
    PoolSpec { algorithm, ..PoolSpec::default() }
}

/// Backends with these settings, named in the order given.
fn named(specs: &[BackendSpec]) -> Vec<Backend> {
    let name = |i: usize| BackendName::parse(&format!("node-{i:05}")).unwrap();
    let backend =
        |(i, spec): (usize, &BackendSpec)| Backend { name: name(i), spec: spec.clone(), revision: 1 };
    specs.iter().enumerate().map(backend).collect()
}

fn build(spec: &PoolSpec, specs: &[BackendSpec], verdicts: &[Verdict]) -> Schedule {
    Schedule::build(spec, named(specs).iter().zip(verdicts.iter().copied()), None)
}

fn backend(weight: u16) -> BackendSpec {
    let address = BackendAddress::parse("127.0.0.1:80").unwrap();
    BackendSpec { weight, ..BackendSpec::at(address) }
}

fn schedule(algorithm: Algorithm, weights: &[u16]) -> Schedule {
    let specs: Vec<_> = weights.iter().map(|w| backend(*w)).collect();
    build(&pool(algorithm), &specs, &vec![Verdict::Healthy; specs.len()])
}

fn turns(schedule: &Schedule, count: u64) -> Vec<usize> {
    (0..count).map(|t| schedule.pick(NOBODY, || t, || 0, |_| 0, |_| false).unwrap()).collect()
}

fn letters(schedule: &Schedule, count: u64) -> String {
    turns(schedule, count).iter().map(|p| char::from(b'a' + *p as u8)).collect()
}

/// Picks with connections that stay open; returns how many each backend has.
fn fill(schedule: &Schedule, backends: usize, connections: u64) -> Vec<u64> {
    let active = RefCell::new(vec![0u64; backends]);
    let mut random = random(connections);
    for t in 0..connections {
        let picked = schedule.pick(NOBODY, || t, &mut random, |p| active.borrow()[p], |_| false).unwrap();
        active.borrow_mut()[picked] += 1;
    }
    active.into_inner()
}

/// The backends that a connection tries when each fails.
fn order(schedule: &Schedule) -> Vec<usize> {
    let mut tried = Vec::new();
    let (mut turns, mut random) = (0.., random(1));
    let mut next = || turns.next().unwrap();
    while let Some(p) = schedule.pick(NOBODY, &mut next, &mut random, |_| 0, |p| tried.contains(&p)) {
        tried.push(p);
    }
    tried
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
    for algorithm in ALL {
        for all_down in [AllDown::Refuse, AllDown::FailOpen] {
            let empty = Schedule::build(&PoolSpec { all_down, ..pool(algorithm) }, [], None);
            assert!(!empty.is_usable());
            assert_eq!(empty.pick(NOBODY, || 0, || 0, |_| 0, |_| false), None);
        }
    }
}

#[test]
fn backups_wait_until_no_primary_is_usable() {
    let mut specs = [backend(1), backend(1), backend(1)];
    specs[2].backup = true;
    let picks = |verdicts: [Verdict; 3]| letters(&build(&pool(Algorithm::RoundRobin), &specs, &verdicts), 2);
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
    for algorithm in ALL {
        let schedule = build(&pool(algorithm), &specs, &verdicts);
        assert_eq!(order(&schedule), [2, 0, 1], "{algorithm:?}");
    }
}

#[test]
fn a_dead_backends_share_is_spread_over_the_others() {
    let schedule = schedule(Algorithm::RoundRobin, &[1; 4]);
    let mut turns_again = 0..;
    let mut retries = || turns_again.next().unwrap();
    let mut counts = [0; 4];
    for turn in 0..3000 {
        let first = schedule.pick(NOBODY, || turn, || 0, |_| 0, |_| false).unwrap();
        let mut again = || schedule.pick(NOBODY, &mut retries, || 0, |_| 0, |p| p == 0).unwrap();
        let taken = if first == 0 { again() } else { first };
        counts[taken] += 1;
    }
    assert_eq!(counts, [0, 1000, 1000, 1000]);
}

#[test]
fn least_connections_evens_out_what_is_open() {
    let schedule = schedule(Algorithm::LeastConnections, &[1, 1, 1]);
    let open = [5, 2, 9];
    assert_eq!(schedule.pick(NOBODY, || 0, || 0, |p| open[p], |_| false), Some(1));
    assert_eq!(schedule.pick(NOBODY, || 0, || 0, |p| open[p], |p| p == 1), Some(0));
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
            counts[schedule.pick(NOBODY, || t, || 0, |_| 0, |_| false).unwrap()] += 1;
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

}

proptest! {
    // Each case fills tables, which takes long without optimisation.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn weights_hold_within_one_percent_over_many_clients(weights in weights(), seed in any::<u64>()) {
        // The most that a share can stray by chance is 0.16 % (one standard deviation), so 1 % is six of them.
        const LOOK: u32 = 100_000;
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for algorithm in [Algorithm::RandomTwo, Algorithm::SourceHash] {
            let schedule = schedule(algorithm, &weights);
            let mut random = random(seed);
            let mut counts = vec![0u64; weights.len()];
            for c in 0..LOOK {
                let from = client((seed as u32 & 0x00ff_0000) + c);
                counts[schedule.pick(from, || 0, &mut random, |_| 0, |_| false).unwrap()] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let share = u64::from(*weight) as f64 / total as f64;
                let off = (*count as f64 / f64::from(LOOK) - share).abs();
                prop_assert!(off <= 0.01, "{algorithm:?}: {count} of {LOOK} for {share}");
            }
        }
    }

    #[test]
    fn two_draws_keep_open_connections_near_their_weights(weights in weights(), rounds in 1u64..5) {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let open = fill(&schedule(Algorithm::RandomTwo, &weights), weights.len(), rounds * total);
        let share = |weight: u16| (rounds * u64::from(weight)) as f64;
        for (open, weight) in open.iter().zip(&weights) {
            // One draw alone would stray by sqrt(share), which is 36 at most here; log log n is what two leave.
            let off = (*open as f64 - share(*weight)).abs();
            prop_assert!(off <= 6.0 + share(*weight) * 0.1, "{open} for weight {weight}");
        }
    }

    #[test]
    fn only_what_is_usable_and_untried_is_picked_best_tier_first(
        parts in prop::collection::vec((0u16..4, any::<bool>(), 0u8..3, 0u8..3), 0..30),
        algorithm in prop::sample::select(&ALL[..]), open in any::<bool>(),
        turn in any::<u64>(), tried_mask in any::<u32>(), from in any::<u32>(),
    ) {
        let (specs, verdicts): (Vec<BackendSpec>, Vec<Verdict>) = parts.iter().map(|(weight, backup, admin, verdict)| {
            let admin_state = match admin {
                0 => AdminState::Enabled,
                1 => AdminState::Draining { timeout: None },
                _ => AdminState::Disabled,
            };
            let verdict = match verdict { 0 => Verdict::Unknown, 1 => Verdict::Healthy, _ => Verdict::Unhealthy };
            (BackendSpec { backup: *backup, admin_state, ..backend(*weight) }, verdict)
        }).unzip();
        let all_down = if open { AllDown::FailOpen } else { AllDown::Refuse };
        let schedule = build(&PoolSpec { all_down, ..pool(algorithm) }, &specs, &verdicts);
        let wanted = |i: &usize| specs[*i].admin_state == AdminState::Enabled && specs[*i].weight > 0;
        let up = |i: &usize| verdicts[*i] != Verdict::Unhealthy;
        let all_are_down = !(0..specs.len()).any(|i| wanted(&i) && up(&i));
        let usable = |i: &usize| wanted(i) && (up(i) || open && all_are_down);
        let tried = |p: usize| tried_mask >> p & 1 == 1;
        let left: Vec<usize> = (0..specs.len()).filter(|i| usable(i) && !tried(*i)).collect();
        match schedule.pick(client(from & 0xff_ffff), || turn, random(turn), |_| 0, tried) {
            None => prop_assert!(left.is_empty()),
            Some(p) => {
                prop_assert!(left.contains(&p));
                let rank = |i: usize| (specs[i].backup, verdicts[i] != Verdict::Healthy);
                prop_assert!(left.iter().all(|i| rank(p) <= rank(*i)));
                if algorithm == Algorithm::First {
                    prop_assert!(left.iter().all(|i| rank(p) < rank(*i) || p <= *i));
                }
            }
        }
        prop_assert_eq!(schedule.is_usable(), (0..specs.len()).any(|i| usable(&i)));
    }
}

#[test]
fn the_first_by_name_takes_all_until_it_is_down() {
    let specs = [backend(1), backend(200), backend(1)];
    use Verdict::{Healthy, Unhealthy};
    let first = |verdicts: [Verdict; 3]| letters(&build(&pool(Algorithm::First), &specs, &verdicts), 3);
    assert_eq!(first([Healthy, Healthy, Healthy]), "aaa");
    assert_eq!(first([Unhealthy, Healthy, Healthy]), "bbb");
}

#[test]
fn the_less_loaded_of_two_draws_is_taken_for_its_weight() {
    let schedule = schedule(Algorithm::RandomTwo, &[1, 1]);
    let pick = |draws: [u64; 2], open: [u64; 2]| {
        let mut draws = draws.into_iter();
        schedule.pick(NOBODY, || 0, || draws.next().unwrap(), |p| open[p], |_| false).unwrap()
    };
    assert_eq!(pick([0, 1], [5, 4]), 1);
    assert_eq!(pick([1, 0], [4, 5]), 0);
    assert_eq!(pick([0, 1], [4, 4]), 0);
    assert_eq!(pick([1, 0], [4, 4]), 1);
    assert_eq!(pick([0, 0], [9, 0]), 0);
}

#[test]
fn a_pool_that_fails_open_uses_what_is_unhealthy_and_only_then() {
    use Verdict::{Healthy, Unhealthy, Unknown};
    let mut specs = [backend(1), backend(1), backend(1)];
    specs[0].backup = true;
    let open = PoolSpec { all_down: AllDown::FailOpen, ..pool(Algorithm::RoundRobin) };
    assert_eq!(order(&build(&open, &specs, &[Unhealthy, Unhealthy, Healthy])), [2]);
    assert_eq!(order(&build(&open, &specs, &[Unknown, Unhealthy, Unhealthy])), [0]);
    let all = order(&build(&open, &specs, &[Unhealthy; 3]));
    assert!(all == [1, 2, 0] || all == [2, 1, 0], "backups last: {all:?}");
    assert!(order(&build(&pool(Algorithm::RoundRobin), &specs, &[Unhealthy; 3])).is_empty());
    specs[1].admin_state = AdminState::Disabled;
    specs[2].weight = 0;
    assert_eq!(order(&build(&open, &specs, &[Unhealthy; 3])), [0], "what an operator took out stays out");
}

#[test]
fn a_client_stays_where_it_is_and_its_retry_goes_to_many() {
    let schedule = schedule(Algorithm::SourceHash, &[1; 8]);
    let mut retried = [0; 8];
    for c in 0..8000 {
        let pick = |not| schedule.pick(client(c), || 0, || 0, |_| 0, |p| Some(p) == not).unwrap();
        let at = pick(None);
        assert_eq!(pick(None), at);
        if at == 0 {
            retried[pick(Some(0))] += 1;
            assert_eq!(pick(Some(0)), pick(Some(0)));
        } else {
            assert_eq!(pick(Some(0)), at);
        }
    }
    let (least, most) = (retried[1..].iter().min().unwrap(), retried[1..].iter().max().unwrap());
    // About 1000 over seven; a neighbour that took them all would show as 0 and 1000.
    assert!(retried[0] == 0 && *least > 70 && *most < 220, "{retried:?}");
}

#[test]
fn a_table_is_filled_again_only_when_backends_or_weights_differ() {
    let spec = pool(Algorithm::SourceHash);
    let mut specs = vec![backend(1), backend(1), backend(1)];
    specs[0].backup = true;
    let mut verdicts = [Verdict::Healthy; 3];
    let next = |specs: &[BackendSpec], verdicts: &[Verdict], before: &Schedule| {
        Schedule::build(&spec, named(specs).iter().zip(verdicts.iter().copied()), Some(before))
    };
    let tables = |s: &Schedule| s.tiers.iter().map(|t| t.table().unwrap().clone()).collect::<Vec<_>>();
    let first = build(&spec, &specs, &verdicts);
    specs[1].address = BackendAddress::parse("127.0.0.1:81").unwrap();
    let same = next(&specs, &verdicts, &first);
    assert!(tables(&first).iter().zip(tables(&same)).all(|(a, b)| Arc::ptr_eq(a, &b)));
    verdicts[1] = Verdict::Unhealthy;
    let fallen = next(&specs, &verdicts, &same);
    assert!(!Arc::ptr_eq(&tables(&fallen)[0], &tables(&same)[0]));
    assert!(Arc::ptr_eq(&tables(&fallen)[1], &tables(&same)[1]), "the backups' table is as it was");
    specs[2].weight = 2;
    assert_ne!(tables(&next(&specs, &verdicts, &fallen))[0], tables(&fallen)[0]);
    assert!(build(&pool(Algorithm::RoundRobin), &specs, &verdicts).tiers.iter().all(|t| t.table().is_none()));
}
