//! The worlds that are searched, and the mistakes that are put back. What a search has found is in README.md.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use super::cluster::{Bug, World};
use super::step::{MOVED, ONE, SERVED, Step, TAKEN_BACK, TAKEN_OVER};

/// Two terms, and nothing goes wrong but messages and pauses. One tick of drift fits between the lease and the refusal.
const QUIET: World = World {
    lease: 2,
    fence_error: 0,
    refusal: 3,
    quarantine: 4,
    terms: 2,
    restarts: 0,
    drift: 0,
    moves: 0,
    raw_transfers: 0,
    stands_again: false,
    voters_remember: false,
    slow_answers: false,
    split_news: false,
    hold: false,
    bug: None,
};

/// Searches the whole world: nowhere do two members serve, and each of `reached` comes about somewhere.
fn holds(world: World, reached: &[&'static str]) {
    let checker = world.checker().spawn_bfs().join();
    println!(
        "{} states, {} steps, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    assert!(checker.is_done());
    checker.assert_no_discovery(ONE);
    for name in reached {
        checker.assert_any_discovery(name);
    }
}

/// Searches until two members serve the VIP, and says how it came to that.
fn fails(world: World) -> Vec<Step> {
    let found = HasDiscoveries::AnyOf(BTreeSet::from([ONE]));
    let checker = world.checker().finish_when(found).spawn_bfs().join();
    let steps = checker.assert_any_discovery(ONE).into_actions();
    println!("{} states until {steps:?}", checker.unique_state_count());
    steps
}

#[test]
fn one_holder_while_clocks_drift() {
    holds(World { drift: 1, ..QUIET }, &[SERVED, TAKEN_OVER]);
}

#[test]
fn one_holder_across_a_restart() {
    holds(World { restarts: 1, ..QUIET }, &[SERVED, TAKEN_OVER]);
}

#[test]
fn one_holder_across_a_planned_move() {
    holds(World { moves: 1, ..QUIET }, &[SERVED, MOVED, TAKEN_OVER]);
}

#[test]
fn one_holder_when_a_move_is_taken_back() {
    holds(World { moves: 1, stands_again: true, ..QUIET }, &[SERVED, MOVED, TAKEN_BACK, TAKEN_OVER]);
}

/// A successor that is late finds that the old holder serves again.
#[test]
#[ignore = "takes minutes"]
fn one_holder_when_a_move_is_taken_back_and_somebody_stands_after_that() {
    let world = World { terms: 3, moves: 1, stands_again: true, ..QUIET };
    holds(world, &[SERVED, MOVED, TAKEN_BACK, TAKEN_OVER]);
}

/// The kernel ends the fence a tick late, and answers take their time.
#[test]
#[ignore = "takes a minute or more"]
fn one_holder_while_the_fence_is_late_and_answers_are_slow() {
    let late = World { fence_error: 1, refusal: 4, quarantine: 5, slow_answers: true, drift: 1, ..QUIET };
    holds(late, &[SERVED, TAKEN_OVER]);
}

#[test]
#[ignore = "takes a minute or more"]
fn one_holder_in_three_terms() {
    holds(World { terms: 3, ..QUIET }, &[SERVED, TAKEN_OVER]);
}

#[test]
#[ignore = "takes a quarter of an hour or more"]
fn one_holder_while_everything_happens() {
    holds(World { drift: 1, restarts: 1, moves: 1, ..QUIET }, &[SERVED, MOVED, TAKEN_OVER]);
}

#[test]
#[ignore = "takes minutes"]
fn one_holder_while_news_of_raft_come_apart() {
    holds(World { terms: 3, split_news: true, ..QUIET }, &[SERVED, TAKEN_OVER]);
}

/// Not needed while every transfer begins with a release; it shows that the wait after a transfer is long enough.
#[test]
#[ignore = "takes a minute or more"]
fn a_transfer_without_a_release_is_waited_out_if_voters_remember() {
    holds(World { raw_transfers: 1, voters_remember: true, ..QUIET }, &[SERVED, TAKEN_OVER]);
}

#[test]
fn without_quarantine_a_restart_makes_two_holders() {
    let steps = fails(World { restarts: 1, quarantine: 0, ..QUIET });
    assert!(steps.iter().any(|step| matches!(step, Step::Restart(_))));
}

#[test]
fn a_leader_that_serves_because_it_leads_is_a_second_holder() {
    fails(World { bug: Some(Bug::ServeWhileLeader), ..QUIET });
}

#[test]
fn a_lease_that_counts_from_the_answer_is_too_long() {
    fails(World { slow_answers: true, bug: Some(Bug::LeaseFromAnswer), ..QUIET });
}

#[test]
fn without_a_release_on_record_a_transfer_must_be_waited_out() {
    let world = World { raw_transfers: 1, voters_remember: true, ..QUIET };
    let steps = fails(World { bug: Some(Bug::TransferUnseen), ..world });
    assert!(steps.iter().any(|step| matches!(step, Step::RawTransfer(..))));
}

#[test]
fn a_transfer_that_the_machine_did_not_ask_for_voids_promises() {
    let steps = fails(World { raw_transfers: 1, ..QUIET });
    assert!(steps.iter().any(|step| matches!(step, Step::RawTransfer(..))));
}

/// No mistake but a choice, and what it costs.
#[test]
fn with_hold_two_holders_are_possible() {
    fails(World { hold: true, ..QUIET });
}

#[test]
fn without_a_fence_a_pause_makes_two_holders() {
    fails(World { bug: Some(Bug::FenceStays), ..QUIET });
}

#[test]
fn a_fence_armed_after_a_pause_with_what_was_left_before_it_stays_open_too_long() {
    let steps = fails(World { bug: Some(Bug::ArmedLate), ..QUIET });
    assert!(steps.iter().any(|step| matches!(step, Step::Arm(_))));
}

#[test]
fn more_drift_than_fits_makes_two_holders() {
    fails(World { drift: 2, ..QUIET });
}

#[test]
#[ignore = "takes a minute or more"]
fn a_deposed_leader_that_votes_while_its_fence_is_open_makes_two_holders() {
    fails(World { terms: 3, bug: Some(Bug::VoteWhileOpen), ..QUIET });
}

#[test]
#[ignore = "takes minutes"]
fn a_machine_that_forgets_a_vote_may_serve_by_an_older_answer() {
    fails(World { terms: 3, split_news: true, bug: Some(Bug::VoteForgotten), ..QUIET });
}

/// What the search for a deposed leader finds, step by step: a stale candidate's term deposes the holder, which then votes for it. The
/// same steps end at the vote when the machine is asked.
#[test]
fn a_holder_does_not_vote() {
    let beat = |leader, voter| Step::Beat { leader, voter, heard: true };
    let pause = [Step::Time(None); 3];
    let vote = Step::Vote { voter: 0, candidate: 2 };
    let taken = [Step::Tell(0), beat(0, 2)];
    let deposed = [beat(0, 1), Step::Tell(0), Step::Stand(2), beat(0, 2), Step::Stand(2)];
    let until_vote: Vec<Step> = [&taken[..], &pause, &deposed].concat();
    let served = [vote, beat(2, 1), Step::Tell(2), beat(2, 1), Step::Tell(2)];
    let run = |world: &World, steps: &[Step]| {
        steps.iter().try_fold(world.start(), |state, step| world.next_state(&state, *step))
    };
    let careless = World { terms: 3, bug: Some(Bug::VoteWhileOpen), ..QUIET };
    let end = run(&careless, &[&until_vote[..], &served].concat()).unwrap();
    assert_eq!(end.nodes.iter().filter(|node| node.serves()).count(), 2);

    let careful = World { bug: None, ..careless };
    let at_vote = run(&careful, &until_vote).unwrap();
    assert!(at_vote.nodes[0].serves() && careful.next_state(&at_vote, vote).is_none());
    let later = [Step::Time(None), Step::Time(None), vote];
    assert!(run(&careful, &[&until_vote[..], &later].concat()).is_some());
}
