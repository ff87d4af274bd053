//! What is sent, what is shown, and how mistakes and refusals are told.

use std::io::{self, Write};
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};
use trestle_api::v1;
use trestle_api::v1::health_check::Kind;

use super::fake::{Member, Script};
use super::sample::{sample_https, sample_pool, sample_view};
use super::{Buffer, at, closed, trestle};
use crate::output::Terminal;
use crate::run_on;

#[test]
fn a_write_tells_its_revision() {
    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["pool", "create", "web", "--health-interval", "1m30s"]);
    assert_eq!(
        (done.code, done.out.as_str(), done.err.as_str()),
        (0, "pool web created (revision 12)\n", "")
    );
    let script = member.script.lock().unwrap();
    let request = &script.created[0];
    assert_eq!((request.pool_id.as_str(), request.validate_only), ("web", false));
    let check = request.pool.as_ref().unwrap().health_check.as_ref().unwrap();
    assert_eq!(check.interval.unwrap().seconds, 90);
}

#[test]
fn a_dry_run_says_so() {
    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["pool", "create", "web", "--dry-run"]);
    assert_eq!((done.code, done.out.as_str()), (0, "pool web would be created (dry run)\n"));
    assert!(member.script.lock().unwrap().created[0].validate_only);
}

#[test]
fn a_write_answers_the_resource_to_programs() {
    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["-o", "json", "pool", "create", "web"]);
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((json["name"].as_str(), json["revision"].as_u64()), (Some("web"), Some(12)));
}

#[test]
fn draining_sends_the_state_and_its_deadline() {
    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["backend", "drain", "web/a", "--deadline", "5m"]);
    assert_eq!((done.code, done.out.as_str()), (0, "backend web/a draining (revision 13)\n"), "{}", done.err);
    let script = member.script.lock().unwrap();
    let backend = script.updated[0].backend.as_ref().unwrap();
    assert_eq!(backend.name, "pools/web/backends/a");
    assert_eq!(backend.admin_state(), v1::AdminState::Draining);
    assert_eq!(backend.drain_timeout.unwrap().seconds, 300);
    assert_eq!(script.updated[0].update_mask.as_ref().unwrap().paths, ["admin_state"]);
}

#[test]
fn a_check_is_sent_with_all_that_is_typed() {
    let member = Member::start(Script::default());
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    let Kind::Http(expected) = sample_https() else { panic!() };
    let expected = v1::HttpCheck { body_contains: "ok".to_owned(), method: "GET".to_owned(), ..expected };
    ca.write_all(expected.tls.as_ref().unwrap().ca.as_bytes()).unwrap();
    let arguments = [
        &[
            "pool",
            "create",
            "web",
            "--algorithm",
            "source-hash",
            "--on-down",
            "keep",
            "--all-down",
            "fail-open",
        ],
        &["--health", "https", "--health-server-name", "api.example", "--health-min-days", "14"][..],
        &["--health-ca", ca.path().to_str().unwrap(), "--health-method", "GET"],
        &["--health-path", "/readyz?verbose", "--health-host", "api.example:6443"],
        &["--health-header", "Accept: */*", "--health-header", "X-Probe: 1"],
        &["--health-expect", "200-299,401", "--health-body", "ok"],
        &["--health-client-cert", "/etc/trestle/check.pem", "--health-client-key", "/etc/trestle/check.key"],
    ];
    let done = trestle(&at(&member), &arguments.concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let pool = member.script.lock().unwrap().created[0].pool.clone().unwrap();
    assert_eq!(pool.algorithm(), v1::Algorithm::SourceHash);
    assert_eq!((pool.on_down(), pool.all_down()), (v1::OnDown::Keep, v1::AllDown::FailOpen));
    assert_eq!(pool.health_check.unwrap().kind, Some(Kind::Http(expected)));
}

#[test]
fn a_check_is_changed_where_it_is_and_only_as_it_was_read() {
    let mut pool = sample_pool("web");
    pool.health_check.as_mut().unwrap().kind = Some(sample_https());
    let member = Member::start(Script { pools: vec![pool], ..Script::default() });
    let update = |args: &[&str]| {
        let done = trestle(&at(&member), &[&["pool", "update", "web"], args].concat());
        (done, member.script.lock().unwrap().changed.pop())
    };
    let kind = |request: &v1::UpdatePoolRequest| {
        request.pool.clone().and_then(|pool| pool.health_check).and_then(|check| check.kind)
    };

    let (done, request) = update(&["--health-path", "/livez"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let request = request.unwrap();
    let Kind::Http(expected) = sample_https() else { panic!() };
    assert_eq!(kind(&request), Some(Kind::Http(v1::HttpCheck { path: "/livez".to_owned(), ..expected })));
    assert_eq!(request.update_mask.unwrap().paths, ["health_check.http"]);
    assert_eq!(request.pool.unwrap().etag, "12");

    let (_, request) = update(&["--health-path", "/livez", "--etag", "7"]);
    assert_eq!(request.unwrap().pool.unwrap().etag, "7");

    // The kind itself: nothing is read, and nothing of the old check stays.
    let (_, request) = update(&["--health", "tls", "--health-min-days", "7"]);
    let request = request.unwrap();
    let tls = v1::TlsCheck { min_days_left: 7, ..v1::TlsCheck::default() };
    assert_eq!(kind(&request), Some(Kind::Tls(tls)));
    assert_eq!(request.update_mask.unwrap().paths, ["health_check.tls"]);
    assert_eq!(request.pool.unwrap().etag, "");

    let member = Member::start(Script { pools: vec![sample_pool("web")], ..Script::default() });
    let done = trestle(&at(&member), &["pool", "update", "web", "--health-path", "/livez"]);
    let words = "error: --health-path \"/livez\": goes with --health http or https, and this check is tcp\n";
    assert_eq!((done.code, done.err.as_str()), (2, words));
    assert!(member.script.lock().unwrap().changed.is_empty());
}

#[test]
fn a_refusal_lists_every_value() {
    let violations = vec![
        FieldViolation::new("pool.connect_timeout", "\"0ns\": must be 10ms to 60s"),
        FieldViolation::new("pool.connect_retries", "\"11\": must be 0 to 10"),
    ];
    let mut details = ErrorDetails::new();
    details.set_bad_request(violations);
    let message =
        "pool.connect_timeout \"0ns\": must be 10ms to 60s; pool.connect_retries \"11\": must be 0 to 10";
    let refusal = Status::with_error_details(Code::InvalidArgument, message, details);
    let member = Member::start(Script { refusals: [refusal].into(), ..Script::default() });
    let done = trestle(&at(&member), &["pool", "create", "web"]);
    assert_eq!(done.code, 1);
    assert_eq!(
        done.err,
        "error: pool.connect_timeout \"0ns\": must be 10ms to 60s\n\
         error: pool.connect_retries \"11\": must be 0 to 10\n"
    );
}

#[test]
fn other_refusals_are_told_in_the_members_words() {
    let refusal = Status::already_exists("pool \"web\" exists already (revision 3)");
    let member = Member::start(Script { refusals: [refusal].into(), ..Script::default() });
    let done = trestle(&at(&member), &["pool", "create", "web"]);
    assert_eq!((done.code, done.err.as_str()), (4, "error: pool \"web\" exists already (revision 3)\n"));
}

#[test]
fn mistakes_in_arguments_are_told_together_and_nothing_is_sent() {
    let member = Member::start(Script::default());
    let done =
        trestle(&at(&member), &["pool", "create", "../etc", "--health-timeout", "1", "--request-id", ""]);
    assert_eq!((done.code, done.err.lines().count()), (2, 3), "{}", done.err);
    assert!(member.script.lock().unwrap().created.is_empty());

    for (args, words) in [
        (vec!["pool", "create", "web", "--algorithm", "best"], "round-robin, least-connections"),
        (vec!["pool", "create", "web", "--dry-run", "--wait"], "cannot be used with"),
        (vec!["pool", "create", "web", "--health", "tls", "--health-path", "/"], "goes with --health http"),
        (vec!["pool", "create", "web", "--health-min-days", "3"], "this check is tcp"),
        (vec!["pool", "create", "web", "--health", "https", "--health-ca", "/nowhere"], "cannot be read"),
        (vec!["pool", "update", "web"], "trestle pool update --help"),
        (vec!["--timeout", "0s", "status"], "must be more than 0"),
        (vec!["listener", "create", "front", "--bind", "0.0.0.0", "--pool", "web"], "must name a port"),
        (vec!["backend", "add", "web", "10.0.0.1"], "must name the pool and the backend"),
        (vec!["pool", "erase", "web"], "unrecognized subcommand"),
    ] {
        let done = trestle(&at(&member), &args);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains(words), "{args:?}: {}", done.err);
    }
    let done = trestle(&["127.0.0.1".to_owned()], &["status"]);
    assert_eq!(done.code, 2);
    assert!(done.err.starts_with("error: --endpoint \"127.0.0.1\": must be HOST:PORT"), "{}", done.err);
}

#[test]
fn all_pages_are_listed() {
    let pools = ["a", "b", "c", "d", "e"].map(sample_pool).to_vec();
    let member = Member::start(Script { pools, ..Script::default() });
    let done = trestle(&at(&member), &["pool", "ls", "-o", "json", "--local"]);
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    let names: Vec<_> = json.as_array().unwrap().iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(done.err, "{\"note\":\"read from m1 alone, at revision 12: may be stale\"}\n");
}

#[test]
fn backends_are_listed_with_their_health_and_without() {
    let views = vec![sample_view("m1", v1::Verdict::Unhealthy, "connection refused")];
    let seen = |name: &str, views| v1::BackendHealth {
        name: format!("pools/web/backends/{name}"),
        views,
        ..v1::BackendHealth::default()
    };
    // It comes on the second page.
    let backends = vec![seen("0", vec![]), seen("a", views)];
    let health = v1::PoolHealth { backends, ..Default::default() };
    let member = Member::start(Script { health: Some(health), ..Script::default() });
    let done = trestle(&at(&member), &["backend", "list", "web"]);
    let row =
        "web/a   10.0.0.1:8080   1        enabled   healthy on 0/1 members (m1: connection refused)   3\n";
    assert!(done.out.ends_with(row), "{}", done.out);

    let member = Member::start(Script::default());
    let done = trestle(&at(&member), &["backend", "list", "web"]);
    assert_eq!(done.code, 0);
    assert!(done.out.ends_with("web/a   10.0.0.1:8080   1        enabled   -        -\n"), "{}", done.out);
    assert_eq!(done.err, "warning: health is not shown: pool \"web\" does not exist\n");
}

#[test]
fn a_listener_is_sent_with_all_that_is_typed() {
    let member = Member::start(Script::default());
    let arguments = [
        &["listener", "create", "front", "--bind", ":443,:30000-30010", "--pool", "web"][..],
        &["--route", "*.example.com,alpn:h2=api", "--route", "a.example=a", "--accept-proxy"],
        &["--allow", "10.0.0.0/8,192.0.2.7", "--deny", "10.9.0.0/16", "--max-connections", "1000"],
        &["--max-connections-per-source", "10", "--accept-rate", "500", "--accept-rate-per-source", "5"],
    ];
    let done = trestle(&at(&member), &arguments.concat());
    assert_eq!((done.code, done.out.as_str()), (0, "listener front created (revision 14)\n"), "{}", done.err);
    let texts = |list: &[&str]| -> Vec<String> { list.iter().map(|&text| text.to_owned()).collect() };
    let expected = v1::Listener {
        binds: texts(&["0.0.0.0:443", "0.0.0.0:30000-30010"]),
        pool: "pools/web".to_owned(),
        routes: vec![
            v1::Route {
                server_names: texts(&["*.example.com"]),
                alpn: texts(&["h2"]),
                pool: "pools/api".to_owned(),
            },
            v1::Route { server_names: texts(&["a.example"]), alpn: vec![], pool: "pools/a".to_owned() },
        ],
        accept_proxy_from: texts(&["0.0.0.0/0", "::/0"]),
        allow: texts(&["10.0.0.0/8", "192.0.2.7/32"]),
        deny: texts(&["10.9.0.0/16"]),
        max_connections: 1000,
        max_connections_per_source: 10,
        accept_rate: 500,
        accept_rate_per_source: 5,
        ..v1::Listener::default()
    };
    assert_eq!(member.script.lock().unwrap().listened[0].listener, Some(expected));

    let done = trestle(&at(&member), &["listener", "update", "front", "--no-route", "--deny", "::1"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let request = member.script.lock().unwrap().relistened[0].clone();
    assert_eq!(request.update_mask.unwrap().paths, ["routes", "deny"]);
    let listener = request.listener.unwrap();
    assert_eq!((listener.routes.len(), listener.deny), (0, texts(&["::1/128"])));

    for (args, words) in [
        (vec!["--route", "api.example.com"], "must be NAME=POOL, as in api.example.com=api"),
        (vec!["--route", "a.example=a b"], "leads to \"a b\""),
        (vec!["--allow", "10.0.0.1/8"], "must have no bits beyond its prefix"),
        (vec!["--accept-proxy", "--accept-proxy-from", "10.0.0.0/8"], "cannot be used with"),
        (vec!["--no-deny", "--deny", "10.0.0.0/8"], "cannot be used with"),
    ] {
        let done = trestle(&at(&member), &[vec!["listener", "update", "front"], args.clone()].concat());
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains(words), "{args:?}: {}", done.err);
    }
}

#[test]
fn top_prints_what_one_look_shows_where_there_is_no_screen() {
    let bound = |member: &str| v1::ListenerView {
        listener: "listeners/front".to_owned(),
        member: format!("members/{member}"),
        bound: vec!["0.0.0.0:443".to_owned()],
        active_connections: 2,
        ..v1::ListenerView::default()
    };
    let views = vec![
        sample_view("m1", v1::Verdict::Healthy, ""),
        sample_view("m2", v1::Verdict::Unhealthy, "connection refused"),
    ];
    let health = v1::PoolHealth {
        backends: vec![v1::BackendHealth {
            name: "pools/web/backends/a".to_owned(),
            views,
            address: "10.0.0.1:8080".to_owned(),
            admin_state: v1::AdminState::Enabled.into(),
        }],
        unreachable_members: vec!["members/m3".to_owned()],
        ..Default::default()
    };
    let script = Script {
        health: Some(health),
        pools: ["empty", "web", "zero"].map(sample_pool).to_vec(),
        bound: v1::ListenerHealth {
            views: vec![bound("m1"), bound("m2"), bound("m3")],
            ..Default::default()
        },
        ..Script::default()
    };
    let member = Member::start(script);
    let endpoints = [closed(), member.address.to_string()];
    let done = trestle(&endpoints, &["top", "--interval", "100ms"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let lines: Vec<&str> = done.out.lines().collect();
    let summary = format!("leader m1   3 of 3 voters answer   revision 12   via {}", member.address);
    assert_eq!(lines[0], summary);
    assert_eq!(lines[1], "m1 leader 5 conns   m2 follower 5 conns   m3 follower 5 conns");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert!(words(lines[4]).starts_with("front 3/3 6 "), "{}", done.out);
    assert_eq!(words(lines[7]), "empty 0 - - - - no backends", "{}", done.out);
    assert_eq!(words(lines[8]), "web 6 0 0 B 0 B 0 0/1 healthy", "{}", done.out);
    let row = "a ok DOWN - 6 0 0 B 0 B 0 m2: connection refused 10.0.0.1:8080";
    assert_eq!(words(lines[9]), row, "{}", done.out);
    assert_eq!(lines.len(), 11, "{}", done.out);

    let done = trestle(&endpoints, &["top", "--once", "-i", "100ms", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert!(json["listeners"][0]["connections_per_second"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!(json["pools"][1]["backends"][0]["verdicts"][1], "unhealthy");

    let done = trestle(&[closed()], &["top", "--once"]);
    assert_eq!((done.code, done.out.as_str()), (1, ""), "{}", done.err);
    assert!(done.err.starts_with("error: no member answers"), "{}", done.err);
    assert_eq!(trestle(&[closed()], &["top", "--interval", "1ms"]).code, 2);
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let member = Member::start(Script::default());
    let err = Buffer::default();
    let terminal = Terminal::new(Closed, err.clone());
    let address = member.address.to_string();
    let exit = run_on(["trestle", "--endpoint", &address, "status"].map(Into::into), terminal);
    assert_eq!((exit, err.text().as_str()), (ExitCode::SUCCESS, ""));
}

#[test]
fn completions_and_help_need_no_member() {
    for shell in ["bash", "zsh", "fish"] {
        let done = trestle(&[closed()], &["completions", shell]);
        assert!(done.code == 0 && done.out.contains("least-connections"), "{shell}");
    }
    let done = trestle(&[closed()], &["--help"]);
    assert!(done.code == 0 && done.err.is_empty() && done.out.contains("completions"), "{}", done.err);
}
