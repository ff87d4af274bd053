#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn shares(weights: &[u16]) -> Shares {
    let name = |i: usize| BackendName::parse(&format!("node-{i:05}")).unwrap();
    weights.iter().enumerate().map(|(i, w)| (name(i), *w)).collect()
}

/// The name behind each entry.
fn owners(table: &Maglev) -> Vec<&str> {
    table.entries.iter().map(|i| table.shares[usize::from(*i)].0.as_str()).collect()
}

fn counts(table: &Maglev) -> Vec<u32> {
    let mut counts = vec![0; table.shares.len()];
    table.entries.iter().for_each(|i| counts[usize::from(*i)] += 1);
    counts
}

/// Entries that change hands when `gone` leaves, as a multiple of those that it had, which is the least possible.
fn moved(full: &Maglev, gone: usize) -> f64 {
    let mut left = full.shares.clone();
    left.remove(gone);
    let left = Maglev::build(left);
    let moved = owners(full).iter().zip(owners(&left)).filter(|(before, after)| *before != after).count();
    moved as f64 / f64::from(counts(full)[gone])
}

#[test]
fn equal_backends_differ_by_one_entry_at_most() {
    for backends in [1, 2, 3, 7, 100, 1000, 20_000] {
        let counts = counts(&Maglev::build(shares(&vec![5; backends])));
        assert_eq!(counts.iter().sum::<u32>(), SIZE);
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{backends} backends");
    }
}

#[test]
fn a_table_is_the_same_in_every_version() {
    // Values of the first release. When they change, clients move, and members of two versions disagree.
    let table = Maglev::build(shares(&[1, 2, 3]));
    let digest = table.entries.iter().fold(0u64, |d, i| d.wrapping_mul(31).wrapping_add(u64::from(*i)));
    assert_eq!(table.entries[..12], [2, 1, 2, 1, 1, 1, 1, 2, 2, 2, 0, 1]);
    assert_eq!(digest, 1_552_761_180_261_339_437);
}

#[test]
fn when_one_of_many_leaves_few_others_move() {
    for backends in [3, 10, 100] {
        let full = Maglev::build(shares(&vec![1; backends]));
        let worst = (0..backends.min(10)).map(|gone| moved(&full, gone)).fold(0.0, f64::max);
        assert!(worst <= 1.5, "{worst} times the minimum when one of {backends} leaves");
    }
}

#[test]
fn nothing_to_own_is_an_empty_table() {
    assert_eq!(Maglev::build(Shares::new()).owners(7).count(), 0);
    assert_eq!(Maglev::build(shares(&[0, 0])).owners(7).count(), 0);
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(1u16..=256, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn entries_follow_weights(weights in weights()) {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (count, weight) in counts(&Maglev::build(shares(&weights))).iter().zip(&weights) {
            let share = f64::from(SIZE) * f64::from(*weight) / total as f64;
            prop_assert!((f64::from(*count) - share).abs() <= 2.0, "{count} entries for {share}");
        }
    }

    #[test]
    fn the_order_of_insertion_does_not_matter(
        (sorted, mixed) in weights().prop_map(|w| shares(&w))
            .prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
    ) {
        let (sorted, mixed) = (Maglev::build(sorted), Maglev::build(mixed));
        prop_assert_eq!(owners(&sorted), owners(&mixed));
    }

    #[test]
    fn weights_do_not_make_more_move(weights in prop::collection::vec(1u16..=256, 2..20), gone: prop::sample::Index) {
        // Of one with few entries, the entries of the others that are rounded up or down weigh too much.
        let full = Maglev::build(shares(&weights));
        let gone = gone.index(weights.len());
        prop_assume!(counts(&full)[gone] >= 655);
        let moved = moved(&full, gone);
        prop_assert!(moved <= 1.5, "{moved}");
    }
}
