//! What `--wait` tells, and when it gives up.

use trestle_api::v1;
use trestle_api::v1::wait_for_revision_response::Result as WaitResult;

use super::fake::{Member, Script};
use super::sample::{duration, sample_status};
use super::{at, trestle};

fn wait(member: &str, error: &str) -> v1::WaitForRevisionResponse {
    v1::WaitForRevisionResponse {
        member: format!("members/{member}"),
        result: if error.is_empty() { WaitResult::InForce } else { WaitResult::Unreachable }.into(),
        error: error.to_owned(),
    }
}

#[test]
fn members_are_told_in_the_order_of_their_names_whoever_was_faster() {
    let waits = vec![wait("m3", ""), wait("m1", "its connection has gone silent"), wait("m2", "")];
    let member = Member::start(Script { waits, ..Script::default() });
    let finished = trestle(&at(&member), &["pool", "create", "web", "--wait"]);
    assert_eq!(
        finished.err,
        "m1: not in force: its connection has gone silent\nm2: revision 12 in force\nm3: revision 12 in force\n"
    );
    assert_eq!(finished.code, 0);
}

/// A cluster whose first member is drained with a deadline.
fn drained(deadline: i32) -> v1::ClusterStatus {
    let mut status = sample_status();
    let record = status.members[0].member.as_mut().unwrap();
    (record.draining, record.drain_timeout) = (true, Some(duration(deadline)));
    status
}

fn drain(status: v1::ClusterStatus) -> super::Done {
    let script = Script { status: Some(status), ..Script::default() };
    let member = Member::start(script);
    trestle(&at(&member), &["--timeout", "1s", "member", "drain", "m1", "--deadline", "1s", "--wait"])
}

#[test]
fn a_member_that_cannot_hand_over_is_waited_for_until_its_deadline() {
    let mut status = drained(1_000);
    status.members[1].unfit = vec!["CAP_NET_ADMIN is missing".to_owned()];
    status.members[2].reachable = false;
    let finished = drain(status);
    assert_eq!(finished.code, 1, "{}", finished.err);
    assert_eq!(
        finished.err,
        "m1: takes connections until it has handed leadership over; 0 connections open\n\
         error: m1 still takes connections 1s after its drain began, which is its deadline: it leads, and nobody takes over (m2: \
         CAP_NET_ADMIN is missing; m3: does not answer); it goes on draining, and \"trestle member enable m1\" ends that\n"
    );
    let mut alone = drained(1_000);
    alone.members.truncate(1);
    assert!(drain(alone).err.contains("nobody takes over (there is no other voter); "));
}

#[test]
fn a_member_that_does_not_answer_is_waited_for_as_long_as_one_call_may_take() {
    let mut status = drained(60_000);
    status.members[0].reachable = false;
    let finished = drain(status);
    assert_eq!(finished.code, 1, "{}", finished.err);
    assert_eq!(
        finished.err,
        "m1: no connection is left; m1: no answer, so what is left there is not known\n\
         error: no connection is left on m1 as far as members answer, and m1 may have some; see \"trestle status\"\n"
    );
}

#[test]
fn a_member_that_is_drained_is_done() {
    let mut status = drained(60_000);
    (status.members[0].drained, status.leader) = (true, "members/m2".to_owned());
    let finished = drain(status);
    assert_eq!((finished.code, finished.err.as_str()), (0, "m1: no connection is left\n"));
}
