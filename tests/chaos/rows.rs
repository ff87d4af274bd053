//! Single faults again and again, each with the figures that it is known by. All invariants of a mix are judged as well.
//!
//! CI makes a few of each; `cargo xtask chaos` makes all of them in other orders, for as long as one says.

use std::time::Duration;

use trestle_testkit::faults::{Episode, FaultKind, FaultTarget, PlannedFault};

use crate::run::{Mix, run};
use crate::tally::Tally;

const HOLDER: FaultTarget = FaultTarget::Holder;

fn fault(kind: FaultKind, target: FaultTarget, at: u64, lasts: u64) -> PlannedFault {
    PlannedFault { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), kind, target }
}

/// One fault alone.
fn only(kind: FaultKind, target: FaultTarget, lasts: u64) -> Episode {
    Episode { faults: vec![fault(kind, target, 0, lasts)] }
}

/// What a row is played with.
#[derive(Debug, Clone, Copy)]
struct Circumstances {
    /// Members have the default timing, as where it is leases that are tried.
    hurried: bool,
    /// Nobody reads their logs.
    unread: bool,
}

const HURRIED: Circumstances = Circumstances { hurried: true, unread: false };
const UNHURRIED: Circumstances = Circumstances { hurried: false, unread: false };

/// Plays what is written down, with a name to find it by.
fn play(name: &str, circumstances: Circumstances, episodes: Vec<Episode>) -> Option<Tally> {
    let kinds = episodes.iter().flat_map(|episode| &episode.faults).map(|fault| fault.kind).collect();
    let repeat = format!("cargo test --test chaos -- --exact rows::{name} --nocapture");
    let Circumstances { hurried, unread } = circumstances;
    let mix = Mix { name: name.to_owned(), seed: 1, kinds, episodes, hurried, unread, repeat };
    let tally = run(&mix)?;
    eprintln!("{tally}");
    Some(tally)
}

#[test]
fn a_holder_that_is_killed_is_followed_by_another_each_time() {
    let rounds = 5;
    let name = "a_holder_that_is_killed_is_followed_by_another_each_time";
    let Some(tally) = play(name, HURRIED, vec![only(FaultKind::Kill, HOLDER, 1500); rounds]) else { return };
    assert!(tally.moves >= rounds, "{tally}");
    // A lease of 280 ms and elections; the rest is for a machine on which members wait for a processor and lose elections.
    assert!(tally.longest_gap < Duration::from_secs(20), "{tally}");
}

#[test]
fn restarts_within_the_lease_make_no_second_holder() {
    let name = "restarts_within_the_lease_make_no_second_holder";
    let restart = |target| fault(FaultKind::QuickRestart, target, 0, 100);
    let others = Episode {
        faults: vec![
            fault(FaultKind::CutFromNext, HOLDER, 0, 2000),
            fault(FaultKind::QuickRestart, FaultTarget::Member(0), 0, 100),
            fault(FaultKind::QuickRestart, FaultTarget::Member(1), 50, 100),
        ],
    };
    let holder = Episode { faults: vec![restart(HOLDER)] };
    let Some(tally) = play(name, HURRIED, vec![holder.clone(), others.clone(), holder, others]) else {
        return;
    };
    assert_eq!(tally.faults["quick restart"], 6, "{tally}");
}

#[test]
fn a_holder_that_stands_still_for_a_moment_or_for_long_makes_no_second_one() {
    let name = "a_holder_that_stands_still_for_a_moment_or_for_long_makes_no_second_one";
    let lasts = [100, 250, 300, 400, 1000, 5000];
    let mut episodes: Vec<Episode> =
        lasts.iter().map(|lasts| only(FaultKind::Pause, HOLDER, *lasts)).collect();
    episodes.extend(lasts.iter().skip(2).map(|lasts| only(FaultKind::Freeze, HOLDER, *lasts)));
    let Some(tally) = play(name, HURRIED, episodes) else { return };
    // Those that are longer than an election at least.
    assert!(tally.moves >= 4, "{tally}");
}

#[test]
fn all_members_are_killed_at_once_and_nothing_is_lost() {
    let name = "all_members_are_killed_at_once_and_nothing_is_lost";
    let Some(tally) = play(name, HURRIED, vec![only(FaultKind::KillAll, HOLDER, 100); 5]) else { return };
    assert_eq!(tally.served_again.len(), 6, "{tally}");
}

#[test]
fn two_members_that_only_the_third_hears_hold_few_elections() {
    let name = "two_members_that_only_the_third_hears_hold_few_elections";
    let Some(tally) = play(name, UNHURRIED, vec![only(FaultKind::CutFromNext, HOLDER, 15_000)]) else {
        return;
    };
    // One may be needed, and healing may take another.
    assert!(tally.elections <= 4 && tally.moves <= 2, "{tally}");
}

#[test]
fn streams_to_a_member_that_is_cut_off_from_the_others_go_on() {
    let name = "streams_to_a_member_that_is_cut_off_from_the_others_go_on";
    let cuts = [FaultKind::CutOff, FaultKind::Mute, FaultKind::Deaf];
    let episodes = cuts.iter().map(|kind| only(*kind, HOLDER, 5000)).collect();
    let Some(tally) = play(name, UNHURRIED, episodes) else { return };
    // Those through the virtual IP are reset where it moves, as is promised; no others.
    assert_eq!(tally.broken_beside, 0, "{tally}");
}

#[test]
fn writes_go_on_while_three_in_ten_frames_are_lost() {
    let name = "writes_go_on_while_three_in_ten_frames_are_lost";
    let losses = [10, 20, 30].map(|percent| only(FaultKind::Loss(percent), HOLDER, 8000));
    let Some(tally) = play(name, UNHURRIED, losses.into()) else { return };
    // Of those of 24 s without faults some 2000 come; on a busy machine far fewer, and none where nobody may write.
    assert!(tally.calls - tally.unanswered > 100, "{tally}");
    assert!(tally.elections <= 20, "{tally}");
}

#[test]
fn late_and_doubled_frames_in_another_order_cost_no_write() {
    let name = "late_and_doubled_frames_in_another_order_cost_no_write";
    let disorder = |target| only(FaultKind::Disorder, target, 8000);
    let Some(tally) = play(name, UNHURRIED, vec![disorder(HOLDER), disorder(FaultTarget::Member(2))]) else {
        return;
    };
    assert!(tally.calls - tally.unanswered > 60, "{tally}");
}

#[test]
fn a_member_whose_network_comes_and_goes_does_not_take_the_address_back_and_forth() {
    let name = "a_member_whose_network_comes_and_goes_does_not_take_the_address_back_and_forth";
    let cut = |number: u64| fault(FaultKind::CutOff, FaultTarget::Member(0), number * 600, 300);
    let Some(tally) = play(name, UNHURRIED, vec![Episode { faults: (0..30).map(cut).collect() }]) else {
        return;
    };
    assert!(tally.moves <= 4, "{tally}");
}

#[test]
fn a_member_whose_disk_is_full_gives_way_and_returns_once_there_is_room() {
    let name = "a_member_whose_disk_is_full_gives_way_and_returns_once_there_is_room";
    let Some(tally) = play(name, UNHURRIED, vec![only(FaultKind::DiskFull, HOLDER, 3000); 2]) else { return };
    assert!(tally.whole_again.iter().all(|time| *time < Duration::from_secs(30)), "{tally}");
}

#[test]
fn a_member_that_cannot_sync_ends_and_takes_nothing_along() {
    let name = "a_member_that_cannot_sync_ends_and_takes_nothing_along";
    let member = FaultTarget::Member;
    let episodes = vec![
        only(FaultKind::DiskError, HOLDER, 2000),
        only(FaultKind::DiskError, member(1), 2000),
        only(FaultKind::DiskError, HOLDER, 2000),
    ];
    let Some(tally) = play(name, UNHURRIED, episodes) else { return };
    // A failed sync is never repeated and believed.
    assert!(tally.ended >= 3, "{tally}");
}

#[test]
fn a_slow_disk_of_a_follower_holds_no_write_up_and_one_of_the_holder_ends_no_service() {
    let name = "a_slow_disk_of_a_follower_holds_no_write_up_and_one_of_the_holder_ends_no_service";
    let slow = |target| only(FaultKind::SlowDisk, target, 8000);
    let Some(tally) = play(name, UNHURRIED, vec![slow(FaultTarget::Member(1)), slow(HOLDER)]) else { return };
    assert!(tally.calls - tally.unanswered > 60, "{tally}");
    assert!(tally.longest_gap < Duration::from_secs(15), "{tally}");
}

#[test]
fn no_acknowledged_write_is_lost_when_all_members_lose_power_at_once() {
    let name = "no_acknowledged_write_is_lost_when_all_members_lose_power_at_once";
    let cut = |member| fault(FaultKind::PowerCut, FaultTarget::Member(member), 0, 300);
    let all = Episode { faults: (0..3).map(cut).collect() };
    play(name, UNHURRIED, vec![all; 4]);
}

#[test]
fn a_disk_that_goes_back_in_time_takes_no_acknowledged_write_along() {
    let name = "a_disk_that_goes_back_in_time_takes_no_acknowledged_write_along";
    let back = |target| only(FaultKind::PutBack, target, 2000);
    let with_a_cut = Episode {
        faults: vec![
            fault(FaultKind::PutBack, FaultTarget::Member(1), 0, 1500),
            fault(FaultKind::CutOff, FaultTarget::Member(2), 1000, 3000),
        ],
    };
    play(name, UNHURRIED, vec![back(FaultTarget::Member(0)), back(HOLDER), with_a_cut]);
}

#[test]
fn another_machine_with_the_address_and_an_emptied_firewall_are_dealt_with() {
    let name = "another_machine_with_the_address_and_an_emptied_firewall_are_dealt_with";
    let episodes = vec![
        only(FaultKind::ForeignOwner, HOLDER, 2000),
        only(FaultKind::FlushFirewall, HOLDER, 1000),
        only(FaultKind::FlushChain, HOLDER, 1000),
        only(FaultKind::Unplug, HOLDER, 200),
    ];
    play(name, UNHURRIED, episodes);
}

#[test]
fn a_crowd_and_a_want_of_descriptors_cost_no_leadership_for_long() {
    let name = "a_crowd_and_a_want_of_descriptors_cost_no_leadership_for_long";
    let episodes = vec![only(FaultKind::Flood, HOLDER, 3000), only(FaultKind::NoDescriptors, HOLDER, 3000)];
    let Some(tally) = play(name, UNHURRIED, episodes) else { return };
    assert!(tally.elections <= 4, "{tally}");
}

#[test]
fn members_whose_logs_nobody_reads_serve_and_write_as_others_do() {
    let name = "members_whose_logs_nobody_reads_serve_and_write_as_others_do";
    let unread = Circumstances { unread: true, ..UNHURRIED };
    let Some(tally) = play(name, unread, vec![only(FaultKind::CutOff, HOLDER, 8000)]) else { return };
    assert!(tally.calls - tally.unanswered > 60, "{tally}");
}
