use trestle_model::OnQuorumLoss;

use super::super::{OwnershipAction, OwnershipEvent, OwnershipState, ServedVip};
use super::bench::{Bench, ms, vip};

fn hold() -> ServedVip {
    ServedVip { on_quorum_loss: OnQuorumLoss::Hold, ..ServedVip::on("eth0", 24) }
}

#[test]
fn a_lease_that_ends_takes_the_vip_along_and_a_quorum_brings_it_back() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    assert_eq!(bench.pass(ms(279)).len(), 1, "an announcement");
    assert!(matches!(bench.pass(ms(1))[..], [OwnershipAction::Release { .. }]));
    assert_eq!(bench.machine.state(bench.now), OwnershipState::WithoutQuorum);
    assert!(matches!(bench.ack()[..], [OwnershipAction::Claim { .. }, OwnershipAction::Announce { .. }]));
}

#[test]
fn the_machine_asks_to_be_woken_when_the_lease_ends() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    bench.pass(ms(200));
    let woken = bench.machine.handle(OwnershipEvent::Tick, bench.now);
    assert_eq!(woken, [OwnershipAction::WakeAt(bench.now + ms(80))]);
}

#[test]
fn after_a_pause_the_fence_is_opened_anew_and_only_with_a_fresh_answer() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    bench.now += ms(60_000);
    let sent = bench.now - ms(59_900);
    assert!(matches!(
        bench.tell(OwnershipEvent::QuorumAcked { term: 1, sent })[..],
        [OwnershipAction::Release { .. }]
    ));
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    bench.now += ms(60_000);
    assert!(
        matches!(bench.ack()[..], [OwnershipAction::Claim { .. }, OwnershipAction::Announce { .. }]),
        "no mere renewal"
    );
}

#[test]
fn hold_goes_on_without_a_quorum_and_says_so() {
    let mut bench = Bench::serving(&[(vip(100), hold()), (vip(101), ServedVip::on("eth0", 24))]);
    for _ in 0..1000 {
        bench.pass(ms(10));
    }
    assert_eq!(bench.holds(), [vip(100)]);
    let facts = bench.machine.facts().next().unwrap();
    assert!(facts.without_quorum && facts.until > bench.now && facts.until <= bench.now + ms(280));
    bench.ack();
    assert_eq!(bench.holds(), [vip(100), vip(101)]);
    assert!(bench.machine.facts().all(|facts| !facts.without_quorum));
}

#[test]
fn hold_is_renewed_only_as_often_as_it_must_be() {
    let mut bench = Bench::serving(&[(vip(100), hold())]);
    bench.pass(ms(280 / 2));
    let renewals =
        (0..1000).flat_map(|_| bench.pass(ms(10))).filter(|a| matches!(a, OwnershipAction::Renew { .. }));
    assert!((60..=80).contains(&renewals.count()));
}

#[test]
fn a_fence_beyond_the_lease_goes_when_it_is_not_held_any_more() {
    let mut bench = Bench::serving(&[(vip(100), hold())]);
    bench.pass(ms(200));
    let lease_ends = bench.now + ms(80);
    let actions = bench.configure(&[(vip(100), ServedVip::on("eth0", 24))]);
    assert!(matches!(actions[0], OwnershipAction::Release { .. }));
    assert!(bench.machine.facts().all(|facts| facts.until == lease_ends));
    assert_eq!(bench.holds(), [vip(100)]);
}

#[test]
fn a_fence_that_has_shut_is_not_held_open() {
    let mut bench = Bench::serving(&[(vip(100), hold())]);
    assert!(matches!(bench.pass(ms(280))[..], [OwnershipAction::Release { .. }]));
    assert_eq!(bench.pass(ms(100)), []);
}

#[test]
fn hold_begins_nothing_and_ends_with_leadership() {
    let mut bench = Bench::with(&[(vip(100), hold())]);
    bench.lead(1);
    assert_eq!(bench.pass(ms(1000)), [], "never had a quorum");
    let mut bench = Bench::serving(&[(vip(100), hold())]);
    bench.pass(ms(200));
    bench.pass(ms(200));
    assert_eq!(bench.holds(), [vip(100)]);
    assert!(matches!(bench.tell(OwnershipEvent::Following)[..], [OwnershipAction::Release { .. }]));
}

#[test]
fn a_holder_votes_for_nobody_until_its_fence_has_shut() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    assert!(!bench.machine.may_vote(2, bench.now + ms(291)));
    assert!(bench.machine.may_vote(2, bench.now + ms(292)));
}

#[test]
fn a_vote_that_is_given_ends_the_right_to_serve() {
    for granted in [true, false] {
        let mut bench = Bench::plain();
        bench.lead(1);
        assert!(bench.machine.may_vote(2, bench.now));
        bench.ack();
        assert!(bench.holds().is_empty(), "not while it is open whether the vote is given");
        bench.machine.voted(2, granted);
        bench.ack();
        bench.pass(ms(1));
        assert_eq!(bench.holds().is_empty(), granted);
    }
}
