//! Clocks that are wrong, and certificates that end: what goes on, who is let in, and what is said.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use trestle_identity::{CertificateFacts, from_pem, time_text};
use trestle_testkit::{Cluster, FakeClock, Member, Origin, Traffic, fetch_http, get, wait_for};

use crate::guests::{local, secure};
use crate::{Finished, finish, trestled};

const LIMIT: Duration = Duration::from_secs(90);
/// Within this, users get in again where a clock was put right. Ten minutes are promised.
const RIGHT_AGAIN: Duration = Duration::from_secs(120);
const DAY: i64 = 24 * 3600;
const HOUR: i64 = 3600;
const YEARS: i64 = 3650 * DAY + HOUR;

/// `trestle` with a context, by a clock.
fn by(clock: &FakeClock, context: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    command.env_remove("TRESTLE_ENDPOINT").env_remove("TRESTLE_CONTEXT").envs(clock.variables());
    finish(command.arg("--context").arg(context).args(arguments))
}

/// The same at one member.
fn at(clock: &FakeClock, context: &Path, member: &Member, arguments: &[&str]) -> Finished {
    let endpoint = member.admin().to_string();
    by(clock, context, &[&["--endpoint", &endpoint], arguments].concat())
}

/// Waits until a command does what it should; answers its output and how long that took.
fn done(what: &str, limit: Duration, mut run: impl FnMut() -> Finished) -> (String, Duration) {
    let begun = Instant::now();
    let output = wait_for(what, limit, || {
        let done = run();
        if done.code == Some(0) { Ok(done.stdout) } else { Err(done.stderr) }
    });
    (output, begun.elapsed())
}

/// Waits until a command is refused in these words.
fn refused(what: &str, words: &[&str], mut run: impl FnMut() -> Finished) -> String {
    wait_for(what, LIMIT, || {
        let done = run();
        let told = done.code != Some(0) && words.iter().all(|words| done.stderr.contains(words));
        if told { Ok(done.stderr) } else { Err(format!("{:?}: {}{}", done.code, done.stdout, done.stderr)) }
    })
}

fn problems(status: &str) -> Vec<String> {
    let status: Value = serde_json::from_str(status).unwrap();
    status["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem.as_str().unwrap().to_owned())
        .collect()
}

/// Waits until the status that a member gives over its socket has a problem with these words, or none; answers all.
fn has_problem(member: &Member, words: &str, wanted: bool) -> Vec<String> {
    wait_for(&format!("a problem with {words:?}: {wanted}"), LIMIT, || {
        let status = local(member, &["status", "-o", "json"]);
        if status.code != Some(0) {
            return Err(status.stderr);
        }
        let problems = problems(&status.stdout);
        let found = problems.iter().any(|problem| problem.contains(words));
        if found == wanted { Ok(problems) } else { Err(format!("{problems:#?}")) }
    })
}

/// Starts a member again, by this clock.
fn restart(member: &mut Member, clock: &FakeClock) {
    member.stop();
    for (name, value) in clock.variables() {
        member.environment(name, value);
    }
    member.start();
}

fn certificate(file: &Path) -> CertificateFacts {
    CertificateFacts::read(&from_pem(&std::fs::read_to_string(file).unwrap()).unwrap()[0]).unwrap()
}

fn own_certificate(member: &Member) -> CertificateFacts {
    certificate(&member.data_dir().join("tls").join("member.crt"))
}

/// A value of a member's metrics.
fn metric(member: &Member, name: &str) -> Option<f64> {
    let page = get(member.http(), "/metrics").ok()?;
    let line =
        page.body.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_off_for_a_hundred_days_serves_and_lets_users_in() {
    let Some(clock) = FakeClock::new() else { return };
    let (mut cluster, _home, context) = secure().await;
    for member in &mut cluster.members {
        member.stop();
    }
    clock.set(100 * DAY);
    for member in &mut cluster.members {
        for (name, value) in clock.variables() {
            member.environment(name, value);
        }
        // What was signed has ended more than two months ago.
        assert!(own_certificate(member).not_after < SystemTime::now() + Duration::from_secs(31 * 24 * 3600));
        member.spawn();
    }
    let (_, took) = done("a write of a user", LIMIT, || by(&clock, &context, &["pool", "create", "late"]));
    eprintln!("a user wrote {took:?} after the start");
    for member in &cluster.members {
        let begun = Duration::from_secs(99 * 24 * 3600);
        wait_for("a new certificate", LIMIT, || {
            let facts = own_certificate(member);
            if facts.not_before > SystemTime::now() + begun { Ok(()) } else { Err(format!("{facts:?}")) }
        });
        done("a user's read", LIMIT, || at(&clock, &context, member, &["pool", "list"]));
        has_problem(member, "cannot be signed", false);
        has_problem(member, "its clock shows", false);
        // The log's time follows by a day at a time, and certificates are judged by the clocks.
        let log = metric(member, "trestle_log_timestamp_seconds").unwrap();
        assert!(log < now() + 3.0 * DAY as f64, "{log}");
        assert!(metric(member, "trestle_clock_skew_seconds").unwrap().abs() < 5.0);
    }
    // Where clocks are right, it is the users' own that tells.
    let right = FakeClock::new().unwrap();
    refused("a user whose clock is behind", &["is valid from", "by the clock of this machine"], || {
        by(&right, &context, &["pool", "list"])
    });
}

/// One of three members has a wrong clock: `place`, which leads if it is to.
async fn one_clock_is_wrong(leads: bool) {
    let Some(clock) = FakeClock::new() else { return };
    let right = FakeClock::new().unwrap();
    let (mut cluster, _home, context) = secure().await;
    let origin = Origin::start((cluster.subnet.ip(20), 0), "origin");
    let user = |arguments: &[&str]| by(&right, &context, arguments);
    user(&["pool", "create", "web", "--health", "none"]).expect_success();
    user(&["backend", "add", "web/a", &origin.address().to_string()]).expect_success();
    user(&["listener", "create", "web", "--bind", ":8080", "--pool", "web", "--wait"]).expect_success();
    restart(&mut cluster.members[1], &clock);
    done("the member's return", LIMIT, || at(&right, &context, &cluster.members[1], &["pool", "list"]));
    if leads {
        let transfer = || user(&["leader", "transfer", "--to", "m2"]);
        done("leadership of the member", LIMIT, transfer);
    }
    let targets: Vec<SocketAddr> = cluster.members.iter().map(|member| (member.ip, 8080).into()).collect();
    let traffic = Traffic::start(&targets, fetch_http);
    let log_before = metric(&cluster.members[0], "trestle_log_timestamp_seconds").unwrap();
    let mut number = 0;
    for (offset, way) in [(YEARS, "ahead of"), (-YEARS, "behind")] {
        clock.set(offset);
        let wrong = &cluster.members[1];
        let told = has_problem(&cluster.members[0], &format!("3650 days {way} what a quorum"), true);
        assert!(told.iter().any(|problem| problem.starts_with("m2: its clock shows")), "{told:#?}");
        // Threads notice one after the other that the file has changed.
        wait_for("the metric", LIMIT, || match metric(wrong, "trestle_clock_skew_seconds") {
            Some(skew) if (skew - offset as f64).abs() < 60.0 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        for member in &cluster.members {
            number += 1;
            let pool = format!("pool-{number}");
            let (_, took) =
                done("a write", LIMIT, || at(&right, &context, member, &["pool", "create", &pool]));
            eprintln!("by {offset} s: {} wrote after {took:?}", member.name);
        }
        // It is told of by all; no certificate was made by it.
        let facts = own_certificate(&cluster.members[1]);
        assert!(facts.not_before < SystemTime::now() && SystemTime::now() < facts.not_after, "{facts:?}");
        let log = metric(&cluster.members[1], "trestle_log_timestamp_seconds").unwrap();
        assert!((log_before..now() + 60.0).contains(&log), "{log_before} {log}");
        if leads {
            let leader = user(&["leader", "show"]).expect_success();
            assert!(leader.contains("m2"), "a wrong clock took leadership away: {leader}");
        }
    }
    traffic.stop().assert_no_failure();
    // With nobody to agree with, it has only its clock, and says what it shows beside what the log has.
    clock.set(YEARS);
    cluster.members[2].stop();
    let words =
        ["its certificate expired at", "by the clock of this machine, while the cluster's log has come to"];
    let told = refused("a user at the member", &words, || {
        at(&right, &context, &cluster.members[1], &["pool", "list"])
    });
    eprintln!("{told}");
    has_problem(&cluster.members[1], "no quorum of the members' clocks agree", true);
    done("a read elsewhere", LIMIT, || at(&right, &context, &cluster.members[0], &["pool", "list"]));
    clock.set(0);
    let (_, took) = done("a user at the member", RIGHT_AGAIN, || {
        at(&right, &context, &cluster.members[1], &["pool", "list"])
    });
    eprintln!("a user got in {took:?} after the clock was put right");
    let facts = own_certificate(&cluster.members[1]);
    assert!(facts.not_before < SystemTime::now() && SystemTime::now() < facts.not_after, "{facts:?}");
    has_problem(&cluster.members[1], "clock", false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_clock_is_ten_years_off_serves_and_says_so() {
    one_clock_is_wrong(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_ten_years_off_serves_and_says_so() {
    one_clock_is_wrong(true).await;
}

/// A cluster of one member that runs by a clock, with a user's context.
async fn single(clock: &FakeClock) -> Cluster {
    let mut cluster = Cluster::start(trestled(), 1).await;
    restart(&mut cluster.members[0], clock);
    wait_for("the log's time", LIMIT, || {
        metric(&cluster.members[0], "trestle_log_timestamp_seconds")
            .ok_or_else(|| format!("{:?}", get(cluster.members[0].http(), "/metrics")))
    });
    wait_for("a certificate", LIMIT, || {
        let file = cluster.members[0].data_dir().join("tls").join("member.crt");
        if file.exists() { Ok(()) } else { Err("none yet") }
    });
    cluster
}

fn create(member: &Member, dir: &Path, name: &str, more: &[&str]) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let out = file.to_str().unwrap();
    local(member, &[&["user", "create", name, "--role", "viewer", "--out", out], more].concat())
        .expect_success();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_clock_goes_by_its_log() {
    let (Some(clock), Some(right)) = (FakeClock::new(), FakeClock::new()) else { return };
    let mut cluster = single(&clock).await;
    let dir = tempfile::tempdir().unwrap();
    let context = create(&cluster.members[0], dir.path(), "ann", &[]);
    by(&right, &context, &["pool", "list"]).expect_success();
    // Some days after the beginning of 1970.
    clock.set(3 * DAY - now() as i64);
    restart(&mut cluster.members[0], &clock);
    let (_, took) = done("a user", LIMIT, || by(&right, &context, &["pool", "list"]));
    eprintln!("a user got in {took:?} after the start");
    let output = cluster.members[0].output();
    assert!(output.contains("1970-01-0"), "its clock shows another time: {output}");
    by(&right, &create(&cluster.members[0], dir.path(), "new", &[]), &["pool", "list"]).expect_success();
}

fn a_context_that_cannot_be_written_is_used(clock: &FakeClock, bob: &Path) {
    let fixed = certificate(bob);
    let place = bob.parent().unwrap();
    let immutable =
        |flag: &str| Command::new("chattr").arg(flag).arg(place).status().is_ok_and(|s| s.success());
    if immutable("+i") {
        let read = by(clock, bob, &["pool", "list"]);
        assert!(immutable("-i"));
        assert_eq!(read.code, Some(0), "{}", read.stderr);
        assert!(read.stderr.contains("was not renewed: cannot"), "{}", read.stderr);
        assert_eq!(certificate(bob), fixed);
    }
}

fn many_at_once_leave_a_whole_file(clock: &FakeClock, bob: &Path) {
    let all: Vec<_> = (0..6)
        .map(|_| {
            let (bob, variables) = (bob.to_owned(), clock.variables());
            std::thread::spawn(move || {
                let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
                command.env_remove("TRESTLE_ENDPOINT").env_remove("TRESTLE_CONTEXT").envs(variables);
                finish(command.arg("--context").arg(bob).args(["pool", "list"]))
            })
        })
        .collect();
    for one in all {
        let done = one.join().unwrap();
        assert!(done.code == Some(0) && !done.stderr.contains("warning"), "{}", done.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_user_is_renewed_when_two_thirds_of_its_life_are_over() {
    let Some(clock) = FakeClock::new() else { return };
    let cluster = single(&clock).await;
    let member = &cluster.members[0];
    let dir = tempfile::tempdir().unwrap();
    let (ann, bob) = (dir.path().join("ann"), dir.path().join("bob"));
    std::fs::create_dir(&ann).unwrap();
    std::fs::create_dir(&bob).unwrap();
    let (ann, bob) = (create(member, &ann, "ann", &[]), create(member, &bob, "bob", &["--ttl", "300d"]));
    let day = create(member, dir.path(), "day", &["--ttl", "24h"]);
    let before = certificate(&ann);
    by(&clock, &ann, &["pool", "list"]).expect_success();
    assert_eq!(certificate(&ann), before, "it was renewed too early");
    // A certificate of a day, by the member's clock over and by the user's not.
    clock.set(25 * HOUR);
    let users = FakeClock::new().unwrap();
    users.set(23 * HOUR);
    let words = ["its certificate expired at", "by the clock of this machine", "trestle user rotate day"];
    let told =
        refused("a user whose certificate is over", &words[..2], || by(&users, &day, &["pool", "list"]));
    eprintln!("{told}");
    refused("the same by its own clock", &words, || by(&clock, &day, &["pool", "list"]));
    // Two thirds of a year are over.
    clock.set(280 * DAY);
    done("a member's new certificate", LIMIT, || by(&clock, &bob, &["context", "list"]));
    let told = has_problem(member, "bob (viewer) at", true);
    assert!(told.iter().any(|problem| problem.contains("the certificate of 1 user ends")), "{told:#?}");
    assert!(!told.iter().any(|problem| problem.contains("ann")), "{told:#?}");
    done("a read", LIMIT, || by(&clock, &ann, &["pool", "list"]));
    let after = certificate(&ann);
    assert_eq!(after.pin, before.pin);
    let year = Duration::from_secs(365 * 24 * 3600);
    assert!(after.not_after > before.not_after + year / 2, "{after:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&ann).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let listed = local(member, &["user", "list", "-o", "json"]).expect_success();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let of =
        |name: &str| listed.as_array().unwrap().iter().find(|user| user["name"] == name).unwrap().clone();
    let end = time_text(after.not_after);
    assert_eq!(of("ann")["keys"][0]["expire_time"], Value::String(end));
    assert_eq!(of("ann")["keys"][0]["authority"], 1);
    let fixed = certificate(&bob);
    a_context_that_cannot_be_written_is_used(&clock, &bob);
    many_at_once_leave_a_whole_file(&clock, &bob);
    assert!(certificate(&bob).not_after > fixed.not_after);
    has_problem(member, "within 30 days", false);
    // Nine years on, the authority is told of; its metric was right before.
    let authority =
        metric(member, "trestle_certificate_expiry_timestamp_seconds{kind=\"authority\"}").unwrap();
    assert!((authority - now() - YEARS as f64).abs() < 3.0 * HOUR as f64, "{authority}");
    clock.set(9 * 365 * DAY + DAY);
    has_problem(member, "trestle ca rotate", true);
    has_problem(member, "the certificates of 2 users end within", false);
}
