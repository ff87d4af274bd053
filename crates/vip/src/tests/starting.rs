//! What an earlier run left is removed, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use trestle_testkit::wait_for;

use super::agent::Agent;
use super::lab::{LIMIT, Lab, lease, settings, vip};
use super::probing::{Prober, Question, last_answered};
use crate::{LinuxKernel, Watchdog};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn leftovers_are_removed_and_nothing_else() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let (other, _events) = member.open("other");
    other.claim(&vip("10.77.0.60/24"), &lease(LONG)).unwrap();
    member.ip("address add 10.77.0.61/24 dev eth0 valid_lft 600 preferred_lft 600");
    let mut agent = Agent::start(member, &["10.77.0.50/24", "fd77::50/64"]);
    let prober = Prober::start(&lab.client, vip("10.77.0.50/24").address, Question::Echo);
    prober.wait_for_answer();
    agent.kill();
    // Its lease still runs, and its addresses are there.
    let (kernel, _events) = member.open("agent");
    let opened = Instant::now();
    assert!(!member.has("10.77.0.50") && !member.has("fd77::50"), "left behind");
    prober.wait_for_questions(5);
    let last = last_answered(&prober.finish()).unwrap();
    assert!(last <= opened, "answered {:?} after the start", last - opened);
    assert!(member.has("10.77.0.61") && member.has("10.77.0.1") && member.has("fd77::1"));
    Prober::start(&lab.client, vip("10.77.0.60/24").address, Question::Echo).wait_for_answer();
    assert_eq!(other.facts().tampering.repairs, 0, "another's table");
    // The new run may claim at once.
    kernel.claim(&vip("10.77.0.50/24"), &lease(LONG)).unwrap();
    Prober::start(&lab.client, vip("10.77.0.50/24").address, Question::Echo).wait_for_answer();
}

#[test]
fn an_address_that_was_configured_for_good_since_stays() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let mut agent = Agent::start(member, &["10.77.0.50/24"]);
    agent.kill();
    wait_for(
        "the end of its lifetime",
        LIMIT,
        || if member.has("10.77.0.50") { Err("there") } else { Ok(()) },
    );
    member.ip("address add 10.77.0.50/24 dev eth0");
    let (_kernel, _events) = member.open("agent");
    assert!(member.has("10.77.0.50"));
    // It is no longer fenced.
    Prober::start(&lab.client, vip("10.77.0.50/24").address, Question::Echo).wait_for_answer();
}

#[test]
fn the_watchdog_is_told_while_the_thread_is_on_time() {
    let Some(lab) = Lab::build(1) else { return };
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let (mut settings, _events) = settings("member");
    settings.real_time = true;
    settings.watchdog = Some(Watchdog::new(Duration::from_millis(50), move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let kernel = lab.members[0].run(|| LinuxKernel::open(settings).unwrap());
    let wait = |count| {
        wait_for("calls", LIMIT, || {
            let seen = calls.load(Ordering::Relaxed);
            if seen >= count { Ok(()) } else { Err(format!("{seen}")) }
        });
    };
    wait(3);
    kernel.claim(&vip("10.77.0.50/24"), &lease(LONG)).unwrap();
    wait(calls.load(Ordering::Relaxed) + 3);
    assert!(kernel.facts().punctuality.ticks >= 6);
}
