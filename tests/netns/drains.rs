//! Members are stopped and drained.

use std::io::{Read, Write};
use std::net::TcpStream;

use trestle_testkit::lab::Fault;
use trestle_testkit::{get, wait_for};

use crate::Bed;
use crate::bed::LIMIT;

/// The port of a listener on every address of every member.
const EVERYWHERE: u16 = 8081;

#[test]
fn a_holder_that_is_stopped_hands_over_and_fails_no_new_connection() {
    let Some(mut bed) = Bed::unhurried() else { return };
    for _ in 0..2 {
        let Some(trial) = bed.endure(Fault::Terminate) else { return };
        let after = trial.after.unwrap();
        assert_ne!(after, trial.holder, "{trial:?}");
        assert!(trial.failed.is_empty(), "{trial:?}");
        let status = bed.product.members[trial.holder].exited();
        assert_eq!(status.code(), Some(0), "{status}");
        bed.handed_over(trial.holder, after, "the holder was stopped");
    }
}

/// A listener that no virtual IP takes from one member to another.
fn listen_everywhere(bed: &Bed) {
    bed.run(&[
        "listener",
        "create",
        "everywhere",
        "--bind",
        &format!("0.0.0.0:{EVERYWHERE}"),
        "--pool",
        "web",
    ]);
    for member in 0..bed.product.members.len() {
        bed.served(bed.own(member, EVERYWHERE), |by| by == member);
    }
}

/// Begins a request by way of a member, and waits until that one has it.
fn begin_request(bed: &Bed, member: usize) -> TcpStream {
    let target = bed.own(member, EVERYWHERE);
    let mut stream = bed.lab.client.run(|| TcpStream::connect(target)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    let local = stream.local_addr().unwrap().to_string();
    wait_for("the open connection", LIMIT, || {
        let list = bed.run(&["connection", "list", "--member", &bed.name(member)]);
        if list.contains(&local) { Ok(()) } else { Err(list) }
    });
    stream
}

fn ready(bed: &Bed, member: usize) -> (u16, String) {
    let http = bed.product.members[member].http();
    let page = bed.lab.client.run(|| get(http, "/readyz")).unwrap();
    (page.status, page.body.trim().to_owned())
}

#[test]
fn a_drained_holder_hands_over_and_lets_open_connections_end() {
    let Some(mut bed) = Bed::unhurried() else { return };
    listen_everywhere(&bed);
    let holder = bed.settle();
    let (name, own) = (bed.name(holder), bed.own(holder, EVERYWHERE));
    let mut open = begin_request(&bed, holder);
    let watch = bed.watch();
    watch.served_by(bed.lab.members[holder].ip);

    bed.run(&["member", "drain", &name]);
    let to = bed.served(bed.lab.target(), |by| by != holder);
    watch.served_by(bed.lab.members[to].ip);
    bed.handed_over(holder, to, "it is drained");
    assert_eq!(bed.status_of(holder)["draining"], true);
    assert_eq!(ready(&bed, holder), (503, "draining".to_owned()));
    bed.refused(own);
    open.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&format!(" {}", own.ip())), "{answer:?}");
    let refusal = bed.refusal(&["vip", "move", "--to", &name]);
    let words = format!(
        "member \"{name}\" cannot take over: it is drained: end that with \"trestle member enable {name}\""
    );
    assert!(refusal.contains(&words), "{refusal}");

    bed.run(&["member", "enable", &name]);
    bed.served(own, |by| by == holder);
    assert_eq!(ready(&bed, holder), (200, "ok".to_owned()));
    bed.run(&["vip", "move", "--to", &name]);
    watch.served_by(own.ip());
    let failed = watch.end();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_drain_of_others_moves_nothing_and_a_drain_of_all_leaves_a_holder() {
    let Some(mut bed) = Bed::unhurried() else { return };
    listen_everywhere(&bed);
    let holder = bed.settle();
    let (next, last) = (bed.after(holder, 1), bed.after(holder, 2));
    let before = bed.history(usize::MAX);
    let watch = bed.watch();
    for other in [next, last] {
        bed.run(&["member", "drain", &bed.name(other)]);
        bed.refused(bed.own(other, EVERYWHERE));
    }
    bed.run(&["member", "drain", &bed.name(holder)]);
    bed.unfit(holder, "it is drained");
    watch.served_by(bed.lab.members[holder].ip);
    bed.served(bed.own(holder, EVERYWHERE), |by| by == holder);
    assert_eq!(bed.history(usize::MAX), before);
    assert!(bed.status_of(holder)["draining"] == true && bed.lab.holders() == [holder]);
    // Whoever waits for it waits no longer than the deadline.
    let name = bed.name(holder);
    let said = bed.refusal(&["member", "drain", &name, "--deadline", "2s", "--wait"]);
    let words = format!(
        "error: {name} still takes connections 2s after its drain began, which is its deadline: it leads, and nobody takes over ("
    );
    assert!(said.contains(&words), "{said}");
    for other in [next, last] {
        assert!(said.contains(&format!("{}: it is drained", bed.name(other))), "{said}");
    }
    assert!(said.contains(&format!("\"trestle member enable {name}\" ends that")), "{said}");

    // The first one that may takes over.
    bed.run(&["member", "enable", &bed.name(last)]);
    watch.served_by(bed.lab.members[last].ip);
    bed.handed_over(holder, last, "it is drained");
    bed.refused(bed.own(holder, EVERYWHERE));
    watch.end();
}
