//! Waiting and watching.

use tonic::Status;
use trestle_api::v1;
use trestle_api::v1::wait_for_revision_response::Result as WaitResult;

use super::fake::{Member, Script};
use super::sample::{sample_backend, sample_status};
use super::{at, trestle};

fn wait(member: &str, error: &str) -> v1::WaitForRevisionResponse {
    v1::WaitForRevisionResponse {
        member: format!("members/{member}"),
        result: if error.is_empty() { WaitResult::InForce } else { WaitResult::Late }.into(),
        error: error.to_owned(),
    }
}

#[test]
fn a_wait_fails_for_members_that_answer_and_are_late() {
    let waits = vec![wait("m1", ""), wait("m2", "timed out"), wait("m3", "connection refused")];
    let mut status = sample_status();
    status.members[1].in_force_revision = 11;
    status.members[2].reachable = false;
    let script = Script { waits, status: Some(status), ..Script::default() };
    let member = Member::start(script);
    let done = trestle(&at(&member), &["pool", "create", "web", "--wait"]);
    assert_eq!((done.code, done.out.as_str()), (1, "pool web created (revision 12)\n"));
    assert_eq!(
        done.err,
        "m1: revision 12 in force\n\
         m2: not in force: timed out\n\
         m3: not in force: connection refused\n\
         error: revision 12 is accepted but not yet in force on m2; see \"trestle status\"\n"
    );

    member.script.lock().unwrap().waits.remove(1);
    let done = trestle(&at(&member), &["pool", "create", "web", "--wait"]);
    assert_eq!(done.code, 0, "{}", done.err);
}

#[test]
fn a_watch_goes_on_elsewhere_with_the_next_revision() {
    let created = |revision, name| {
        let resource = Some(v1::event::Resource::Backend(sample_backend(name, 1)));
        let event = v1::Event { r#type: v1::EventType::Created.into(), resource };
        Ok(v1::WatchClusterResponse { revision, events: vec![event], more: false, facts: None })
    };
    let stopping = Err(Status::unavailable("this member is shutting down"));
    let first =
        Member::start(Script { watches: [vec![created(7, "a"), stopping]].into(), ..Script::default() });
    let second = Member::start(Script { watches: [vec![created(8, "b")]].into(), ..Script::default() });
    let endpoints = [first.address.to_string(), second.address.to_string()];
    let done = trestle(&endpoints, &["watch", "--from", "7"]);
    assert_eq!(
        done.out,
        "REVISION   EVENT     KIND       NAME\n\
         7          created   backend    web/a\n\
         8          created   backend    web/b\n"
    );
    // The script has no third stream.
    assert!(done.err.ends_with("error: changes before revision 9 are no longer kept\n"), "{}", done.err);
    assert_eq!(second.script.lock().unwrap().watched[0].start_revision, 8);
    assert_eq!(first.script.lock().unwrap().watched[1].start_revision, 9);
}
