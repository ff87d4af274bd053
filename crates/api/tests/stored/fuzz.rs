//! What holds for every record of the log and every snapshot, whatever is in it: it is read or refused, what was read is read
//! again as it is written, and a state that was read takes every entry.

use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use trestle_api::storage;
use trestle_fuzz::{FuzzTarget, fuzz, gist};
use trestle_model::{Machine, Proposal};

use crate::strategies::{fitting, proposal};

/// Values of a strategy, always the same ones.
fn drawn<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Proposals that fit one another, and some that do not.
fn proposals() -> Vec<Proposal> {
    let fitting = drawn(fitting(), 40).into_iter();
    let fitting = fitting.map(|command| Proposal { origin: None, request: None, command });
    fitting.chain(drawn(proposal(), 40)).collect()
}

fn stored(machine: &Machine) -> Vec<u8> {
    storage::Machine::from(machine).encode_to_vec()
}

fn read(bytes: &[u8]) -> Result<Machine, String> {
    let message = storage::Machine::decode(bytes).map_err(|error| error.to_string())?;
    Machine::try_from(message).map_err(|error| error.to_string())
}

/// Reads a record of the log. What was read is written and read as the same, and a state applies it the same way twice.
fn proposal_outcome(bytes: &[u8], machine: &Machine) -> String {
    let message = match storage::Proposal::decode(bytes) {
        Ok(message) => message,
        Err(error) => return gist(&error),
    };
    match Proposal::try_from(message) {
        Err(error) => gist(&error),
        Ok(proposal) => {
            let again = storage::Proposal::from(&proposal).encode_to_vec();
            let again = storage::Proposal::decode(&again[..]).unwrap();
            assert_eq!(Proposal::try_from(again).as_ref(), Ok(&proposal));
            let (mut one, mut other) = (machine.clone(), machine.clone());
            let outcomes = (one.apply(1000, &proposal), other.apply(1000, &proposal));
            assert_eq!(outcomes.0, outcomes.1);
            assert_eq!(one, other);
            // What was applied can be kept: a snapshot of it is read back.
            assert_eq!(read(&stored(&one)).as_ref(), Ok(&one), "after {proposal:?}");
            outcomes.0.map_or_else(|refusal| gist(&refusal), |_| "applied".to_owned())
        }
    }
}

#[test]
fn fuzz_stored_proposal() {
    let proposals = proposals();
    let mut machine = Machine::default();
    for (index, proposal) in (1..).zip(&proposals) {
        let _applied_or_refused = machine.apply(index, proposal);
    }
    let seeds = proposals.iter().map(|proposal| storage::Proposal::from(proposal).encode_to_vec()).collect();
    let words: &[&[u8]] = &[
        b"web",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\x00",
        b"\x1a\x02\x08\x01",
        b"0.0.0.0:80",
    ];
    let target = FuzzTarget { name: "stored_proposal", seeds, words, len_max: 600, repair: None };
    let summary = fuzz(&target, |bytes| proposal_outcome(bytes, &machine));
    assert!(summary.outcomes > 25, "{summary:?}");
}

/// Reads a snapshot. What was read is written and read as the same, and takes entries without a panic.
fn machine_outcome(bytes: &[u8], proposals: &[Proposal]) -> String {
    match read(bytes) {
        Err(error) => gist(&error),
        Ok(machine) => {
            assert_eq!(read(&stored(&machine)).as_ref(), Ok(&machine));
            let mut later = machine.clone();
            let index = machine.state.revision + 1;
            for (index, proposal) in (index..).zip(proposals) {
                let _applied_or_refused = later.apply(index, proposal);
            }
            format!("{} pools", machine.state.pools.len().min(3))
        }
    }
}

#[test]
fn fuzz_stored_machine() {
    let proposals = proposals();
    let mut machine = Machine::default();
    let mut seeds = vec![stored(&machine)];
    for (index, proposal) in (1..).zip(&proposals) {
        if machine.apply(index, proposal).is_ok() && seeds.len() < 12 {
            seeds.push(stored(&machine));
        }
    }
    let words: &[&[u8]] = &[b"web", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x12\x00"];
    let target = FuzzTarget { name: "stored_machine", seeds, words, len_max: 4000, repair: None };
    let summary = fuzz(&target, |bytes| machine_outcome(bytes, &proposals[..6]));
    assert!(summary.outcomes > 25, "{summary:?}");
}
