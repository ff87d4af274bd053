#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hashing;
mod usable;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use proptest::prelude::*;
use trestle_model::{
    AdminState, Algorithm, AllDown, Backend, BackendAddress, BackendName, BackendSpec, OnPrimaryUp, PoolSpec,
};

use super::stride::gcd;
use super::{Availability, Candidate, Schedule, Selection, SlowStartRamp};
use crate::health::Verdict;

const ALL: [Algorithm; 6] = [
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::RandomTwo,
    Algorithm::SourceHash,
    Algorithm::SourcePortHash,
    Algorithm::First,
];

const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

fn client(number: u32) -> SocketAddr {
    // As in a private network: neighbours, not addresses spread over everything.
    (Ipv4Addr::from(0x0a00_0000 + number), 40_000).into()
}

/// As [`Schedule::pick`] where no backend is full.
fn pick(
    schedule: &Schedule,
    client: SocketAddr,
    turn: impl FnMut() -> u64,
    random: impl FnMut() -> u64,
    active: impl Fn(usize) -> u64,
    tried: impl Fn(usize) -> bool,
) -> Option<usize> {
    let standing = |p| if tried(p) { Availability::Tried } else { Availability::Open };
    match schedule.pick(client, turn, random, active, standing) {
        Selection::At(position) => Some(position),
        Selection::Nothing => None,
        Selection::Full => panic!("nothing is full"),
    }
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
    let backend = |(i, spec): (usize, &BackendSpec)| Backend {
        name: name(i),
        spec: spec.clone(),
        admin_state: AdminState::Enabled,
        revision: 1,
    };
    specs.iter().enumerate().map(backend).collect()
}

fn build(spec: &PoolSpec, specs: &[BackendSpec], verdicts: &[Verdict]) -> Schedule {
    rebuild(spec, specs, verdicts, None)
}

fn rebuild(
    spec: &PoolSpec,
    specs: &[BackendSpec],
    verdicts: &[Verdict],
    before: Option<&Schedule>,
) -> Schedule {
    let backends = named(specs);
    let candidates = backends.iter().zip(verdicts).map(|(b, verdict)| Candidate::new(b, *verdict));
    Schedule::build(spec, candidates, before)
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
    (0..count).map(|t| pick(schedule, NOBODY, || t, || 0, |_| 0, |_| false).unwrap()).collect()
}

fn letters(schedule: &Schedule, count: u64) -> String {
    turns(schedule, count).iter().map(|p| char::from(b'a' + *p as u8)).collect()
}

/// Picks with connections that stay open; returns how many each backend has.
fn fill(schedule: &Schedule, backends: usize, connections: u64) -> Vec<u64> {
    let active = RefCell::new(vec![0u64; backends]);
    let mut random = random(connections);
    for t in 0..connections {
        let picked = pick(schedule, NOBODY, || t, &mut random, |p| active.borrow()[p], |_| false).unwrap();
        active.borrow_mut()[picked] += 1;
    }
    active.into_inner()
}

/// The backends that a connection tries when each fails.
fn order(schedule: &Schedule) -> Vec<usize> {
    let mut tried = Vec::new();
    let (mut turns, mut random) = (0.., random(1));
    let mut next = || turns.next().unwrap();
    while let Some(p) = pick(schedule, NOBODY, &mut next, &mut random, |_| 0, |p| tried.contains(&p)) {
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
            assert_eq!(pick(&empty, NOBODY, || 0, || 0, |_| 0, |_| false), None);
        }
    }
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
        let first = pick(&schedule, NOBODY, || turn, || 0, |_| 0, |_| false).unwrap();
        let mut again = || pick(&schedule, NOBODY, &mut retries, || 0, |_| 0, |p| p == 0).unwrap();
        let taken = if first == 0 { again() } else { first };
        counts[taken] += 1;
    }
    assert_eq!(counts, [0, 1000, 1000, 1000]);
}

#[test]
fn least_connections_evens_out_what_is_open() {
    let schedule = schedule(Algorithm::LeastConnections, &[1, 1, 1]);
    let open = [5, 2, 9];
    assert_eq!(pick(&schedule, NOBODY, || 0, || 0, |p| open[p], |_| false), Some(1));
    assert_eq!(pick(&schedule, NOBODY, || 0, || 0, |p| open[p], |p| p == 1), Some(0));
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
            counts[pick(&schedule, NOBODY, || t, || 0, |_| 0, |_| false).unwrap()] += 1;
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

/// Shares of two backends of these weights, the first as warm as given, over a whole cycle of turns.
fn warm_share(algorithm: Algorithm, weights: [u16; 2], ramp: SlowStartRamp) -> f64 {
    let backends = named(&weights.map(backend));
    let warm = |b| Candidate { ramp, ..Candidate::new(b, Verdict::Healthy) };
    let candidates = [warm(&backends[0]), Candidate::new(&backends[1], Verdict::Healthy)];
    let schedule = Schedule::build(&pool(algorithm), candidates, None);
    let cycle = 20 * u64::from(weights[0] + weights[1]);
    let open = fill(&schedule, 2, cycle);
    open[0] as f64 / cycle as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_share_grows_step_by_step_from_a_twentieth(weights in [1u16..=256, 1u16..=256]) {
        let whole = std::time::Duration::from_secs(20);
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let mut before = 0.0;
            for step in 1..=20u16 {
                let (ramp, _) = SlowStartRamp::at(std::time::Duration::from_secs(u64::from(step) - 1), whole);
                let share = warm_share(algorithm, weights, ramp);
                let parts = f64::from(weights[0]) * f64::from(step) / 20.0;
                let due = parts / (parts + f64::from(weights[1]));
                prop_assert!(share >= before && (share - due).abs() < 0.03, "{algorithm:?} {step}: {share}, not {due}");
                before = share;
            }
        }
    }
}

#[test]
fn of_thousands_the_least_loaded_nearby_is_taken_and_all_are_used() {
    const BACKENDS: usize = 5_000;
    let open = fill(&schedule(Algorithm::LeastConnections, &[1; BACKENDS]), BACKENDS, 20 * BACKENDS as u64);
    let (least, most) = (open.iter().min().unwrap(), open.iter().max().unwrap());
    assert!(*least >= 19 && *most <= 21, "{least} to {most}");
}

proptest! {
    // Each case fills tables, which takes long without optimisation.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn weights_hold_within_one_percent_over_many_clients(weights in weights(), seed in any::<u64>()) {
        // The most that a share can stray by chance is 0.16 % (one standard deviation), so 1 % is six of them.
        const LOOK: u32 = 100_000;
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for algorithm in [Algorithm::RandomTwo, Algorithm::SourceHash, Algorithm::SourcePortHash] {
            let schedule = schedule(algorithm, &weights);
            let mut random = random(seed);
            let mut counts = vec![0u64; weights.len()];
            for c in 0..LOOK {
                let mut from = client((seed as u32 & 0x00ff_0000) + c);
                if algorithm == Algorithm::SourcePortHash {
                    // Few clients with many connections.
                    from = client(c >> 15);
                    from.set_port(c as u16 & 0x7fff);
                }
                counts[pick(&schedule, from, || 0, &mut random, |_| 0, |_| false).unwrap()] += 1;
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
    let drawn = |draws: [u64; 2], open: [u64; 2]| {
        let mut draws = draws.into_iter();
        pick(&schedule, NOBODY, || 0, || draws.next().unwrap(), |p| open[p], |_| false).unwrap()
    };
    assert_eq!(drawn([0, 1], [5, 4]), 1);
    assert_eq!(drawn([1, 0], [4, 5]), 0);
    assert_eq!(drawn([0, 1], [4, 4]), 0);
    assert_eq!(drawn([1, 0], [4, 4]), 1);
    assert_eq!(drawn([0, 0], [9, 0]), 0);
}
