//! A holder that is stopped or killed: the kernel keeps the deadline without it.

use std::time::{Duration, Instant};

use trestle_testkit::wait_for;

use super::agent::{Agent, LEASE};
use super::lab::{LIMIT, Lab, vip};
use super::probing::{Prober, Question, last_answered};

/// How late a fence may close.
const GOAL: Duration = Duration::from_millis(20);
const V4: &str = "10.77.0.50/24";
const V6: &str = "fd77::50/64";

fn probers(lab: &Lab) -> Vec<(&'static str, Prober)> {
    let start = |text: &str, question| Prober::start(&lab.client, vip(text).address, question);
    let probers = vec![
        ("IPv4 echo", start(V4, Question::Echo)),
        ("ARP", start(V4, Question::Owner)),
        ("IPv6 echo", start(V6, Question::Echo)),
        ("neighbour discovery", start(V6, Question::Owner)),
    ];
    for (_, prober) in &probers {
        prober.wait_for_answer();
    }
    probers
}

/// Ends the probing and looks at when the last question was put that got an answer: never later than the lease and 20 ms.
/// Questions are dated when they are put, so that a slow client never makes a holder look late.
fn expect_silence(probers: Vec<(&str, Prober)>, stopped: Instant) {
    for (what, prober) in probers {
        prober.wait_for_questions(20);
        let asked = prober.finish();
        let last = last_answered(&asked).unwrap();
        let after = last.saturating_duration_since(stopped);
        println!("{what}: last answer to a question {after:?} after the stop, lease {LEASE:?}");
        assert!(after <= LEASE + GOAL, "{what}: answered {after:?} after the stop; the lease is {LEASE:?}");
    }
}

#[test]
fn a_stopped_holder_falls_silent_and_stays_silent() {
    let Some(lab) = Lab::build(1) else { return };
    let agent = Agent::start(&lab.members[0], &[V4, V6]);
    let running = probers(&lab);
    let stopped = agent.stop();
    wait_for("the removal of both addresses", LIMIT, || {
        let there = [V4, V6].map(|text| lab.members[0].has(&vip(text).address.to_string()));
        if there == [false, false] { Ok(()) } else { Err(format!("{there:?}")) }
    });
    println!("addresses gone {:?} after the stop", stopped.elapsed());
    // It goes on as if nothing had happened; not even one answer may come of it.
    agent.proceed();
    agent.wait_for_the_end_of_its_lease();
    expect_silence(running, stopped);
}

#[test]
fn a_killed_holder_falls_silent() {
    let Some(lab) = Lab::build(1) else { return };
    let mut agent = Agent::start(&lab.members[0], &[V4, V6]);
    let running = probers(&lab);
    let stopped = agent.kill();
    wait_for("the removal of both addresses", LIMIT, || {
        let there = [V4, V6].map(|text| lab.members[0].has(&vip(text).address.to_string()));
        if there == [false, false] { Ok(()) } else { Err(format!("{there:?}")) }
    });
    println!("addresses gone {:?} after the kill", stopped.elapsed());
    expect_silence(running, stopped);
}

#[test]
fn a_holder_that_is_stopped_for_less_than_its_lease_keeps_serving() {
    let Some(lab) = Lab::build(1) else { return };
    let agent = Agent::start(&lab.members[0], &[V4]);
    let prober = Prober::start(&lab.client, vip(V4).address, Question::Echo);
    prober.wait_for_answer();
    for _ in 0..5 {
        agent.stop();
        std::thread::sleep(Duration::from_millis(60));
        agent.proceed();
        prober.wait_for_answer();
    }
}
