//! What scripts count on: commands that may be run again, exit codes, and documents that programs can compare.

use std::process::Command;
use std::thread;

use serde_json::Value;
use trestle_testkit::Cluster;

use crate::command_line::golden_session;
use crate::{Finished, finish, programs, trestle, trestled};

/// `golden/scripts.txt` is what it must look like, with the member's address written as 127.0.0.1 and revisions as N.
const SESSION: &str = "
cluster bootstrap --if-absent
cluster bootstrap
member add 127.0.0.1:7481 --if-absent
pool create web --health none --if-absent
pool create web --health none --if-absent
pool create web --if-absent
pool create web --algorithm first --health tls --if-absent
pool create web --if-absent --dry-run
backend add web/a 10.0.0.1:80 --if-absent
backend drain web/a
backend add web/a 10.0.0.1:80 --if-absent
backend add web/a 10.0.0.2:80 --weight 2 --if-absent
listener create front --bind :8080 --pool web --if-absent --wait
listener create front --bind :8080 --pool web --if-absent
listener create front --bind :8081 --pool web --deny 10.0.0.0/8 --if-absent
listener create other --bind :8080 --pool web --if-absent
vip create 192.0.2.30/24 --name api --if-absent
vip create 192.0.2.30/24 --name api --if-absent
vip create 192.0.2.31/24 --name api --on-quorum-loss hold --if-absent
vip delete api
backend list
pool create web --algorithm first --if-absent -o json --request-id mine
pool create web --if-absent -o json --wait --dry-run
pool get nothing -o json
pool get nothing -o yaml
get pools -o json
get pools
backend add web b 10.0.0.3:80
listener create third --bind 6443 --pool web
backend update --help
pool --help
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scripts_session_looks_as_it_should() {
    let mut cluster = Cluster::start_with(trestled(), 1, "profile = \"wide\"\n").await;
    golden_session(&cluster, SESSION, "scripts.txt", include_str!("golden/scripts.txt"), without_revisions);
    // In good order, so that nothing of the virtual IP stays on this machine.
    assert!(cluster.members[0].stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_may_be_run_again_and_stops_where_something_differs() {
    let cluster = Cluster::start(trestled(), 3).await;
    let path = std::env::join_paths(
        std::iter::once(programs()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    let run = || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/control-plane.sh");
        let mut command = Command::new("sh");
        finish(command.arg(script).env("PATH", &path).env("TRESTLE_ENDPOINT", cluster.endpoints()))
    };
    let first = run().expect_success();
    let steps = first.lines().count();
    assert!(first.lines().all(|line| line.contains(" created ") || line.contains(" added ")), "{first}");
    let before = trestle(&cluster.endpoints(), &["status", "-o", "json"]).expect_success();
    let again = run().expect_success();
    assert_eq!(again.lines().count(), steps, "{again}");
    assert!(again.lines().all(|line| line.contains(" exists already, unchanged (revision ")), "{again}");
    let after = trestle(&cluster.endpoints(), &["status", "-o", "json"]).expect_success();
    let revision = |text: &str| serde_json::from_str::<Value>(text).unwrap()["revision"].clone();
    assert_eq!(revision(&before), revision(&after));

    let endpoints = cluster.endpoints();
    let update = ["backend", "update", "back/k0s-controller3", "--address", "10.0.0.9"];
    trestle(&endpoints, &update).expect_success();
    let stopped = run();
    assert_eq!(stopped.code, Some(4), "{}", stopped.stderr);
    assert_eq!(stopped.stdout.lines().count(), 3, "{}", stopped.stdout);
    assert!(
        stopped.stderr.ends_with("\nerror: backend.address \"10.0.0.3\": is 10.0.0.9 there\n"),
        "{}",
        stopped.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_create_at_once_one_does_and_the_others_learn_what_is_there() {
    const AT_ONCE: usize = 6;
    let cluster = Cluster::start(trestled(), 3).await;
    let race = |name: &str, algorithm: fn(usize) -> &'static str| -> Vec<Finished> {
        thread::scope(|scope| {
            let runs: Vec<_> = (0..AT_ONCE)
                .map(|number| {
                    // Each through a member of its own, so that most are forwarded.
                    let endpoint = cluster.members[number % 3].admin().to_string();
                    let args = ["pool", "create", name, "--if-absent", "--algorithm", algorithm(number)];
                    scope.spawn(move || trestle(&endpoint, &args))
                })
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        })
    };
    let said = |runs: &[Finished], words: &str| runs.iter().filter(|run| run.stdout.contains(words)).count();

    let same = race("same", |_| "first");
    assert!(
        same.iter().all(|run| run.code == Some(0)),
        "{:?}",
        same.iter().map(|run| &run.stderr).collect::<Vec<_>>()
    );
    assert_eq!((said(&same, " created "), said(&same, " unchanged ")), (1, AT_ONCE - 1));

    let differing = race("differing", |number| if number % 2 == 0 { "first" } else { "random-two" });
    let code = |code| differing.iter().filter(|run| run.code == Some(code)).count();
    assert_eq!((code(0), code(4)), (AT_ONCE / 2, AT_ONCE / 2));
    assert_eq!((said(&differing, " created "), said(&differing, " unchanged ")), (1, AT_ONCE / 2 - 1));
}

/// Entries of the members' own come between those of the session, sooner or later.
fn without_revisions(said: &str) -> String {
    let mut parts = said.split("revision ");
    let first = parts.next().unwrap_or_default().to_owned();
    let masked = |part: &str| format!("revision N{}", part.trim_start_matches(|c: char| c.is_ascii_digit()));
    parts.fold(first, |text, part| text + &masked(part))
}

/// Every duration of a document that is text, whose number is missing or another one.
fn wrong_durations(path: &str, value: &Value, wrong: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|value| wrong_durations(path, value, wrong)),
        Value::Object(all) => {
            for (key, value) in all {
                let path = format!("{path}.{key}");
                wrong_durations(&path, value, wrong);
                let Some(time) = value.as_str().filter(|text| is_duration(text)) else { continue };
                let seconds = all.get(&format!("{key}_seconds")).and_then(Value::as_f64);
                if seconds.is_none() {
                    wrong.push(format!("{path} = {time}"));
                }
            }
        }
        _ => {}
    }
}

fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let units = ["ns", "us", "ms", "s", "m", "h", "day", "days"];
    text.starts_with(|c: char| c.is_ascii_digit())
        && units
            .iter()
            .any(|known| unit.strip_prefix(known).is_some_and(|rest| rest.is_empty() || is_duration(rest)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_can_compare_every_duration_and_read_every_time() {
    let cluster = Cluster::start(trestled(), 1).await;
    let endpoints = cluster.endpoints();
    let run = |args: &[&str]| trestle(&endpoints, args).expect_success();
    run(&["pool", "create", "web", "--health-interval", "1m30s", "--slow-start", "30s"]);
    run(&["backend", "add", "web/a", "127.0.0.1:1"]);
    run(&["backend", "drain", "web/a", "--deadline", "2m"]);
    run(&["listener", "create", "front", "--bind", ":8080", "--pool", "web"]);
    let mut wrong = Vec::new();
    for args in [
        &["status"][..],
        &["top", "--once"],
        &["pool", "list"],
        &["backend", "list"],
        &["backend", "get", "web/a"],
        &["listener", "list"],
        &["listener", "get", "front"],
        &["member", "list"],
        &["vip", "list"],
        &["vip", "history"],
        &["connection", "list"],
        &["leader", "show"],
    ] {
        let text = run(&[args, &["-o", "json"]].concat());
        wrong_durations(&args.join(" "), &serde_json::from_str(&text).unwrap(), &mut wrong);
    }
    assert!(wrong.is_empty(), "durations that only people can compare: {wrong:#?}");

    let backend: Value = serde_json::from_str(&run(&["backend", "get", "web/a", "-o", "json"])).unwrap();
    assert_eq!(
        (&backend["drain_deadline"], &backend["drain_deadline_seconds"]),
        (&"2m".into(), &120.0.into())
    );
    let view = &backend["health"]["views"][0];
    let since = view["since"].as_str().unwrap();
    assert!(since.len() == 20 && since.starts_with("20") && since.ends_with('Z'), "{since}");
    assert!(view["age_seconds"].as_f64().unwrap() < 3600.0, "{view}");
}
