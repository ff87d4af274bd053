use trestle_model::MemberId;

use super::super::{
    Cause, Elected, Fault, MoveRefusal, OwnershipAction, OwnershipEvent, OwnershipState, ServedVip,
};
use super::bench::{Bench, ME, OTHER, THIRD, ms, vip};

fn eth0() -> [(std::net::IpAddr, ServedVip); 1] {
    [(vip(100), ServedVip::on("eth0", 24))]
}

fn transfer(to: MemberId) -> [OwnershipAction; 1] {
    [OwnershipAction::TransferLeadership { to }]
}

fn unannounced(mut actions: Vec<OwnershipAction>) -> Vec<OwnershipAction> {
    actions.retain(|action| !matches!(action, OwnershipAction::Announce { .. }));
    actions
}

/// What comes of an event once the last connections have had their time.
fn parts_after(bench: &mut Bench, event: OwnershipEvent) -> Vec<OwnershipAction> {
    let until = bench.now + ms(1000);
    assert_eq!(unannounced(bench.tell(event)), [OwnershipAction::Quiesce { until }]);
    assert_eq!(unannounced(bench.pass(ms(99))), []);
    bench.pass(ms(1))
}

#[test]
fn a_move_releases_then_records_then_transfers() {
    let mut bench = Bench::serving(&eth0());
    let actions = parts_after(&mut bench, OwnershipEvent::Move { to: Some(THIRD) });
    let record = OwnershipAction::ProposeRelease { term: 1, cause: Cause::Operator };
    assert!(
        matches!(&actions[..], [OwnershipAction::Release { .. }, last] if *last == record),
        "{actions:?}"
    );
    assert_eq!(bench.ack(), [], "no way back");
    assert_eq!(bench.pass(ms(100)), [record]);
    assert_eq!(bench.agree(1, ME, true), transfer(THIRD));
    assert_eq!(bench.ack(), []);
    assert_eq!(bench.tell(OwnershipEvent::Following), []);
    bench.lead(3);
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)], "the request was for that time");
}

#[test]
fn the_record_waits_for_the_kernel_or_for_the_fence_to_shut() {
    let mut bench = Bench::serving(&eth0());
    let records = |actions: Vec<OwnershipAction>| {
        actions.iter().any(|a| matches!(a, OwnershipAction::ProposeRelease { .. }))
    };
    // The kernel does not answer.
    assert!(!records(bench.machine.handle(OwnershipEvent::Move { to: None }, bench.now)));
    assert!(!records(bench.machine.handle(OwnershipEvent::Tick, bench.now + ms(100))));
    assert!(!records(bench.machine.handle(OwnershipEvent::Tick, bench.now + ms(291))));
    assert!(records(bench.machine.handle(OwnershipEvent::Tick, bench.now + ms(292))));
}

#[test]
fn a_transfer_that_does_not_come_about_is_tried_with_the_others() {
    let mut bench = Bench::serving(&eth0());
    parts_after(&mut bench, OwnershipEvent::Move { to: Some(THIRD) });
    assert_eq!(bench.agree(1, ME, true), transfer(THIRD));
    assert_eq!(bench.pass(ms(999)), []);
    assert_eq!(bench.pass(ms(1)), transfer(OTHER));
    assert_eq!(bench.pass(ms(1000)), transfer(THIRD), "and from the start");
}

#[test]
fn a_move_in_vain_is_taken_back_in_the_next_term() {
    let mut bench = Bench::serving(&eth0());
    parts_after(&mut bench, OwnershipEvent::Move { to: Some(THIRD) });
    assert_eq!(bench.agree(1, ME, true), transfer(THIRD));
    bench.tell(OwnershipEvent::Following);
    bench.tell(OwnershipEvent::Leading { term: 3, elected: Elected::ByTransfer });
    let tenure = Some(super::super::Tenure {
        member: ME,
        term: 1,
        reach: super::super::LeaseTiming::default().reach(),
        released: true,
    });
    let take = bench.tell(OwnershipEvent::Applied { term: 3, tenure });
    assert!(matches!(take[..], [OwnershipAction::ProposeTake { term: 3, .. }]), "at once: {take:?}");
    bench.tell(OwnershipEvent::QuorumAcked { term: 3, sent: bench.now });
    bench.agree(3, ME, false);
    assert_eq!(bench.holds(), [vip(100)]);
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)], "the request is not made up for later");
}

#[test]
fn for_a_fault_nobody_is_asked_again_who_has_just_not_taken_over() {
    let mut bench = Bench::serving(&eth0());
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    bench.tell(OwnershipEvent::Fault { fault: Fault::DataPlane, present: true });
    assert_eq!(bench.agree(1, ME, true), transfer(OTHER));
    bench.tell(OwnershipEvent::Following);
    bench.lead(3);
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)], "better than nobody");
    bench.pass(ms(1000));
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)]);
    bench.tell(OwnershipEvent::Targets(vec![OTHER, THIRD]));
    assert!(bench.holds().is_empty());
    assert_eq!(bench.agree(3, ME, true), transfer(THIRD));
    bench.tell(OwnershipEvent::Following);
    bench.lead(5);
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)]);
    bench.pass(ms(30_000));
    bench.ack();
    assert!(bench.holds().is_empty(), "after a while they may be able to");
}

#[test]
fn who_has_taken_over_and_handed_back_is_asked_as_before() {
    let mut bench = Bench::serving(&eth0());
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    parts_after(&mut bench, OwnershipEvent::Fault { fault: Fault::Check, present: true });
    assert_eq!(bench.agree(1, ME, true), transfer(OTHER));
    bench.tell(OwnershipEvent::Following);
    bench.agree(2, OTHER, false);
    bench.agree(2, OTHER, true);
    bench.lead(3);
    bench.ack();
    bench.pass(ms(100));
    assert!(bench.holds().is_empty());
}

#[test]
fn a_leader_without_a_tenure_takes_it_before_it_leaves() {
    let mut bench = Bench::plain();
    bench.tell(OwnershipEvent::Leading { term: 2, elected: Elected::ByTimeout });
    bench.tell(OwnershipEvent::Fault { fault: Fault::Draining, present: true });
    let take = bench.tell(OwnershipEvent::Applied { term: 2, tenure: None });
    assert!(matches!(take[..], [OwnershipAction::ProposeTake { term: 2, .. }]));
    bench.ack();
    let cause = Cause::Unfit(Fault::Draining);
    assert_eq!(
        bench.agree(2, ME, false),
        [OwnershipAction::ProposeRelease { term: 2, cause }],
        "without serving"
    );
    assert_eq!(bench.agree(2, ME, true), transfer(OTHER));
}

#[test]
fn without_vips_leadership_just_goes() {
    let mut bench = Bench::with(&[]);
    bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
    assert_eq!(bench.tell(OwnershipEvent::Move { to: Some(OTHER) }), transfer(OTHER));
}

#[test]
fn without_vips_only_a_drain_moves_leadership() {
    let mut bench = Bench::with(&[]);
    bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
    assert_eq!(bench.tell(OwnershipEvent::Fault { fault: Fault::DataPlane, present: true }), []);
    assert_eq!(bench.tell(OwnershipEvent::Fault { fault: Fault::Draining, present: true }), transfer(OTHER));
}

#[test]
fn an_unfit_leader_leaves_when_another_can_take_over() {
    for fault in [
        Fault::DataPlane,
        Fault::Interface(vip(100)),
        Fault::IsolatedFromBackends,
        Fault::Check,
        Fault::Draining,
    ] {
        let mut bench = Bench::serving(&eth0());
        bench.tell(OwnershipEvent::Targets(Vec::new()));
        bench.tell(OwnershipEvent::Fault { fault, present: true });
        assert_eq!(bench.holds(), [vip(100)], "better than nobody");
        bench.tell(OwnershipEvent::Targets(vec![ME, OTHER]));
        bench.pass(ms(100));
        assert!(bench.holds().is_empty());
        assert_eq!(bench.machine.state(bench.now), OwnershipState::Leaving { cause: Cause::Unfit(fault) });
    }
}

#[test]
fn what_is_not_served_any_more_is_let_go_of_at_once() {
    for fault in [Fault::Unable, Fault::DataPlane, Fault::Interface(vip(100))] {
        let mut bench = Bench::serving(&eth0());
        let actions = bench.tell(OwnershipEvent::Fault { fault, present: true });
        assert!(
            matches!(actions[..], [OwnershipAction::Release { .. }, OwnershipAction::ProposeRelease { .. }]),
            "{actions:?}"
        );
        // Also while there seemed to be time.
        let mut bench = Bench::serving(&eth0());
        bench.tell(OwnershipEvent::Fault { fault: Fault::Check, present: true });
        bench.tell(OwnershipEvent::Fault { fault, present: true });
        assert!(bench.holds().is_empty());
    }
}

#[test]
fn while_it_is_quiet_it_serves_on_and_may_think_better_of_it() {
    let mut bench = Bench::serving(&eth0());
    bench.tell(OwnershipEvent::Fault { fault: Fault::Check, present: true });
    bench.now += ms(50);
    let until = bench.now + ms(280);
    assert_eq!(unannounced(bench.ack()), [OwnershipAction::Renew { address: vip(100), until }]);
    bench.tell(OwnershipEvent::Fault { fault: Fault::Check, present: false });
    bench.pass(ms(100));
    assert_eq!(bench.holds(), [vip(100)]);
    // What comes next has its whole time.
    let part =
        parts_after(&mut bench, OwnershipEvent::Fault { fault: Fault::IsolatedFromBackends, present: true });
    assert!(matches!(part[..], [OwnershipAction::Release { .. }, OwnershipAction::ProposeRelease { .. }]));
}

#[test]
fn a_move_whose_target_goes_away_in_time_is_forgotten() {
    let mut bench = Bench::serving(&eth0());
    bench.tell(OwnershipEvent::Move { to: Some(THIRD) });
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    bench.tell(OwnershipEvent::Targets(vec![OTHER, THIRD]));
    bench.pass(ms(200));
    assert_eq!(bench.holds(), [vip(100)]);
}

#[test]
fn a_fault_that_went_away_moves_nothing() {
    let mut bench = Bench::serving(&eth0());
    bench.tell(OwnershipEvent::Targets(Vec::new()));
    bench.tell(OwnershipEvent::Fault { fault: Fault::Check, present: true });
    bench.tell(OwnershipEvent::Fault { fault: Fault::Check, present: false });
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    assert_eq!(bench.holds(), [vip(100)]);
}

#[test]
fn a_process_that_stops_lets_go_even_if_nobody_takes_over() {
    let mut bench = Bench::serving(&eth0());
    bench.tell(OwnershipEvent::Targets(Vec::new()));
    assert!(matches!(
        bench.tell(OwnershipEvent::Stop)[..],
        [OwnershipAction::Release { .. }, OwnershipAction::ProposeRelease { .. }]
    ));
    assert_eq!(bench.agree(1, ME, true), []);
    bench.tell(OwnershipEvent::Following);
    bench.lead(2);
    bench.ack();
    assert!(bench.holds().is_empty(), "a stop is for good");
}

#[test]
fn a_transfer_by_raft_drops_everything_and_records_nothing() {
    let mut bench = Bench::serving(&eth0());
    assert!(matches!(bench.tell(OwnershipEvent::TransferBegan)[..], [OwnershipAction::Release { .. }]));
    assert_eq!(bench.pass(ms(1000)), []);
}

#[test]
fn vips_stay_where_they_are_unless_someone_is_preferred() {
    let mut bench = Bench::serving(&eth0());
    bench.pass(ms(100));
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)]);
    let preferring = |members: &[MemberId], delay| ServedVip {
        preferred: members.to_vec(),
        preference_delay: ms(delay),
        ..ServedVip::on("eth0", 24)
    };
    bench.configure(&[(vip(100), preferring(&[ME, OTHER], 0))]);
    assert_eq!(bench.holds(), [vip(100)], "it is the best");
    bench.configure(&[(vip(100), preferring(&[THIRD, ME], 0))]);
    bench.pass(ms(100));
    assert_eq!(bench.machine.state(bench.now), OwnershipState::Leaving { cause: Cause::Preference });
    assert_eq!(bench.agree(1, ME, true), transfer(THIRD));
}

#[test]
fn a_preferred_member_must_be_there_for_the_whole_delay() {
    let vip_ = ServedVip { preferred: vec![OTHER], preference_delay: ms(1000), ..ServedVip::on("eth0", 24) };
    let mut bench = Bench::serving(&[(vip(100), vip_)]);
    let run = |bench: &mut Bench, time: u64| {
        for _ in 0..time / 10 {
            bench.now += ms(10);
            bench.ack();
        }
        !bench.holds().is_empty()
    };
    assert!(run(&mut bench, 900));
    bench.tell(OwnershipEvent::Targets(vec![THIRD]));
    bench.tell(OwnershipEvent::Targets(vec![OTHER, THIRD]));
    assert!(run(&mut bench, 1090), "and then until the last connections are answered");
    assert!(!run(&mut bench, 20));
}

#[test]
fn the_first_vip_that_prefers_someone_decides() {
    let preferring = |member| ServedVip { preferred: vec![member], ..ServedVip::on("eth0", 24) };
    let vips = [(vip(3), preferring(ME)), (vip(7), preferring(OTHER)), (vip(1), ServedVip::on("eth0", 24))];
    assert_eq!(Bench::serving(&vips).holds().len(), 3);
}

#[test]
fn a_move_that_cannot_be_is_refused_in_words() {
    let mut bench = Bench::plain();
    assert_eq!(bench.machine.can_move(None), Err(MoveRefusal::NotLeading));
    bench.lead(1);
    bench.ack();
    assert_eq!(bench.machine.can_move(Some(ME)), Ok(()));
    assert_eq!(bench.machine.can_move(Some(MemberId(9))), Err(MoveRefusal::Unfit(MemberId(9))));
    bench.tell(OwnershipEvent::Move { to: Some(MemberId(9)) });
    bench.tell(OwnershipEvent::Move { to: Some(ME) });
    assert_eq!(bench.holds(), [vip(100)]);
    bench.tell(OwnershipEvent::Targets(Vec::new()));
    assert_eq!(bench.machine.can_move(None), Err(MoveRefusal::NoTarget));
}
