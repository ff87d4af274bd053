#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

fn target(seeds: &[&[u8]]) -> FuzzTarget<'static> {
    FuzzTarget {
        name: "tests",
        seeds: seeds.iter().map(|seed| seed.to_vec()).collect(),
        words: &[b"PUMP"],
        len_max: 64,
        repair: None,
    }
}

/// A fault behind three decisions, each of which has an outcome of its own.
fn deep(input: &[u8]) -> u8 {
    match input {
        [b'a', 0xe2, b'C', b'e', ..] => panic!("found"),
        [b'a', 0xe2, b'C', ..] => 3,
        [b'a', 0xe2, ..] => 2,
        [b'a', ..] => 1,
        _ => 0,
    }
}

#[test]
fn a_fault_behind_several_decisions_is_found() {
    let failed = catch_unwind(AssertUnwindSafe(|| fuzz(&target(&[b"abcdefgh"]), deep)));
    let message = *failed.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(message, "found");
}

/// Without outcomes to go by, the same number of inputs does not get there: they are what leads the search.
#[test]
fn outcomes_lead_the_search() {
    let blind = |input: &[u8]| {
        deep(input);
    };
    assert_eq!(fuzz(&target(&[b"abcdefgh"]), blind).outcomes, 1);
}

#[test]
fn what_fails_is_made_smaller() {
    let fails = |input: &[u8]| assert!(!(input.contains(&b'x') && input.len() > 2), "too long with an x");
    let smaller = shrink::shrink(b"what is long and has an x somewhere", fails);
    assert_eq!((smaller.len(), smaller.iter().filter(|byte| **byte == b'x').count()), (3, 1));
}

#[test]
fn the_same_inputs_come_again() {
    let tried = || {
        let inputs = std::cell::RefCell::new(Vec::new());
        fuzz(&target(&[b"seed", b"other"]), |input| inputs.borrow_mut().push(input.to_vec()));
        inputs.into_inner()
    };
    let (first, second) = (tried(), tried());
    let same = first.len().min(second.len());
    assert!(same > 1000 && first[..same] == second[..same]);
    assert!(first.iter().any(|input| input.windows(4).any(|part| part == b"PUMP")));
    assert!(first.iter().all(|input| input.len() <= 64));
}
