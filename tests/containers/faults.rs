//! What engines do to containers: kill, stop, pause, restart.

use std::time::{Duration, Instant};

use trestle_testkit::containers::{MEMBERS, docker};

use crate::Bed;
use crate::bed::OUTAGE;

/// Does something to the holder's container, and waits until another member serves.
fn lose(bed: &Bed, verb: &str) -> (&'static str, Vec<trestle_testkit::lab::Attempt>) {
    let holder = bed.settle();
    let watch = bed.watch();
    watch.served_by(bed.stack.address(holder));
    let fault = Instant::now();
    docker(&[verb, &bed.stack.container(holder)]).unwrap();
    let next = bed.served(|member| member != holder);
    watch.served_by(bed.stack.address(next));
    (holder, watch.end(&format!("docker {verb}"), fault, OUTAGE))
}

#[test]
fn another_member_serves_when_the_holders_container_is_killed_stopped_or_paused() {
    let Some(bed) = Bed::new() else { return };
    for (verb, undo) in [("kill", "start"), ("stop", "start"), ("pause", "unpause")] {
        let (holder, _) = lose(&bed, verb);
        let watch = bed.watch();
        let begin = Instant::now();
        docker(&[undo, &bed.stack.container(holder)]).unwrap();
        // What comes back takes nothing from who serves.
        bed.settle();
        let attempts = watch.end(&format!("docker {undo} after {verb}"), begin, OUTAGE);
        assert!(attempts.iter().any(|attempt| attempt.outcome.is_ok()));
    }
}

#[test]
fn with_two_of_three_paused_nobody_serves_the_virtual_ip_until_one_goes_on() {
    let Some(bed) = Bed::new() else { return };
    let holder = bed.settle();
    let watch = bed.watch();
    watch.served_by(bed.stack.address(holder));
    let others: Vec<_> = MEMBERS.into_iter().filter(|member| *member != holder).collect();
    for member in &others {
        docker(&["pause", &bed.stack.container(member)]).unwrap();
    }
    bed.served_by_nobody();
    docker(&["unpause", &bed.stack.container(others[0])]).unwrap();
    let back = Instant::now();
    bed.served(|_| true);
    docker(&["unpause", &bed.stack.container(others[1])]).unwrap();
    bed.settle();
    watch.end("two of three paused", back, OUTAGE);
}

#[test]
fn all_members_restarted_at_once_serve_again_with_all_that_was_written() {
    let Some(bed) = Bed::new() else { return };
    bed.stack.trestle(&["pool", "create", "kept", "--health", "none"]).unwrap();
    let watch = bed.watch();
    let fault = Instant::now();
    bed.stack.shell("docker compose restart m1 m2 m3").unwrap();
    bed.settle();
    // All stop, and all start again: the deadline has the engine's time for both, one by one.
    watch.end("docker compose restart", fault, OUTAGE + Duration::from_secs(50));
    let pools = bed.json(&["pool", "list"]).unwrap();
    assert!(pools.as_array().unwrap().iter().any(|pool| pool["name"] == "kept"), "{pools:#}");
}
