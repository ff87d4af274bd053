use std::sync::Arc;

use super::super::{Elected, OwnershipAction, OwnershipEvent, OwnershipState, ServedVip, Tenure};
use super::bench::{Bench, ME, OTHER, ms, vip};

fn claims(actions: &[OwnershipAction]) -> usize {
    actions.iter().filter(|a| matches!(a, OwnershipAction::Claim { .. })).count()
}

fn announcements(actions: &[OwnershipAction]) -> usize {
    actions.iter().filter(|a| matches!(a, OwnershipAction::Announce { .. })).count()
}

#[test]
fn a_leader_serves_once_its_tenure_is_agreed_and_a_quorum_answers() {
    let mut bench = Bench::plain();
    assert_eq!(bench.tell(OwnershipEvent::Leading { term: 3, elected: Elected::ByTimeout }), []);
    assert_eq!(bench.machine.state(bench.now), OwnershipState::CatchingUp);
    let take = OwnershipAction::ProposeTake { term: 3, reach: ms(292) };
    assert_eq!(bench.tell(OwnershipEvent::Applied { term: 3, tenure: None }), [take]);
    assert_eq!(bench.ack(), [], "not agreed yet");
    let until = bench.now + ms(280);
    let vip_ = Arc::new(ServedVip::on("eth0", 24));
    let claim = OwnershipAction::Claim { address: vip(100), vip: vip_, until };
    assert_eq!(bench.agree(3, ME, false), [claim, OwnershipAction::Announce { address: vip(100) }]);
    assert_eq!(bench.machine.state(bench.now), OwnershipState::Serving { until });
}

#[test]
fn a_tenure_that_is_not_agreed_is_asked_for_again() {
    let mut bench = Bench::plain();
    bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
    assert_eq!(bench.tell(OwnershipEvent::Applied { term: 1, tenure: None }).len(), 1);
    assert_eq!(bench.pass(ms(99)), []);
    assert_eq!(bench.pass(ms(1)).len(), 1);
}

#[test]
fn without_vips_no_tenure_is_wanted() {
    let mut bench = Bench::with(&[]);
    bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
    assert_eq!(bench.tell(OwnershipEvent::Applied { term: 1, tenure: None }), []);
}

#[test]
fn after_a_transfer_the_old_tenure_is_waited_out_unless_it_was_released() {
    for (released, reach, waits) in [(true, 292, 0), (false, 292, 293), (false, 4250, 4255)] {
        let mut bench = Bench::plain();
        bench.tell(OwnershipEvent::Leading { term: 5, elected: Elected::ByTransfer });
        let tenure = Some(Tenure { member: OTHER, term: 4, reach: ms(reach), released });
        let mut wanted = bench.tell(OwnershipEvent::Applied { term: 5, tenure });
        let began = bench.now;
        while wanted.is_empty() {
            wanted = bench.pass(ms(1));
            assert!(bench.now < began + ms(10_000));
        }
        assert!(matches!(wanted[0], OwnershipAction::ProposeTake { term: 5, .. }));
        assert_eq!(bench.now - began, ms(waits), "released {released}, reach {reach}");
    }
}

#[test]
fn an_election_that_is_told_both_ways_counts_as_a_transfer() {
    let mut bench = Bench::plain();
    for elected in [Elected::ByTimeout, Elected::ByTransfer, Elected::ByTimeout] {
        bench.tell(OwnershipEvent::Leading { term: 5, elected });
    }
    assert_eq!(bench.agree(5, OTHER, false), []);
}

#[test]
fn answers_renew_and_old_ones_do_not() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    bench.now += ms(50);
    let until = bench.now + ms(280);
    assert_eq!(bench.ack()[0], OwnershipAction::Renew { address: vip(100), until });
    let sent = bench.now - ms(20);
    assert_eq!(bench.tell(OwnershipEvent::QuorumAcked { term: 1, sent }), []);
    let sent = bench.now + ms(20);
    assert_eq!(bench.tell(OwnershipEvent::QuorumAcked { term: 2, sent }), [], "of another term");
}

#[test]
fn changes_of_the_configuration_are_followed() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    let two = [(vip(100), ServedVip::on("eth0", 24)), (vip(101), ServedVip::on("eth0", 24))];
    assert_eq!(claims(&bench.configure(&two)), 1);
    assert_eq!(bench.holds(), [vip(100), vip(101)]);
    let moved = [(vip(101), ServedVip::on("eth1", 24))];
    let actions = bench.configure(&moved);
    let release =
        |last, interface: &str| OwnershipAction::Release { address: vip(last), interface: interface.into() };
    assert_eq!(actions[0], release(100, "eth0"));
    assert!(actions.contains(&release(101, "eth0")) && claims(&actions) == 1);
    assert_eq!(bench.holds(), [vip(101)]);
    bench.configure(&[]);
    assert!(bench.holds().is_empty());
}

#[test]
fn what_the_kernel_lost_is_put_back_and_announced() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    bench.now += ms(200);
    bench.ack();
    let gone = OwnershipEvent::Kernel { address: vip(100), present: false, open: true };
    let actions = bench.tell(gone.clone());
    assert!(
        matches!(actions[..], [OwnershipAction::Repair { .. }, OwnershipAction::Announce { .. }]),
        "{actions:?}"
    );
    // Repairs that do not help are repeated at a pace.
    let wants = |bench: &mut Bench| bench.machine.handle(gone.clone(), bench.now).len();
    assert_eq!(wants(&mut bench), 1, "only to be woken");
    bench.now += ms(100);
    bench.ack();
    assert!(bench.holds().contains(&vip(100)));
}

#[test]
fn a_release_that_does_not_help_is_repeated() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    let releases = |actions: Vec<OwnershipAction>| {
        actions.iter().filter(|a| matches!(a, OwnershipAction::Release { .. })).count()
    };
    assert_eq!(releases(bench.machine.handle(OwnershipEvent::Following, bench.now)), 1);
    assert_eq!(releases(bench.machine.handle(OwnershipEvent::Tick, bench.now + ms(99))), 0);
    assert_eq!(releases(bench.machine.handle(OwnershipEvent::Tick, bench.now + ms(100))), 1);
}

#[test]
fn announcements_follow_the_schedule_and_begin_anew_when_the_link_is_back() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    let run = |bench: &mut Bench, steps: u32| -> Vec<u32> {
        (1..=steps)
            .filter(|_| {
                bench.now += ms(10);
                announcements(&bench.ack()) > 0
            })
            .map(|step| step * 10)
            .collect()
    };
    assert_eq!(run(&mut bench, 1600), [50, 150, 400, 1000, 2000, 5000, 15_000]);
    assert_eq!(announcements(&bench.tell(OwnershipEvent::LinkRestored)), 1);
    assert_eq!(run(&mut bench, 20), [50, 150]);
}

#[test]
fn a_foreign_host_is_answered_by_one_announcement_at_most_every_ten_seconds() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    let foreign = OwnershipEvent::Foreign { address: vip(100), term: None };
    let mut sent = Vec::new();
    for step in 1..=4000 {
        bench.now += ms(10);
        let mut actions = bench.ack();
        // Another host claims it all the time, in a span in which the schedule has its long pauses.
        if step > 1600 {
            actions.extend(bench.tell(foreign.clone()));
        }
        sent.extend((announcements(&actions) > 0).then_some(step * 10));
    }
    assert_eq!(sent, [50, 150, 400, 1000, 2000, 5000, 15_000, 16_010, 25_000, 26_010, 35_000, 36_010]);
    assert_eq!(bench.machine.facts().next().unwrap().foreign, Some(bench.now));
    assert_eq!(bench.holds(), [vip(100)]);
}

#[test]
fn the_newer_claim_wins() {
    let mut bench = Bench::serving(&[(vip(100), ServedVip::on("eth0", 24))]);
    bench.tell(OwnershipEvent::Foreign { address: vip(100), term: Some(1) });
    assert_eq!(bench.holds(), [vip(100)]);
    bench.tell(OwnershipEvent::Foreign { address: vip(100), term: Some(2) });
    assert!(bench.holds().is_empty());
    assert_eq!(bench.machine.state(bench.now), OwnershipState::TermBarred);
    bench.lead(2);
    bench.ack();
    assert_eq!(bench.holds(), [vip(100)]);
}
