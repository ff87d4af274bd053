//! A cluster is founded with identities by whoever is root on its first member's machine, and one that was founded without gets them
//! while it serves.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trestle_testkit::{Cluster, Member, Subnet, wait_for};

use crate::{Finished, finish, trestled};

/// A person with a home, on a member's machine or another.
struct Person(tempfile::TempDir);

impl Person {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn contexts(&self) -> PathBuf {
        self.0.path().join("trestle").join("config.toml")
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        command.env("XDG_CONFIG_HOME", self.0.path()).env_remove("TRESTLE_ENDPOINT");
        finish(command.env_remove("TRESTLE_CONTEXT").args(arguments))
    }

    /// As the user that the member runs as, over its admin socket.
    fn local(&self, member: &Member, arguments: &[&str]) -> Finished {
        let endpoint = format!("unix:{}", member.admin_socket().display());
        self.run(&[&["--endpoint", &endpoint], arguments].concat())
    }
}

fn empty() -> (Member, Subnet) {
    let subnet = Subnet::claim();
    let mut member = Member::secure(trestled(), "m1", subnet.ip(1), "");
    member.start();
    (member, subnet)
}

fn document(finished: Finished) -> Value {
    serde_json::from_str(&finished.expect_success()).unwrap()
}

#[test]
fn founding_over_the_socket_makes_an_admin_whose_context_works_from_elsewhere() {
    let (member, _subnet) = empty();
    let person = Person::new();
    let done = person.local(&member, &["cluster", "bootstrap"]);
    let file = person.contexts();
    let told = &done.stdout;
    for part in ["with m1 as its first voter", "user admin created as admin", &file.display().to_string()] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // The context is the current one, at the member's address.
    let context = document(person.run(&["context", "list", "-o", "json"]));
    let listed =
        person.run(&["--context", context[0]["name"].as_str().unwrap(), "user", "list"]).expect_success();
    assert!(listed.contains("admin"), "{listed}");
    let status = document(person.local(&member, &["cluster", "secure", "-o", "json"]));
    assert_eq!((&status["transport"], &status["members"][0]["name"]), (&"require".into(), &"m1".into()));
    assert_eq!(status["members"][0]["keys"].as_array().unwrap().len(), 1, "{status}");

    let again = person.local(&member, &["cluster", "bootstrap"]);
    assert_eq!(again.code, Some(4), "{}", again.stderr);
    let again = person.local(&member, &["cluster", "bootstrap", "--if-absent"]).expect_success();
    assert!(again.contains("exists already, unchanged"), "{again}");
    let users = person.local(&member, &["user", "list"]).expect_success();
    assert_eq!(users.lines().count(), 2, "{users}");
}

#[test]
fn the_first_user_has_the_name_and_the_file_that_were_asked_for() {
    let (member, _subnet) = empty();
    let person = Person::new();
    let bad = person.local(&member, &["cluster", "bootstrap", "--user", "a/b"]);
    assert!(bad.code == Some(2) && bad.stderr.contains("--user"), "{}", bad.stderr);
    // What could not be kept is not made.
    let directory = person.0.path().to_str().unwrap();
    let unkept = person.local(&member, &["cluster", "bootstrap", "--out", directory]);
    assert!(unkept.code == Some(1) && unkept.stderr.contains(directory), "{}", unkept.stderr);
    let status = person.local(&member, &["status"]).expect_success();
    assert!(status.contains("belongs to no cluster yet"), "{status}");

    let done = person.local(&member, &["cluster", "bootstrap", "--user", "ann", "--out", "-"]);
    assert!(done.stderr.contains("user ann created as admin"), "{}", done.stderr);
    assert!(!person.contexts().exists());
    let file = person.0.path().join("ann.toml");
    std::fs::write(&file, done.expect_success()).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let listed = person.run(&["--context", file.to_str().unwrap(), "user", "list"]).expect_success();
    assert!(listed.contains("ann"), "{listed}");
}

#[test]
fn an_insecure_member_founds_over_tcp_for_whoever_calls() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    member.start();
    let person = Person::new();
    let admin = member.admin().to_string();
    let founded = document(person.run(&["--endpoint", &admin, "cluster", "bootstrap", "-o", "json"]));
    assert!(founded["admin"].is_null() && !person.contexts().exists(), "{founded}");
    let status = document(person.run(&["--endpoint", &admin, "cluster", "secure", "-o", "json"]));
    assert_eq!(status["transport"], "off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_identities_gets_them_member_by_member() {
    let cluster = Cluster::start(trestled(), 3).await;
    let person = Person::new();
    let endpoints = cluster.endpoints();
    let plain = |arguments: &[&str]| person.run(&[&["--endpoint", &endpoints], arguments].concat());

    // Nobody's word over a network is taken for who a member is.
    let refused = plain(&["member", "enroll"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("admin socket"), "{}", refused.stderr);
    let done = plain(&["cluster", "secure", "--prepare"]).expect_success();
    assert!(done.contains("the cluster accepts plain connections and TLS"), "{done}");
    person.local(&cluster.members[1], &["member", "enroll"]).expect_success();

    let early = plain(&["cluster", "secure", "--enforce", "--yes"]);
    assert_eq!(early.code, Some(1), "{}", early.stdout);
    assert!(
        early.stderr.contains("m3 has no key") && !early.stderr.contains("m2 has no key"),
        "{}",
        early.stderr
    );
    let state = document(plain(&["cluster", "secure", "-o", "json"]));
    assert_eq!(state["transport"], "accept");
    let enrolled = document(person.local(&cluster.members[2], &["member", "enroll", "-o", "json"]));
    assert_eq!((&enrolled["name"], enrolled["key"].as_str().unwrap().len()), (&"m3".into(), 64));
    let again = document(person.local(&cluster.members[2], &["member", "enroll", "-o", "json"]));
    assert_eq!(again, enrolled);

    // Whoever calls plain is told of until it is refused, and one with a context goes on.
    let file = person.contexts();
    plain(&["user", "create", "ann", "--role", "admin", "--out", file.to_str().unwrap()]).expect_success();
    let ann = |arguments: &[&str]| person.run(&[&["--context", file.to_str().unwrap()], arguments].concat());
    let warned = ann(&["cluster", "secure", "--enforce"]);
    assert!(warned.code == Some(1) && warned.stderr.contains("a client at "), "{}", warned.stderr);
    // Members that have not called one another plain for a while do not count any more.
    wait_for("plain connections to be refused", Duration::from_secs(90), || {
        let done = ann(&["cluster", "secure", "--enforce", "--yes"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    wait_for("the word of it to reach every member", Duration::from_secs(20), || {
        let open = cluster.members.iter().find(|member| {
            let done = person.run(&["--endpoint", &member.admin().to_string(), "pool", "list"]);
            done.code == Some(0) || !done.stderr.contains("without TLS")
        });
        open.map_or(Ok(()), |open| Err(format!("{} lets plain callers in", open.name)))
    });
    ann(&["pool", "create", "web", "--health", "none", "--wait"]).expect_success();
    let relaxed = ann(&["cluster", "secure", "--relax"]);
    assert!(relaxed.code == Some(1) && relaxed.stderr.contains("only where root"), "{}", relaxed.stderr);
    person.local(&cluster.members[1], &["cluster", "secure", "--relax"]).expect_success();
    plain(&["pool", "list"]).expect_success();
}

#[test]
fn an_empty_member_is_founded_by_nobody_who_is_not_on_its_machine() {
    let (member, _subnet) = empty();
    let person = Person::new();
    let refused = person.run(&["--endpoint", &member.admin().to_string(), "cluster", "bootstrap"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    for part in ["without TLS", "sudo trestle cluster bootstrap", "insecure = true"] {
        assert!(refused.stderr.contains(part), "no {part:?} in {}", refused.stderr);
    }
    assert!(!person.contexts().exists());
    let status = person.local(&member, &["status"]).expect_success();
    assert!(status.contains("belongs to no cluster yet"), "{status}");
}
