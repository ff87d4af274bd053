//! Events: listed, followed, and followed on elsewhere.

use tonic::Status;
use trestle_api::v1;

use super::fake::{Member, Script};
use super::sample::sample_event;
use super::{at, trestle};

const LINE: &str =
    "2023-11-14T22:13:20.250Z   m2         warning   backend web/a is unhealthy: connection refused\n";

#[test]
fn events_are_listed_and_who_is_silent_is_named() {
    let silent = vec!["members/m3".to_owned()];
    let first = v1::ListEventsResponse { unreachable_members: silent, ..Default::default() };
    let part =
        |number| v1::ListEventsResponse { events: vec![sample_event("m2", number)], ..Default::default() };
    let member = Member::start(Script { happened: vec![first, part(1), part(2)], ..Script::default() });
    let done = trestle(&at(&member), &["events", "--since", "1h"]);
    assert_eq!(done.out, format!("{}{LINE}{LINE}", crate::view::ClusterEventView::HEADINGS));
    assert_eq!(done.err, "warning: m3 does not answer: what happens on it is not shown\n");
    let done = trestle(&at(&member), &["events", "-o", "json"]);
    let events: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((events.as_array().unwrap().len(), &events[1]["id"]), (2, &"m2/0000000000000007/2".into()));
    let done = trestle(&at(&member), &["events", "--since", "yesterday"]);
    assert!(done.code == 2 && done.err.contains("must be a duration with a unit"), "{}", done.err);
}

#[test]
fn events_are_followed_on_elsewhere_after_the_last_that_was_shown() {
    let position = |number| vec![v1::EventId { member: "members/m2".to_owned(), start: 7, number }];
    let since = Some(prost_types::Timestamp { seconds: 1_600_000_000, nanos: 0 });
    let message = |number| {
        let (events, position) = (vec![sample_event("m2", number)], position(number));
        Ok(v1::WatchEventsResponse { events, position, since, ..Default::default() })
    };
    let stopping = Err(Status::unavailable("this member is shutting down"));
    let first = Script { happening: [vec![message(3), stopping]].into(), ..Script::default() };
    let (first, second) = (
        Member::start(first),
        Member::start(Script { happening: [vec![message(4)]].into(), ..Script::default() }),
    );
    let endpoints = [first.address.to_string(), second.address.to_string()];
    let done = trestle(&endpoints, &["events", "-f", "-o", "json"]);
    let ids: Vec<String> = done
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string())
        .collect();
    assert_eq!(ids, ["\"m2/0000000000000007/3\"", "\"m2/0000000000000007/4\""]);
    assert!(done.err.contains("following on"), "{}", done.err);
    // From now on at first; then with the time at which that began.
    let asked = first.script.lock().unwrap().followed[0].clone();
    assert_eq!((asked.since, asked.after), (None, Vec::new()));
    let asked = second.script.lock().unwrap().followed[0].clone();
    assert_eq!((asked.since, asked.after), (since, position(3)));
}

#[test]
fn what_was_missed_is_counted() {
    let missed = |member: &str, count| v1::MissedEvents { member: format!("members/{member}"), count };
    let message = v1::WatchEventsResponse {
        events: vec![sample_event("m2", 30)],
        missed: vec![missed("m2", 12), missed("m3", 1)],
        ..v1::WatchEventsResponse::default()
    };
    let member = Member::start(Script { happening: [vec![Ok(message)]].into(), ..Script::default() });
    let done = trestle(&at(&member), &["events", "-f"]);
    assert!(
        done.err.starts_with(
            "warning: 12 events were missed of m2: more happened there than it keeps until it is asked\n\
             warning: 1 event was missed of m3: "
        ),
        "{}",
        done.err
    );
    assert!(done.out.ends_with(LINE), "{}", done.out);
}
