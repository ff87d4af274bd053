//! The live view, from snapshots and keys to a screen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod screens;

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use trestle_api::v1;

use super::draw::draw;
use super::overview::{Overview, Traffic};
use super::panel::{Column, Layout};
use super::snapshot::Snapshot;
use super::state::{Focus, Key, State};
use crate::tests::sample::{sample_listener, sample_pool, sample_status, sample_view, sample_vip_view};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What one member counts for the backend, at a time: 10 connections and 1 MB to clients a second.
fn backend_view(member: &str, at: u64) -> v1::MemberView {
    v1::MemberView {
        connections: 100 + 10 * at,
        bytes_in: 1_000 * at,
        bytes_out: 1_000_000 * at,
        ..sample_view(member, v1::Verdict::Healthy, "")
    }
}

fn listener_view(name: &str, member: &str, per_second: u64, at: u64) -> v1::ListenerView {
    v1::ListenerView {
        listener: format!("listeners/{name}"),
        member: format!("members/{member}"),
        bound: vec!["0.0.0.0:443".to_owned()],
        active_connections: 7,
        connections: 50 + per_second * at,
        ..v1::ListenerView::default()
    }
}

fn snapshot(at: u64) -> Snapshot {
    let mut status = sample_status();
    for member in &mut status.members {
        member.uptime = Some(prost_types::Duration { seconds: 60 + i64::try_from(at).unwrap(), nanos: 0 });
    }
    let members = ["m1", "m2", "m3"];
    let backend = |name: &str| v1::BackendHealth {
        name: format!("pools/web/backends/{name}"),
        views: members.iter().map(|member| backend_view(member, at)).collect(),
        address: "10.0.0.1:8080".to_owned(),
        admin_state: v1::AdminState::Enabled.into(),
    };
    let listeners = [("front", 1), ("api", 4)];
    let views = listeners.iter().flat_map(|(name, rate)| members.map(|m| listener_view(name, m, *rate, at)));
    Snapshot {
        at: seconds(at),
        endpoint: "127.0.0.1:7480".to_owned(),
        status,
        listeners: v1::ListenerHealth { views: views.collect(), ..Default::default() },
        listener_configs: vec![sample_listener("front"), sample_listener("api")],
        pools: vec![sample_pool("web"), sample_pool("idle")],
        health: v1::PoolHealth { backends: vec![backend("a"), backend("b")], ..Default::default() },
        vips: Vec::new(),
        missing: None,
    }
}

fn traffic(before: &Snapshot, now: &Snapshot) -> Traffic {
    let overview = Overview::new(Some(before), now);
    overview.pools.iter().find(|pool| pool.name == "web").unwrap().backends[0].traffic
}

#[test]
fn rates_are_what_all_members_count_between_two_looks() {
    let first = Overview::new(None, &snapshot(0));
    assert_eq!(first.listeners[0].traffic.connections_per_second, None);
    let rates = traffic(&snapshot(2), &snapshot(4));
    let expected = Traffic {
        connections: 9,
        connections_per_second: Some(30.0),
        bytes_in_per_second: Some(3_000.0),
        bytes_out_per_second: Some(3_000_000.0),
        failures_per_second: Some(0.0),
    };
    assert_eq!(rates, expected);
    // Two looks at one instant tell no rate.
    assert_eq!(traffic(&snapshot(2), &snapshot(2)).connections_per_second, None);
}

#[test]
fn counters_that_began_anew_make_no_rates() {
    let before = snapshot(10);
    // m1's counters went back; m2 was started anew, and its counters passed their old values.
    let mut now = snapshot(12);
    now.health.backends[0].views[0].connections = 3;
    now.health.backends[0].views[1].connections += 1_000_000;
    now.status.members[1].uptime = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    assert_eq!(traffic(&before, &now).connections_per_second, Some(10.0));
    // Nobody is left to compare.
    now.health.backends[0].views[2].bytes_in = 0;
    let rates = traffic(&before, &now);
    assert_eq!((rates.connections, rates.connections_per_second), (9, None));
    // A member that says nothing now, and one that said nothing before.
    let mut silent = snapshot(12);
    silent.health.backends[0].views.remove(0);
    assert_eq!(traffic(&before, &silent).connections_per_second, Some(20.0));
    assert_eq!(traffic(&silent, &snapshot(14)).connections_per_second, Some(20.0));
}

/// A screen of this size after the snapshots, as lines without blanks at their ends.
fn screen(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, seconds(9))).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn looked(snapshots: impl IntoIterator<Item = Snapshot>) -> State {
    let mut state = State::default();
    snapshots.into_iter().for_each(|snapshot| state.learn(Ok(snapshot)));
    state
}

#[test]
fn a_screen_shows_the_cluster_its_listeners_and_its_pools() {
    let mut now = snapshot(2);
    let view = &mut now.health.backends[1].views[2];
    view.set_verdict(v1::Verdict::Unhealthy);
    view.reason = "connection refused\u{1b}[2J".to_owned();
    let mut state = looked([snapshot(0), now]);
    let rule = |title: &str| format!("{title}{}", "─".repeat(110 - title.chars().count()));
    assert_eq!(
        screen(&mut state, 110, 14),
        [
            "trestle   leader m1   3 of 3 voters answer   revision 12   via 127.0.0.1:7480".to_owned(),
            "m1 leader 5 conns   m2 follower 5 conns   m3 follower 5 conns".to_owned(),
            rule(" 2 listeners "),
            "NAME   READY  CONNS  NEW/S  IN/S  OUT/S  FAIL/S  PROBLEM".to_owned(),
            "api    3/3    21     12     0 B   0 B    0".to_owned(),
            "front  3/3    21     3.0    0 B   0 B    0".to_owned(),
            rule(" 2 pools, 2 backends "),
            "NAME  m1  m2  m3    CONNS  NEW/S  IN/S    OUT/S   FAIL/S  STATE                            ADDRESS".to_owned(),
            "idle                0      -      -       -       -       no backends".to_owned(),
            "web                 18     60     6.0 kB  6.0 MB  0       1/2 healthy".to_owned(),
            "  a   ok  ok  ok    9      30     3.0 kB  3.0 MB  0                                        10.0.0.1:8080".to_owned(),
            "  b   ok  ok  DOWN  9      30     3.0 kB  3.0 MB  0       m3: connection refused\\u{1b}[2J  10.0.0.1:8080".to_owned(),
            String::new(),
            "q quit   ? help   ! problems   / search   Enter details   Tab panel   < > sort   p pause".to_owned(),
        ]
    );
    // Where there is less room, what matters least goes: why a backend is down stays.
    let narrow = screen(&mut state, 80, 14);
    assert_eq!(narrow[7], "NAME  m1  m2  m3    CONNS  NEW/S  OUT/S   FAIL/S  STATE");
    assert_eq!(
        narrow[11],
        "  b   ok  ok  DOWN  9      30     3.0 MB  0       m3: connection refused\\u{1b}[2"
    );
    let narrower = screen(&mut state, 40, 14);
    assert_eq!(narrower[7], "NAME  UP   STATE");
    assert_eq!(narrower[11], "  b   2/3  m3: connection refused\\u{1b}[");
}

#[test]
fn vips_are_shown_with_their_holders() {
    let mut now = snapshot(2);
    let held = [("api", "m1", true), ("api", "m2", true), ("web", "m1", false), ("db", "m1", true)];
    now.vips = held.map(|(vip, member, holds)| sample_vip_view(vip, member, holds)).to_vec();
    let line = "vip api on m1 AND m2   vip db on m1   vip web on NOBODY";
    let overview = Overview::new(None, &now);
    assert_eq!(overview.text().lines().nth(2), Some(line));
    let json = serde_json::to_value(&overview).unwrap();
    assert_eq!(json["vips"][0]["holders"], serde_json::json!(["m1", "m2"]));
    let mut state = looked([now]);
    assert_eq!(screen(&mut state, 110, 14)[2], line);
}

#[test]
fn any_size_is_drawn() {
    let mut empty = State::default();
    assert_eq!(screen(&mut empty, 40, 3)[0], "asking the cluster ...");
    let mut state = looked([snapshot(0), snapshot(1)]);
    for (width, height) in [(1, 1), (5, 2), (20, 5), (300, 100), (3, 80), (300, 1)] {
        screen(&mut state, width, height);
        screen(&mut empty, width, height);
    }
}

#[test]
fn what_was_known_stays_when_nobody_answers() {
    let mut state = looked([snapshot(0), snapshot(2)]);
    state.learn(Err("no member answers: 127.0.0.1:7480: connection refused".to_owned()));
    let lines = screen(&mut state, 120, 14);
    let trouble = "no member answers: 127.0.0.1:7480: connection refused; what is below is 7s old";
    assert_eq!(lines[2], trouble);
    assert!(lines.iter().any(|line| line.starts_with("front  3/3")), "{lines:#?}");
    // The next look is compared with the last one that succeeded.
    state.learn(Ok(snapshot(6)));
    let lines = screen(&mut state, 120, 14);
    assert!(lines.iter().any(|line| line.starts_with("api    3/3    21     12 ")), "{lines:#?}");
    assert!(!lines.join("").contains("no member answers"), "{lines:#?}");
}

#[test]
fn members_that_do_not_answer_are_shown() {
    let mut now = snapshot(2);
    now.status.members[2].reachable = false;
    now.status.members[2].error = "timed out".to_owned();
    now.listeners.views.retain(|view| view.member != "members/m3");
    now.listeners.unreachable_members = vec!["members/m3".to_owned()];
    now.health.backends.iter_mut().for_each(|backend| backend.views.truncate(2));
    let mut state = looked([snapshot(0), now]);
    let lines = screen(&mut state, 120, 14);
    assert!(lines[0].contains("2 of 3 voters answer"), "{lines:#?}");
    assert!(lines[1].ends_with("m3 UNREACHABLE"), "{lines:#?}");
    assert!(lines[2].starts_with("problem: m3 does not answer at 127.0.0.3:7481: timed out; "), "{lines:#?}");
    assert!(
        lines.iter().any(|l| l.starts_with("api    2/3") && l.ends_with("m3: unreachable")),
        "{lines:#?}"
    );
    let row = "  a   ok  ok  -   6      20 ";
    assert!(lines.iter().any(|line| line.starts_with(row)), "{lines:#?}");
}

#[test]
fn keys_scroll_sort_and_end() {
    let mut many = snapshot(2);
    let one = many.health.backends[0].clone();
    let named = |n: u64| {
        let mut backend = one.clone();
        backend.name = format!("pools/web/backends/b{n:02}");
        backend.views[0].active_connections = n;
        backend
    };
    many.health.backends = (0..40).map(named).collect();
    let mut state = looked([many]);
    let top = |state: &mut State| {
        let lines = screen(state, 120, 19);
        let at = lines.iter().position(|line| line.contains("40 backends")).unwrap();
        (
            lines[at].split(',').nth(2).unwrap_or_default().trim_end_matches(['─', ' ']).to_owned(),
            lines[at + 2].clone(),
        )
    };
    // 40 backends and two lines of pools, of which 10 fit.
    let (place, line) = top(&mut state);
    assert_eq!((place.as_str(), &line[..4]), (" 1 to 10", "idle"));
    for (keys, place) in [
        (vec![Key::Down; 10], " 2 to 11"),
        (vec![Key::Char(' ')], " 12 to 21"),
        (vec![Key::End], " 33 to 42"),
        (vec![Key::Down, Key::Down, Key::Up], " 33 to 42"),
        (vec![Key::PageUp], " 31 to 40"),
        (vec![Key::Home, Key::Up], " 1 to 10"),
    ] {
        assert!(keys.iter().all(|key| state.press(*key)));
        assert_eq!(top(&mut state).0, place, "{keys:?}");
    }
    // The most connections first: the pool that has some, then its backends.
    assert!(state.press(Key::Char('>')));
    assert_eq!(state.pools.sort, Column::Connections);
    assert!(top(&mut state).1.starts_with("web"));
    let lines = screen(&mut state, 120, 19);
    assert!(
        lines.iter().position(|l| l.starts_with("  b39")) < lines.iter().position(|l| l.starts_with("  b38"))
    );
    assert!(state.press(Key::Left) && state.press(Key::Left));
    assert_eq!(state.pools.sort, Column::Failures);

    assert!(state.press(Key::Tab));
    assert_eq!(state.focus, Focus::Listeners);
    assert!(state.press(Key::Char('>')) && state.press(Key::Char('>')));
    assert_eq!((state.listeners.sort, state.pools.sort), (Column::New, Column::Failures));
    assert!(state.press(Key::Char('p')));
    assert!(screen(&mut state, 120, 19)[0].ends_with("PAUSED"));
    assert!(state.press(Key::Char('p')) && !state.paused);
    assert!(!state.press(Key::Interrupt));
}

#[test]
fn a_screen_that_grows_shows_the_end_again() {
    let mut state = looked([snapshot(2)]);
    screen(&mut state, 80, 9);
    assert!(state.press(Key::End));
    screen(&mut state, 80, 9);
    assert!(state.pools.offset > 0);
    screen(&mut state, 80, 40);
    assert_eq!(state.pools.offset, 0);
}

#[test]
fn listeners_are_sorted_by_what_is_chosen() {
    let overview = Overview::new(Some(&snapshot(0)), &snapshot(1));
    let names = |sort| -> Vec<String> {
        overview
            .listener_panel(Layout { sort, ..Layout::FULL })
            .lines
            .into_iter()
            .map(|line| line.cells[0].clone())
            .collect()
    };
    assert_eq!(names(Column::Name), ["api", "front"]);
    let mut slow = snapshot(1);
    slow.listeners
        .views
        .iter_mut()
        .for_each(|view| view.bytes_out = u64::from(view.listener.ends_with("front")));
    let overview = Overview::new(Some(&snapshot(0)), &slow);
    let panel = overview.listener_panel(Layout { sort: Column::Out, ..Layout::FULL });
    assert_eq!(panel.lines[0].cells[0], "front");
}

#[test]
fn events_are_keys() {
    let event = |code, modifiers| super::key(&Event::Key(KeyEvent::new(code, modifiers)));
    let plain = |code| event(code, KeyModifiers::NONE);
    assert_eq!(event(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
    assert_eq!(event(KeyCode::Char('x'), KeyModifiers::CONTROL), None);
    for (code, key) in [
        (KeyCode::Char('q'), Key::Char('q')),
        (KeyCode::Up, Key::Up),
        (KeyCode::BackTab, Key::Tab),
        (KeyCode::Esc, Key::Escape),
        (KeyCode::Enter, Key::Enter),
        (KeyCode::Backspace, Key::Backspace),
    ] {
        assert_eq!(plain(code), Some(key));
    }
    assert_eq!(super::key(&Event::Resize(1, 1)), None);
}
