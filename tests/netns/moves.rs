//! An operator moves the address.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use trestle_testkit::lab::Fault;
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

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

/// Waits until a connection with this address of the client is open through a member.
fn open_through(bed: &Bed, local: &str, member: usize) {
    wait_for("the open connection", LIMIT, || {
        let list = bed.run(&["connection", "list", "--member", &bed.name(member)]);
        if list.contains(local) { Ok(()) } else { Err(list) }
    });
}

#[test]
fn a_move_that_is_waited_for_answers_when_it_is_served_and_says_what_is_left_behind() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let holder = bed.settle();
    let founded = bed.history(usize::MAX).remove(0);
    assert_eq!((&*founded.event, &*founded.reason), ("taken", "it founded the cluster"), "{founded:?}");
    let mut open = bed.lab.client.run(|| TcpStream::connect(bed.lab.target())).unwrap();
    open.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    open_through(&bed, &open.local_addr().unwrap().to_string(), holder);

    let moved = bed.json(&["vip", "move", "--wait"]);
    let vips = bed.json(&["vip", "list"]);
    assert_eq!((&moved["former_holder"], &moved["connections_left"]), (&bed.name(holder).into(), &1.into()));
    assert_eq!(vips[0]["holders"], serde_json::json!([moved["holder"]]), "{vips}");
    // The new holder knows nothing of it, and its kernel says so.
    open.set_read_timeout(Some(LIMIT)).unwrap();
    open.write_all(b"\r\n").unwrap();
    let ended = open.read(&mut [0; 1]).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");

    // On a member that does not hold the address its socket is there all the same, and waits for it.
    let vip = vips[0]["name"].as_str().unwrap();
    let bind = format!("{vip}:8443");
    bed.run(&["listener", "create", "ahead", "--bind", &bind, "--pool", "web", "--wait"]);
    let listener = bed.json(&["listener", "get", "ahead"]);
    assert_eq!(listener["ready"]["ready"], 3, "{listener}");

    let nothing = bed.json(&["vip", "move", "--wait", "--to", moved["holder"].as_str().unwrap()]);
    assert_eq!((&nothing["holder"], &nothing["connections_left"]), (&moved["holder"], &0.into()));
}

/// A thread that waits for a moment that has passed takes a whole processor, second by second. A slow machine may take one for more.
fn members_rest(bed: &mut Bed) {
    bed.settle();
    wait_for("a second in which no member does much", LIMIT, || {
        let (begin, before) = (Instant::now(), used(bed));
        std::thread::sleep(Duration::from_secs(1));
        let most = begin.elapsed() / 4;
        let of_each = before.into_iter().zip(used(bed)).map(|(before, after)| after - before);
        let busy = of_each.enumerate().find(|(_, used)| *used >= most);
        busy.map_or(Ok(()), |(member, used)| {
            Err(format!("{} used {used:?} of a processor", bed.name(member)))
        })
    });
}

fn used(bed: &mut Bed) -> Vec<Duration> {
    bed.product.members.iter_mut().map(|member| member.usage().cpu).collect()
}
