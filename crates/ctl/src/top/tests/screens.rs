//! What is read from the screen, and the ways through it.
#![allow(clippy::unwrap_used)]

use trestle_api::v1;

use super::super::state::{Key, Screen, State};
use super::{looked, screen, snapshot};
use crate::tests::sample::{sample_pool, sample_trouble, sample_unbound};

#[test]
fn what_is_not_checked_is_not_told_as_unhealthy() {
    let mut now = snapshot(2);
    now.pools[0].health_check.as_mut().unwrap().kind = Some(v1::health_check::Kind::None(v1::NoCheck {}));
    for view in now.health.backends.iter_mut().flat_map(|backend| &mut backend.views) {
        view.set_verdict(v1::Verdict::Unknown);
        view.reason = "the pool has no health check".to_owned();
    }
    let mut state = looked([snapshot(0), now]);
    let lines = screen(&mut state, 110, 14);
    assert!(lines[9].starts_with("web ") && lines[9].ends_with("  0       no check"), "{lines:#?}");
    assert!(
        lines[10].starts_with("  a               9 ")
            && lines[10].contains("  0       no check     10.0.0.1"),
        "{lines:#?}"
    );
    let lines = screen(&mut state, 50, 14);
    assert!(lines[9].ends_with("  no check") && lines[10].ends_with("  no check"), "{lines:#?}");
}

#[test]
fn problems_of_several_members_stand_once_and_leave_room() {
    let mut now = snapshot(2);
    let taken =
        "address already in use by another process; stop that process or choose another address or port";
    for (number, member) in now.status.members.iter_mut().enumerate() {
        let address = format!("127.0.0.{}:443", number + 1);
        member.unbound_listeners = vec![sample_unbound("front", &address, taken)];
        member.troubled_pools = vec![sample_trouble("web", 2, 1, &["b"])];
        member.problems = vec!["its clock stands still".to_owned()];
    }
    for view in now.listeners.views.iter_mut().filter(|view| view.listener.ends_with("front")) {
        let (addresses, reason) = (vec![format!("{}:443", view.member)], taken.to_owned());
        view.errors = vec![format!("{}: {reason}", addresses[0])];
        view.bind_failures = vec![v1::BindFailure { addresses, more: 0, reason }];
        view.bound.clear();
    }
    let mut state = looked([snapshot(0), now]);
    let lines = screen(&mut state, 80, 24);
    assert_eq!(
        lines[2..7],
        [
            "problem: listener front is not bound to 127.0.0.1:443 on m1, 127.0.0.2:443 on",
            "  m2, 127.0.0.3:443 on m3: address already in use by another process; stop t ...",
            "problem: m1, m2, m3: its clock stands still",
            "problem: pool web is degraded on m1, m2, m3: 1 of 2 backends healthy (b:",
            "  connection refused): \"trestle backend list web\" shows each",
        ]
    );
    assert_eq!(lines[10], "front  0/3    21     3.0    0 B   0 B    0       address already in use by anoth");
    assert!(lines[11].starts_with(" 2 pools, 2 backends "), "{lines:#?}");
    // A lower screen leaves some out, and says where they are.
    let lines = screen(&mut state, 80, 16);
    assert_eq!(lines[5], "and 1 more: ! shows all problems in full");
    press(&mut state, &[Key::Char('!')]);
    let all = screen(&mut state, 80, 24).join("\n");
    assert!(all.contains(" problems ") && all.contains("choose another address or port"), "{all}");
    press(&mut state, &[Key::Escape]);
    assert_eq!(state.screen, Screen::Main);
}

fn press(state: &mut State, keys: &[Key]) {
    for key in keys {
        assert!(state.press(*key), "{key:?} ends the command");
        // What a key does depends on what is on the screen.
        screen(state, 80, 24);
    }
}

#[test]
fn help_and_details_have_a_way_back_and_escape_ends_nothing() {
    let mut now = snapshot(2);
    let view = &mut now.health.backends[1].views[2];
    view.set_verdict(v1::Verdict::Unhealthy);
    view.reason = "connection refused".to_owned();
    let mut state = looked([snapshot(0), now]);
    screen(&mut state, 80, 24);
    press(&mut state, &[Key::Char('?')]);
    let help = screen(&mut state, 80, 24);
    assert!(help[2].starts_with(" help ") && help[3].starts_with("?           this help"), "{help:#?}");
    assert!(
        help[3..23].iter().any(|line| line.starts_with("Problems are those of")),
        "all of it fits: {help:#?}"
    );
    assert_eq!(help[23], "Esc back   arrows, j k, page scroll   q quit");
    press(&mut state, &[Key::Escape, Key::Escape, Key::Escape]);
    assert_eq!(state.screen, Screen::Main);

    // idle, web, a, b.
    press(&mut state, &[Key::Down, Key::Char('j'), Key::End, Key::Enter]);
    let detail = screen(&mut state, 80, 24);
    assert_eq!(
        detail[2..16],
        [
            format!(" backend web/b {}", "─".repeat(65)),
            "10.0.0.1:8080   enabled".to_owned(),
            "9 connections   30 new/s   3.0 kB/s in   3.0 MB/s out   0 failed/s".to_owned(),
            String::new(),
            "MEMBER   VERDICT     SINCE   CONNS   NEW/S   IN/S     OUT/S    FAIL/S".to_owned(),
            "m1       healthy     1m5s    3       10      1.0 kB   1.0 MB   0".to_owned(),
            "m2       healthy     1m5s    3       10      1.0 kB   1.0 MB   0".to_owned(),
            "m3       unhealthy   1m5s    3       10      1.0 kB   1.0 MB   0".to_owned(),
            String::new(),
            "m1: -".to_owned(),
            "m2: -".to_owned(),
            "m3: connection refused".to_owned(),
            String::new(),
            "\"trestle backend get web/b\" also shows how verdicts changed.".to_owned(),
        ]
    );
    press(&mut state, &[Key::Escape, Key::Home, Key::Down, Key::Enter]);
    let pool = screen(&mut state, 80, 60).join("\n");
    for part in [
        " pool web ",
        "1/2 healthy\n",
        "b         10.0.0.1:8080   enabled   2/3",
        "web/b: m3: connection refused",
        "QUEUE  ",
    ] {
        assert!(pool.contains(part), "{part:?}: {pool}");
    }
    press(&mut state, &[Key::Escape, Key::Tab, Key::Enter]);
    let listener = screen(&mut state, 80, 60).join("\n");
    for part in [" listener api ", "POOL                         web\n", "m3       0.0.0.0:443   7"] {
        assert!(listener.contains(part), "{part:?}: {listener}");
    }
}

#[test]
fn a_search_is_kept_by_enter_and_taken_back_by_escape() {
    let mut state = looked([snapshot(0), snapshot(2)]);
    screen(&mut state, 80, 24);
    let typed = ['/', '/', 'B', 'q'].map(Key::Char);
    press(&mut state, &typed);
    press(&mut state, &[Key::Backspace]);
    let searched = screen(&mut state, 80, 24);
    assert_eq!(searched[23], "//B_   Enter keeps it, Esc takes it back");
    press(&mut state, &[Key::Enter]);
    let kept = screen(&mut state, 80, 24);
    assert!(kept.iter().any(|line| line.starts_with(" 1 of 2 pools, 1 of 2 backends ")), "{kept:#?}");
    assert!(kept.iter().any(|line| line.starts_with(" 0 of 2 listeners ")), "{kept:#?}");
    assert!(kept[23].starts_with("only what has \"/B\" in it: Esc shows all"), "{kept:#?}");
    press(&mut state, &[Key::Escape]);
    assert!(state.filter.is_empty() && screen(&mut state, 80, 24)[6].starts_with(" 2 pools, "));
    assert!(!state.press(Key::Char('q')));
}

#[test]
fn what_is_chosen_stays_chosen_when_lines_move() {
    let mut state = looked([snapshot(0), snapshot(2)]);
    screen(&mut state, 80, 24);
    press(&mut state, &[Key::End, Key::Enter]);
    assert!(screen(&mut state, 80, 24)[2].starts_with(" backend web/b "));
    press(&mut state, &[Key::Escape]);
    let mut now = snapshot(4);
    now.pools.insert(0, sample_pool("a-new-one"));
    state.learn(Ok(now.clone()));
    press(&mut state, &[Key::Enter]);
    assert!(screen(&mut state, 80, 24)[2].starts_with(" backend web/b "));
    // It may go while its details are shown.
    now.health.backends.pop();
    state.learn(Ok(now));
    assert_eq!(screen(&mut state, 80, 24)[3], "It is not there any more.");
}

#[test]
fn a_search_chooses_what_it_found_and_goes_to_the_panel_that_has_it() {
    let mut state = looked([snapshot(0), snapshot(2)]);
    screen(&mut state, 80, 24);
    press(&mut state, &['/', 'w', 'e', 'b', '/', 'b'].map(Key::Char));
    press(&mut state, &[Key::Enter, Key::Enter]);
    assert!(screen(&mut state, 80, 24)[2].starts_with(" backend web/b "), "and not the pool above it");
    press(&mut state, &[Key::Escape, Key::Escape]);
    press(&mut state, &['/', 'f', 'r', 'o'].map(Key::Char));
    press(&mut state, &[Key::Enter, Key::Enter]);
    assert!(screen(&mut state, 80, 24)[2].starts_with(" listener front "), "only a listener has it");
}

#[test]
fn keys_are_shown_as_far_as_there_is_room_and_the_way_out_always() {
    let mut state = looked([snapshot(0), snapshot(2)]);
    let foot = |state: &mut State, width| screen(state, width, 24)[23].clone();
    let keys = "q quit   ? help   ! problems   / search   Enter details   Tab panel   < > sort";
    assert_eq!(foot(&mut state, 80), keys);
    assert_eq!(foot(&mut state, 30), "q quit   ? help   ! problems");
    press(&mut state, &[Key::Char('/'), Key::Char('b'), Key::Enter]);
    assert_eq!(
        foot(&mut state, 80),
        "only what has \"b\" in it: Esc shows all   q quit   ? help   ! problems   / search"
    );
}

#[test]
fn one_connection_is_one() {
    let mut now = snapshot(2);
    now.status.members[1].active_connections = 1;
    let mut state = looked([now]);
    assert_eq!(screen(&mut state, 80, 24)[1], "m1 leader 5 conns   m2 follower 1 conn   m3 follower 5 conns");
}
