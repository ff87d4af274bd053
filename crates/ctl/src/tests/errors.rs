//! Errors as programs read them, exit codes, and help.

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::fake::{Member, Script};
use super::{Done, at, closed, trestle};

/// The one document on standard error.
fn error(done: &Done) -> Value {
    assert_eq!(done.out, "", "{}", done.err);
    let lines: Vec<Value> = done.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = lines.last().unwrap()["error"].clone();
    assert!(lines[..lines.len() - 1].iter().all(|line| line["note"].is_string()), "{}", done.err);
    assert_eq!(error["exit_code"], done.code);
    error
}

fn refusing(status: Status) -> Member {
    Member::start(Script { refusals: [status].into(), ..Script::default() })
}

#[test]
fn every_key_is_there_and_every_mistake_is_listed() {
    let member = Member::start(Script::default());
    let args = ["-o", "json", "pool", "create", "../etc", "--health-timeout", "1"];
    let done = trestle(&at(&member), &args);
    assert_eq!(
        error(&done),
        json!({
            "code": "INVALID_VALUE",
            "exit_code": 2,
            "message": "NAME \"../etc\": must be 1 to 63 characters of a-z, A-Z, 0-9, '-', '_' and '.', and begin and end with a \
                        letter or digit; --health-timeout \"1\": must be a duration with a unit, as in 500ms, 2s or 1m30s",
            "violations": [
                {
                    "field": "NAME",
                    "value": "../etc",
                    "rule": "must be 1 to 63 characters of a-z, A-Z, 0-9, '-', '_' and '.', and begin and end with a letter or digit",
                },
                {
                    "field": "--health-timeout",
                    "value": "1",
                    "rule": "must be a duration with a unit, as in 500ms, 2s or 1m30s",
                },
            ],
            "endpoints": [],
            "members": [],
            "request_id": null,
            "advice": null,
        })
    );
}

#[test]
fn what_a_member_refuses_has_its_reason_and_each_value() {
    let violations = vec![
        FieldViolation::new("pool.connect_timeout", "\"0ns\": must be 10ms to 60s"),
        FieldViolation::new("pool.algorithm", "\"a\\\": b\": is \"c\": d"),
        FieldViolation::new("pool", "is odd"),
    ];
    let mut details =
        ErrorDetails::with_error_info("INVALID_VALUE", "trestle", std::collections::HashMap::new());
    details.set_bad_request(violations);
    let member = refusing(Status::with_error_details(Code::InvalidArgument, "no", details));
    let found = error(&trestle(&at(&member), &["pool", "create", "web", "-o", "json"]));
    assert_eq!((&found["code"], &found["exit_code"]), (&json!("INVALID_VALUE"), &json!(1)));
    assert_eq!(
        found["violations"],
        json!([
            {"field": "pool.connect_timeout", "value": "0ns", "rule": "must be 10ms to 60s"},
            {"field": "pool.algorithm", "value": "a\\\": b", "rule": "is \"c\": d"},
            {"field": "pool", "value": null, "rule": "is odd"},
        ])
    );
    let member = refusing(Status::not_found("pool \"web\" does not exist"));
    let found = error(&trestle(&at(&member), &["pool", "create", "web", "-o", "json"]));
    assert_eq!(
        (&found["code"], &found["message"]),
        (&json!("NOT_FOUND"), &json!("pool \"web\" does not exist"))
    );
}

#[test]
fn the_exit_code_says_whether_the_thing_itself_is_there() {
    for (reason, code) in [
        ("ALREADY_EXISTS", 4),
        ("CONFIGURED", 4),
        ("IN_CLUSTER", 4),
        ("ADDRESS_IN_USE", 1),
        ("LIMIT_REACHED", 1),
    ] {
        let details = ErrorDetails::with_error_info(reason, "trestle", std::collections::HashMap::new());
        let member = refusing(Status::with_error_details(Code::AlreadyExists, "no", details));
        let done = trestle(&at(&member), &["pool", "create", "web", "-o", "json"]);
        assert_eq!((done.code, &error(&done)["code"]), (code, &json!(reason)));
    }
}

#[test]
fn endpoints_that_fail_are_listed_with_the_request_to_repeat() {
    let endpoints = [closed(), closed()];
    let args = ["--timeout", "300ms", "-o", "json", "pool", "create", "web", "--request-id", "mine"];
    let found = error(&trestle(&endpoints, &args));
    assert_eq!((&found["code"], &found["request_id"]), (&json!("NO_ANSWER"), &json!("mine")));
    let failed: Vec<&Value> = found["endpoints"].as_array().unwrap().iter().collect();
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0]["endpoint"], endpoints[0]);
    assert_eq!((&failed[1]["reason"], &failed[1]["answered"]), (&json!("connection refused"), &json!(false)));
    assert!(found["advice"].as_str().unwrap().contains("--request-id mine"), "{found}");
}

#[test]
fn usage_errors_are_documents_too() {
    let member = Member::start(Script::default());
    let found = |args: &[&str]| error(&trestle(&at(&member), args));
    let said = found(&["pool", "create", "web", "--algorithm", "best", "-o", "json"]);
    assert_eq!((&said["code"], &said["exit_code"]), (&json!("USAGE"), &json!(2)));
    let violation = &said["violations"][0];
    assert_eq!(
        (&violation["field"], &violation["value"]),
        (&json!("--algorithm <ALGORITHM>"), &json!("best")),
        "{said}"
    );
    assert!(violation["rule"].as_str().unwrap().starts_with("must be one of: round-robin, "), "{said}");
    let said = found(&["-ojson", "get", "pools"]);
    assert_eq!(said["message"], "unrecognized subcommand 'get'");
    assert_eq!(said["advice"], "the noun comes first: \"trestle pool list\"");
    let said = found(&["--output=json", "pool", "create"]);
    assert!(said["message"].as_str().unwrap().contains("<NAME>"), "{said}");
    assert_eq!(said["advice"], "usage: trestle pool create <NAME>");

    let done = trestle(&at(&member), &["-o", "yaml", "pool", "get", "a/b"]);
    assert!(done.err.starts_with("error:\n  code: INVALID_VALUE\n  exit_code: 2\n"), "{}", done.err);
}

#[test]
fn notes_are_lines_of_json_before_the_error() {
    let member = Member::start(Script::default());
    let done = trestle(&[closed(), at(&member)[0].clone()], &["-o", "json", "pool", "get", "nothing"]);
    let _ = error(&done);
}

#[test]
fn hints_stand_below_the_error() {
    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["backend", "add", "kube-api", "c3", "10.0.0.3:6443"]);
    assert_eq!(
        done.err,
        "error: unexpected argument '10.0.0.3:6443' found\n\n  \
           tip: a backend is named POOL/NAME: \"trestle backend add kube-api/c3 10.0.0.3:6443\"\n\n\
         Usage: trestle backend add [OPTIONS] <POOL/NAME> <ADDR[:PORT]>\n\n\
         For more information, try '--help'.\n"
    );
    let done = trestle(&at(&member), &["listener", "create", "front", "--bind", "6443", "--pool", "web"]);
    assert_eq!(
        (done.code, done.err.as_str()),
        (
            2,
            "error: --bind \"6443\": must name an address and a port; \":6443\" is this port on every IPv4 address\n"
        )
    );
}
