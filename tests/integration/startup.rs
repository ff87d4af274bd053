//! What an operator gets wrong before a member even runs.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use trestle_testkit::{Member, Subnet, wait_for};

use crate::{Finished, finish, trestled};

fn check(config: &str) -> Finished {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("trestled.toml");
    std::fs::write(&path, config).unwrap();
    finish(Command::new(trestled()).arg("--config").arg(&path).arg("--check-config"))
}

#[test]
fn shipped_examples_are_in_order() {
    for name in ["examples/loopback", "examples/network", "kubernetes/trestled"] {
        let path = format!("{}/deploy/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        finish(Command::new(trestled()).args(["--config", &path, "--check-config"])).expect_success();
    }
}

#[test]
fn all_mistakes_are_listed_together() {
    let finished = check(
        "name = \"a/b\"\nadmin_adress = \"127.0.0.1:7480\"\npeer_address = \"10.0.0.1\"\nhttp_address = 7482\n\
         workers = 9999\nprofile = \"quick\"\nshutdown_grace = \"soon\"\njoin = [\"nowhere\"]\n",
    );
    assert_eq!(finished.code, Some(64), "{}", finished.stderr);
    for part in [
        "a/b",
        "admin_adress",
        "10.0.0.1",
        "insecure = true",
        "http_address",
        "9999",
        "quick",
        "soon",
        "nowhere",
    ] {
        assert!(finished.stderr.contains(part), "no {part:?} in: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_named() {
    let finished = check("name = \n");
    assert_eq!(finished.code, Some(64));
    assert!(finished.stderr.contains("trestled.toml:1"), "{}", finished.stderr);
    let finished = finish(Command::new(trestled()).args(["--config", "/nowhere/trestled.toml"]));
    assert_eq!(finished.code, Some(64));
    assert!(finished.stderr.contains("/nowhere/trestled.toml"), "{}", finished.stderr);
}

#[test]
fn a_file_that_cannot_be_read_now_is_no_mistake_in_it() {
    // A directory is refused by the read, as a failing disk would refuse it.
    let dir = tempfile::TempDir::new().unwrap();
    let finished = finish(Command::new(trestled()).arg("--config").arg(dir.path()));
    assert_eq!(finished.code, Some(66), "{}", finished.stderr);
    assert!(finished.stderr.contains(&dir.path().display().to_string()), "{}", finished.stderr);
}

#[test]
fn flags_go_before_variables_before_the_file() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("trestled.toml");
    std::fs::write(&path, "name = \"from-file\"\nworkers = 2\n").unwrap();
    let run = |variable: Option<&str>, flag: Option<&str>| {
        let mut command = Command::new(trestled());
        command.arg("--config").arg(&path).arg("--check-config");
        command.envs(variable.map(|name| ("TRESTLE_NAME", name)));
        command.args(flag.map(|name| format!("--name={name}")));
        let finished = finish(&mut command);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout + &finished.stderr
    };
    assert!(run(None, None).contains("from-file"));
    assert!(run(Some("from-variable"), None).contains("from-variable"));
    assert!(run(Some("from-variable"), Some("from-flag")).contains("from-flag"));
}

#[test]
fn a_port_in_use_is_named() {
    let subnet = Subnet::claim();
    for port in [7480, 7481, 7482] {
        let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
        let taken = TcpListener::bind((member.ip, port)).unwrap();
        member.spawn();
        let status = member.exited();
        let output = member.output();
        assert_eq!(status.code(), Some(69), "{output}");
        assert!(output.contains(&taken.local_addr().unwrap().to_string()), "{output}");
    }
}

#[test]
fn a_data_directory_in_use_is_named() {
    let subnet = Subnet::claim();
    let mut first = Member::new(trestled(), "m1", subnet.ip(1), "");
    first.start();
    let mut second = Member::new(trestled(), "m2", subnet.ip(2), "");
    let config = std::fs::read_to_string(second.config()).unwrap();
    let (own, other) = (second.data_dir().display().to_string(), first.data_dir().display().to_string());
    std::fs::write(second.config(), config.replace(&own, &other)).unwrap();
    second.spawn();
    let status = second.exited();
    let output = second.output();
    assert_eq!(status.code(), Some(75), "{output}");
    assert!(output.contains(&other) && output.contains("another process"), "{output}");
}

#[test]
fn an_open_network_is_warned_about() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    member.start();
    // Log lines are written behind the member's back.
    wait_for("a warning", Duration::from_secs(10), || {
        if member.output().contains("insecure") { Ok(()) } else { Err(member.output()) }
    });
}
