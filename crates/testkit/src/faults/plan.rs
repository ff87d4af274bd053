//! A plan of faults from a seed.

use std::time::Duration;

use super::{Episode, FaultKind, FaultTarget, PlannedFault};

/// What a plan may take from: each kind as often as it is here, so that what is there twice comes twice as often.
#[derive(Debug, Clone)]
pub struct Menu {
    /// The kinds.
    pub kinds: Vec<FaultKind>,
    /// How many members there are.
    pub members: usize,
}

/// Faults at once, at most.
const AT_ONCE_MAX: usize = 3;

/// Range of what a fault lasts, in milliseconds: from less than a lease to several elections.
const LASTS: (u64, u64) = (100, 6_000);

/// Range of the time from one fault of an episode to the next, in milliseconds.
const APART: (u64, u64) = (0, 2_500);

/// As many episodes as are asked for. The same seed gives the same ones, and more of them begin alike.
///
/// # Panics
/// When the menu is empty.
pub fn plan(seed: u64, menu: &Menu, episodes: usize) -> Vec<Episode> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..episodes).map(|_| episode(&mut random, menu)).collect()
}

/// Each of its faults concerns another member, so that none is killed and frozen at once; who makes a fault of the holder takes the next
/// member where the holder has one already. Faults may take out a majority: then nobody serves until they end, and nothing may be
/// lost. Disks are lost of a minority only.
fn episode(random: &mut fastrand::Rng, menu: &Menu) -> Episode {
    let (mut faults, mut at) = (Vec::<PlannedFault>::new(), 0);
    // One alone is as frequent as several: what several do hides what one does.
    let most = if random.bool() { 1 } else { random.usize(2..=AT_ONCE_MAX) };
    for number in 0..most {
        if number > 0 {
            at += random.u64(APART.0..=APART.1);
        }
        let kind = menu.kinds[random.usize(..menu.kinds.len())];
        let lasts = random.u64(LASTS.0..=LASTS.1);
        let member = random.usize(..menu.members);
        let of_holder = random.bool();
        let target = if of_holder { FaultTarget::Holder } else { FaultTarget::Member(member) };
        let fault =
            PlannedFault { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), kind, target };
        if is_allowed(&faults, &fault, menu.members) {
            faults.push(fault);
        }
    }
    Episode { faults }
}

fn is_allowed(faults: &[PlannedFault], new: &PlannedFault, members: usize) -> bool {
    let disks = faults.iter().chain([new]).filter(|fault| fault.kind.loses_its_disk()).count();
    let same_kind = faults.iter().any(|fault| fault.kind.name() == new.kind.name());
    // All are killed, whoever is named; what else has been done to them would be undone by their start.
    let alone = |kind| kind == FaultKind::KillAll;
    let with_all = !faults.is_empty() && (alone(new.kind) || faults.iter().any(|fault| alone(fault.kind)));
    let met = |fault: &PlannedFault| fault.target == new.target && new.target != FaultTarget::Holder;
    disks <= (members - 1) / 2 && faults.len() < members && !same_kind && !with_all && !faults.iter().any(met)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn menu() -> Menu {
        let kinds = vec![
            FaultKind::Kill,
            FaultKind::Pause,
            FaultKind::CutOff,
            FaultKind::Loss(20),
            FaultKind::PutBack,
            FaultKind::KillAll,
            FaultKind::Move,
        ];
        Menu { kinds, members: 3 }
    }

    #[test]
    fn a_plan_follows_from_its_seed_and_longer_ones_begin_alike() {
        for seed in 0..100 {
            let long = plan(seed, &menu(), 12);
            assert_eq!(long, plan(seed, &menu(), 12));
            assert_eq!(long[..5], plan(seed, &menu(), 5));
        }
        let different: BTreeSet<String> =
            (0..100).map(|seed| format!("{:?}", plan(seed, &menu(), 12))).collect();
        assert_eq!(different.len(), 100);
    }

    #[test]
    fn disks_of_a_minority_are_lost_at_once() {
        for (members, most) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            // Of one kind there is one at a time, so two are told apart here by hand.
            let lost = |number| PlannedFault {
                at: Duration::ZERO,
                lasts: Duration::ZERO,
                kind: FaultKind::PutBack,
                target: FaultTarget::Member(number),
            };
            let kill = PlannedFault { kind: FaultKind::Kill, ..lost(0) };
            assert!(is_allowed(&[], &kill, members));
            assert_eq!(is_allowed(&[], &lost(0), members), most >= 1, "{members}");
        }
        for seed in 0..1000 {
            for episode in plan(seed, &menu(), 4) {
                let lost = episode.faults.iter().filter(|fault| fault.kind.loses_its_disk()).count();
                assert!(lost <= 1, "seed {seed}: {episode:?}");
            }
        }
    }

    #[test]
    fn every_kind_comes_alone_and_with_others_and_no_member_has_two() {
        let mut seen: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for seed in 0..500 {
            for episode in plan(seed, &menu(), 4) {
                let targets: Vec<_> = episode.faults.iter().map(|fault| fault.target).collect();
                for (number, fault) in episode.faults.iter().enumerate() {
                    seen.entry(fault.kind.name()).or_default().insert(episode.faults.len());
                    let is_named = fault.target != FaultTarget::Holder;
                    assert!(!is_named || !targets[..number].contains(&fault.target), "{seed}: {episode:?}");
                    assert!(fault.lasts >= Duration::from_millis(100), "seed {seed}: {episode:?}");
                    assert!(number == 0 || episode.faults[number - 1].at <= fault.at);
                }
                assert!(!episode.faults.is_empty(), "seed {seed}");
            }
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
        for (kind, sizes) in &seen {
            let expected = if *kind == "kill of all" { 1..=1 } else { 1..=3 };
            assert_eq!(*sizes, expected.collect(), "{kind}");
        }
    }
}
