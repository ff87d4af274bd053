//! An operator moves the address.

use std::time::{Duration, Instant};

use serde_json::Value;
use trestle_testkit::lab::Fault;

use crate::Bed;

#[test]
fn a_planned_move_fails_no_new_connection() {
    let Some(mut bed) = Bed::new() else { return };
    for _ in 0..4 {
        let Some(trial) = bed.endure(Fault::Move) else { return };
        assert_ne!(trial.after, Some(trial.holder), "{trial:?}");
        assert!(trial.failed.is_empty(), "{trial:?}");
    }
    events_tell_the_history(&bed);
    members_rest(&mut bed);
}

/// There is one history of who held them, whoever is asked in whichever way.
fn events_tell_the_history(bed: &Bed) {
    let history = bed.json(&["vip", "history"]);
    let events = bed.json(&["events"]);
    let line = |kind: &Value, of: &Value| format!("{kind} {} {} {}", of["member"], of["time"], kind);
    let told = |event: &Value| match event["event"].as_str() {
        Some(kind @ ("vip-taken" | "vip-released")) => {
            let kind = kind.trim_start_matches("vip-").into();
            Some(line(&kind, event) + event["detail"]["reason"].as_str().unwrap())
        }
        _ => None,
    };
    let events: Vec<String> = events.as_array().unwrap().iter().filter_map(told).collect();
    let history = history.as_array().unwrap();
    let history: Vec<String> =
        history.iter().map(|e| line(&e["event"], e) + e["reason"].as_str().unwrap()).collect();
    assert!(history.len() >= 9 && events == history, "{events:#?}\n{history:#?}");
}

/// A thread that waits for a moment that has passed takes a whole processor.
fn members_rest(bed: &mut Bed) {
    bed.settle();
    let (begin, before) = (Instant::now(), used(bed));
    std::thread::sleep(Duration::from_secs(1));
    let most = begin.elapsed() / 4;
    for (member, (before, after)) in before.into_iter().zip(used(bed)).enumerate() {
        let used = after - before;
        assert!(used < most, "{} used {used:?} of a processor with next to nothing to do", bed.name(member));
    }
}

fn used(bed: &mut Bed) -> Vec<Duration> {
    bed.product.members.iter_mut().map(|member| member.usage().cpu).collect()
}
