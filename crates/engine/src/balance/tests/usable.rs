//! Which backends may be picked at all.

use super::*;

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
fn a_pool_that_closes_for_a_primary_leads_nobody_to_a_backup_beside_one() {
    let mut specs = [backend(1), backend(1), backend(1)];
    specs[2].backup = true;
    let keep = pool(Algorithm::RoundRobin);
    let close = PoolSpec { on_primary_up: OnPrimaryUp::Close, ..keep.clone() };
    use Verdict::{Healthy, Unhealthy, Unknown};
    let picked = |spec: &PoolSpec, verdicts: [Verdict; 3]| {
        let schedule = build(spec, &specs, &verdicts);
        let backends = named(&specs);
        let candidates = backends.iter().zip(verdicts).map(|(b, verdict)| Candidate::new(b, verdict));
        let mut places = order(&schedule);
        places.sort_unstable();
        (places, Schedule::leads_to_primaries(spec, candidates))
    };
    for (verdicts, beside, alone) in [
        ([Healthy, Healthy, Healthy], vec![0, 1, 2], vec![0, 1]),
        ([Unhealthy, Unknown, Healthy], vec![1, 2], vec![1]),
    ] {
        assert_eq!(picked(&keep, verdicts), (beside, true));
        assert_eq!(picked(&close, verdicts), (alone.clone(), true));
        // Neither by what is remembered of a client.
        let schedule = build(&close, &specs, &verdicts);
        assert!((0..3).all(|position| schedule.admits(position) == alone.contains(&position)));
    }
    for spec in [&keep, &close] {
        assert_eq!(picked(spec, [Unhealthy, Unhealthy, Healthy]), (vec![2], false));
        let two = PoolSpec { minimum_healthy: 2, ..spec.clone() };
        assert_eq!(picked(&two, [Healthy, Unhealthy, Unhealthy]), (vec![], false), "a pool that is down");
        let open = PoolSpec { all_down: AllDown::FailOpen, ..two };
        assert_eq!(picked(&open, [Unhealthy, Unhealthy, Healthy]), (vec![0, 1, 2], false));
    }
}

#[test]
fn what_an_operator_took_out_is_no_usable_primary() {
    let mut backends = named(&[backend(1), BackendSpec { backup: true, ..backend(1) }]);
    let leads = |backends: &[Backend]| {
        let candidates = backends.iter().map(|b| Candidate::new(b, Verdict::Healthy));
        Schedule::leads_to_primaries(&pool(Algorithm::RoundRobin), candidates)
    };
    assert!(leads(&backends));
    for (weight, state) in
        [(0, AdminState::Enabled), (1, AdminState::Disabled), (1, AdminState::Draining { timeout: None })]
    {
        (backends[0].spec.weight, backends[0].admin_state) = (weight, state);
        assert!(!leads(&backends), "{backends:?}");
    }
}

#[test]
fn a_pool_is_down_with_fewer_usable_backends_than_it_wants() {
    use Verdict::{Healthy, Unhealthy, Unknown};
    let mut specs = [backend(1), backend(1), backend(1)];
    specs[2].backup = true;
    let two = PoolSpec { minimum_healthy: 2, ..pool(Algorithm::RoundRobin) };
    let usable = |spec: &PoolSpec, verdicts: [Verdict; 3]| order(&build(spec, &specs, &verdicts));
    assert_eq!(usable(&two, [Unknown; 3]), [0, 1, 2]);
    assert!(usable(&two, [Healthy, Unhealthy, Unhealthy]).is_empty());
    assert_eq!(usable(&two, [Healthy, Unhealthy, Healthy]), [0, 2], "a backup counts too");
    let open = PoolSpec { all_down: AllDown::FailOpen, ..two };
    let all = usable(&open, [Healthy, Unhealthy, Unhealthy]);
    assert!(all == [0, 1, 2] || all == [1, 0, 2], "{all:?}");
}

#[test]
fn what_is_full_is_waited_for_and_what_was_tried_is_not() {
    let mut specs = [backend(1), backend(1), backend(1)];
    specs[2].backup = true;
    use Availability::{Full, Open, Tried};
    for algorithm in ALL {
        let schedule = build(&pool(algorithm), &specs, &[Verdict::Healthy; 3]);
        let pick = |standing: [Availability; 3]| schedule.pick(NOBODY, || 0, || 0, |_| 0, |p| standing[p]);
        assert_eq!(pick([Full, Open, Open]), Selection::At(1), "{algorithm:?}");
        assert_eq!(pick([Full, Full, Open]), Selection::Full, "{algorithm:?}");
        assert_eq!(pick([Tried, Full, Open]), Selection::Full, "{algorithm:?}");
        assert_eq!(pick([Tried, Tried, Open]), Selection::At(2), "{algorithm:?}");
        assert_eq!(pick([Tried, Tried, Full]), Selection::Full, "{algorithm:?}");
        assert_eq!(pick([Tried, Tried, Tried]), Selection::Nothing, "{algorithm:?}");
    }
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
    specs[2].weight = 0;
    let mut backends = named(&specs);
    backends[1].admin_state = AdminState::Disabled;
    let candidates = backends.iter().map(|b| Candidate::new(b, Unhealthy));
    let schedule = Schedule::build(&open, candidates, None);
    assert_eq!(order(&schedule), [0], "what an operator took out stays out");
}

proptest! {
    // Each case fills tables, which takes long without optimisation.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn only_what_is_usable_and_open_is_picked_best_tier_first(
        parts in prop::collection::vec((0u16..4, any::<bool>(), 0u8..3, 0u8..3, 0u8..4), 0..30),
        algorithm in prop::sample::select(&ALL[..]), open in any::<bool>(), minimum in 1u32..8,
        turn in any::<u64>(), tried_mask in any::<u32>(), full_mask in any::<u32>(), from in any::<u32>(),
    ) {
        let (specs, rest): (Vec<_>, Vec<(Verdict, bool)>) = parts.iter().map(|(weight, backup, admin, verdict, resolved)| {
            let admin_state = match admin {
                0 => AdminState::Enabled,
                1 => AdminState::Draining { timeout: None },
                _ => AdminState::Disabled,
            };
            let verdict = match verdict { 0 => Verdict::Unknown, 1 => Verdict::Healthy, _ => Verdict::Unhealthy };
            let spec = BackendSpec { backup: *backup, ..backend(*weight) };
            ((spec, admin_state), (verdict, *resolved > 0))
        }).unzip();
        let (specs, states): (Vec<BackendSpec>, Vec<AdminState>) = specs.into_iter().unzip();
        let all_down = if open { AllDown::FailOpen } else { AllDown::Refuse };
        let spec = PoolSpec { all_down, minimum_healthy: minimum, ..pool(algorithm) };
        let mut backends = named(&specs);
        backends.iter_mut().zip(&states).for_each(|(backend, state)| backend.admin_state = *state);
        let candidates = backends.iter().zip(&rest)
            .map(|(b, (verdict, resolved))| Candidate { resolved: *resolved, ..Candidate::new(b, *verdict) });
        let schedule = Schedule::build(&spec, candidates, None);

        let wanted = |i: &usize| states[*i] == AdminState::Enabled && specs[*i].weight > 0 && rest[*i].1;
        let up = |i: &usize| rest[*i].0 != Verdict::Unhealthy;
        let down = (0..specs.len()).filter(|i| wanted(i) && up(i)).count() < minimum as usize;
        let usable = |i: &usize| wanted(i) && if down { open } else { up(i) };
        let rank = |i: usize| (specs[i].backup, !down && rest[i].0 != Verdict::Healthy);
        let standing = |p: usize| match (tried_mask >> p & 1, full_mask >> p & 1) {
            (1, _) => Availability::Tried,
            (_, 1) => Availability::Full,
            _ => Availability::Open,
        };
        let untried: Vec<usize> = (0..specs.len()).filter(|i| usable(i) && standing(*i) != Availability::Tried).collect();
        let best = untried.iter().map(|i| rank(*i)).min();
        let left: Vec<usize> =
            untried.into_iter().filter(|i| Some(rank(*i)) == best && standing(*i) == Availability::Open).collect();
        match schedule.pick(client(from & 0xff_ffff), || turn, random(turn), |_| 0, standing) {
            Selection::Nothing => prop_assert_eq!(best, None),
            Selection::Full => prop_assert!(best.is_some() && left.is_empty()),
            Selection::At(p) if algorithm == Algorithm::First => prop_assert_eq!(Some(&p), left.first()),
            Selection::At(p) => prop_assert!(left.contains(&p)),
        }
        prop_assert_eq!(schedule.is_usable(), (0..specs.len()).any(|i| usable(&i)));
        prop_assert!((0..specs.len()).all(|i| schedule.admits(i) == usable(&i)));
    }
}
