//! What lists say, also when nothing is in them, and what is told of names that do not exist.

use std::io::Write;

use tonic::Status;
use trestle_api::v1;

use super::fake::{Member, Script};
use super::sample::{sample_pool, sample_status, sample_trouble, sample_view};
use super::{at, trestle};

/// Two pools whose backends are all healthy; of one of them the members say that it is down.
fn drained() -> Script {
    let seen = |pool: &str, name: &str| v1::BackendHealth {
        name: format!("pools/{pool}/backends/{name}"),
        views: ["m1", "m2", "m3"].map(|member| sample_view(member, v1::Verdict::Healthy, "")).to_vec(),
        address: "10.0.0.1:8080".to_owned(),
        ..v1::BackendHealth::default()
    };
    let backends = vec![seen("api", "a"), seen("api", "b"), seen("web", "a"), seen("web", "b")];
    let mut status = sample_status();
    for member in &mut status.members {
        let down = v1::PoolTrouble { backends: 2, down: true, ..sample_trouble("web", 0, 0, &[]) };
        member.troubled_pools = vec![down];
        member.troubled_pools_total = 1;
    }
    Script {
        pools: ["api", "web"].map(sample_pool).to_vec(),
        health: Some(v1::PoolHealth { backends, ..v1::PoolHealth::default() }),
        status: Some(status),
        ..Script::default()
    }
}

#[test]
fn a_pool_that_status_calls_down_is_down_in_lists_and_in_top() {
    let member = Member::start(drained());
    let problem = "problem: pool web is down: all of its backends (2) are drained or disabled or have weight 0, so its clients are \
                   reset: \"trestle backend enable web/NAME\" puts one back\n";
    assert!(trestle(&at(&member), &["status"]).out.contains(problem));
    let list = trestle(&at(&member), &["pool", "list"]);
    assert_eq!(
        list.out,
        "NAME   ALGORITHM     CHECK          BACKENDS   HEALTH                    REVISION   SETTINGS\n\
         api    round-robin   tcp every 2s   2          2/2                       12         -\n\
         web    round-robin   tcp every 2s   2          down (none of 2 in use)   12         -\n"
    );
    let json = trestle(&at(&member), &["pool", "list", "-o", "json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["down_on"], serde_json::json!([]));
    assert_eq!(json[1]["down_on"], serde_json::json!(["m1", "m2", "m3"]));
    let get = trestle(&at(&member), &["pool", "get", "web"]).out;
    assert!(get.contains("\nHEALTH              down (none of 2 in use)\n"), "{get}");
    let top = trestle(&at(&member), &["top", "--once", "-i", "100ms"]).out;
    let row = top.lines().find(|line| line.starts_with("web ")).unwrap();
    assert!(row.trim_end().ends_with(" down (none of 2 in use)"), "{top}");

    // Members may see it differently.
    let other = |one: v1::PoolTrouble| {
        let mut script = drained();
        script.status.as_mut().unwrap().members[1].troubled_pools = vec![one];
        let member = Member::start(script);
        let list = trestle(&at(&member), &["pool", "list"]).out;
        list.lines().last().unwrap().to_owned()
    };
    let few = v1::PoolTrouble { down: true, ..sample_trouble("web", 2, 1, &["a"]) };
    let words = "down on m1, m3 (none of 2 in use); down on m2 (1/2 healthy, fewer than its minimum)";
    let line = other(few);
    assert!(line.contains(words), "{line}");
    assert!(other(sample_trouble("web", 2, 1, &["a"])).contains(" down on m1, m3 (none of 2 in use) "));
}

#[test]
fn pools_that_a_member_could_not_name_are_counted() {
    let mut script = drained();
    script.status.as_mut().unwrap().members[0].troubled_pools_total = 3;
    let status = trestle(&at(&Member::start(script)), &["status"]).out;
    let problem = "\nproblem: m1: 2 more pools are down or degraded; \"trestle pool list\" shows all\n";
    assert!(status.contains(problem), "{status}");
}

#[test]
fn an_empty_list_says_what_makes_something() {
    let member = Member::start(Script::default());
    for (args, told) in [
        (&["pool", "list"][..], "no pools; make one with \"trestle pool create NAME\"\n"),
        (&["vip", "list"], "no virtual IPs; make one with \"trestle vip create ADDR/PREFIX\"\n"),
        (&["vip", "history"], "nobody has held a virtual IP yet\n"),
        (&["connection", "list"], "no open connections\n"),
        (&["events"], "no events\n"),
    ] {
        let done = trestle(&at(&member), args);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", told), "{args:?}");
        let done = trestle(&at(&member), &[args, &["-o", "json"]].concat());
        assert_eq!((done.out.as_str(), done.err.as_str()), ("[]\n", ""), "{args:?}");
    }
}

#[test]
fn what_does_not_exist_is_told_with_where_to_look() {
    for (message, advice) in [
        ("pool \"web\" does not exist", "\"trestle pool list\" shows those that do"),
        ("backend \"web/a\" does not exist", "\"trestle backend list web\" shows those that do"),
        ("member \"m9\" does not exist", "\"trestle member list\" shows those that do"),
    ] {
        let refusals = [Status::not_found(message), Status::not_found(message)].into();
        let member = Member::start(Script { refusals, ..Script::default() });
        let done = trestle(&at(&member), &["pool", "create", "web"]);
        assert_eq!((done.code, done.err), (1, format!("error: {message}\n  {advice}\n")));
        let done = trestle(&at(&member), &["pool", "create", "web", "-o", "json"]);
        let error: serde_json::Value = serde_json::from_str(&done.err).unwrap();
        assert_eq!(
            (&error["error"]["message"], &error["error"]["advice"]),
            (&message.into(), &advice.into())
        );
    }
}

#[test]
fn closing_needs_to_be_told_what() {
    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["connection", "close"]);
    assert_eq!(done.code, 2);
    assert_eq!(
        done.err,
        "error: nothing to close was given: name connections as \"trestle connection list\" shows them (m1/17), or give a filter \
         (--backend web/a, --client 10.0.0.0/8); --all closes all\n"
    );
    let done = trestle(&at(&member), &["connection", "close", "m1/17", "--all"]);
    let told = "error: names, filters and --all cannot be combined: give one of them\n";
    assert_eq!((done.code, done.err.as_str()), (2, told));
}

#[test]
fn a_restore_that_changes_nothing_says_so() {
    let member = Member::start(Script::default());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"format_version\": 1}").unwrap();
    let restore = |more: &[&str]| {
        let file = file.path().to_str().unwrap();
        trestle(&at(&member), &[&["restore", file], more].concat()).out
    };
    assert_eq!(restore(&[]), "configuration is what the backup says already, unchanged (revision 8)\n");
    let dry = "configuration is what the backup says already: nothing would be changed (dry run)\n";
    assert_eq!(restore(&["--dry-run"]), dry);
}
