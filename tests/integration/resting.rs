//! What keeps a member from starting, or from stopping, and passes by itself: it runs again once the cause has gone.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trestle_testkit::{Cluster, Member, Subnet, has_tools, skip, wait_for};

use crate::shutdown::{ask, serve};
use crate::{finish, trestle, trestled};

/// Long enough for a debug build on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(30);

/// A directory with a mount of its own, in a namespace of its own that lasts as long as this value.
struct Mounted(std::process::Child);

impl Mounted {
    /// Mounts a file system of 24 MiB on `dir`; `None` where that is not allowed.
    fn new(dir: &Path) -> Option<Self> {
        if !has_tools(&["unshare", "nsenter", "mount"]) {
            return None;
        }
        std::fs::create_dir_all(dir).unwrap();
        let script =
            format!("mount -t tmpfs -o size=24m tmpfs '{}' && echo mounted && exec cat", dir.display());
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = unshare.stderr(Stdio::null()).spawn().unwrap();
        let mut said = [0; 8];
        if child.stdout.as_mut().unwrap().read_exact(&mut said).is_err() {
            let _ = child.wait();
            skip("file systems cannot be mounted here");
            return None;
        }
        Some(Self(child))
    }

    /// The words before a command that put it into the namespace.
    fn enter(&self) -> String {
        format!("nsenter --mount --target {}", self.0.id())
    }

    fn run(&self, command: &str) {
        let finished = finish(Command::new("sh").args(["-c", &format!("{} {command}", self.enter())]));
        // dd fails for lack of room, which is what it is for.
        assert!(finished.code == Some(0) || command.starts_with("dd"), "{command}: {}", finished.stderr);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A program that runs the daemon after these words.
fn wrapped(dir: &Path, words: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("wrapped");
    let script = format!("#!/bin/sh\nexec {words} '{}' \"$@\"\n", trestled().display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// The exit codes after which the shipped unit does not start the member again.
fn prevented() -> Vec<i32> {
    let unit = format!("{}/deploy/systemd/trestled.service", env!("CARGO_MANIFEST_DIR"));
    let unit = std::fs::read_to_string(unit).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
    line.split_whitespace().map(|code| code.parse().unwrap()).collect()
}

/// The member must end by itself, in a way after which it is started again.
fn ends_for_now(member: &mut Member) {
    let code = member.exited().code().expect("it was not killed");
    assert_ne!(code, 0, "{}", member.output());
    assert!(!prevented().contains(&code), "exit code {code}: {}", member.output());
    assert!(!member.output().contains("panicked"), "{}", member.output());
}

#[test]
fn a_member_starts_again_once_its_disk_has_room_and_may_be_written() {
    let dir = tempfile::TempDir::new().unwrap();
    let data = dir.path().join("data");
    let Some(mounted) = Mounted::new(&data) else { return };
    let binary = wrapped(dir.path(), &mounted.enter());
    let mut member = Member::new(&binary, "m1", Subnet::claim().ip(1), "");
    let config = std::fs::read_to_string(member.config()).unwrap();
    let config = config.replace(&member.data_dir().display().to_string(), &data.display().to_string());
    std::fs::write(member.config(), config).unwrap();
    member.start();
    let endpoint = member.admin().to_string();
    trestle(&endpoint, &["cluster", "bootstrap"]).expect_success();
    trestle(&endpoint, &["pool", "create", "before"]).expect_success();

    let junk = data.join("junk");
    mounted.run(&format!("dd if=/dev/zero of={} bs=64k", junk.display()));
    let mut acknowledged = Vec::new();
    wait_for("the full disk to stop the member", LIMIT, || {
        let name = format!("p{}", acknowledged.len());
        let made = trestle(&endpoint, &["--timeout", "3s", "pool", "create", &name]);
        acknowledged.extend((made.code == Some(0)).then_some(name));
        if member.is_running() { Err("it runs") } else { Ok(()) }
    });
    ends_for_now(&mut member);
    for _ in 0..3 {
        member.spawn();
        ends_for_now(&mut member);
    }
    mounted.run(&format!("rm {}", junk.display()));
    member.start();
    wait_for("a leader", LIMIT, || {
        let listed = trestle(&endpoint, &["pool", "list"]);
        if listed.code != Some(0) {
            return Err(listed.stderr);
        }
        acknowledged.iter().for_each(|name| assert!(listed.stdout.contains(name), "{name} is lost"));
        assert!(listed.stdout.contains("before"), "{}", listed.stdout);
        Ok(())
    });
    assert_eq!(member.stop().code(), Some(0));

    mounted.run(&format!("mount -o remount,ro {}", data.display()));
    member.spawn();
    ends_for_now(&mut member);
    mounted.run(&format!("mount -o remount,rw {}", data.display()));
    member.start();
}

/// Runs a command in the network namespace of a process.
fn in_network(member: &mut Member, command: &str) -> String {
    let id = member.process().id().to_string();
    let finished = finish(Command::new("nsenter").args(["--net", "--target", &id, "sh", "-c", command]));
    finished.stdout + &finished.stderr
}

#[test]
fn an_address_that_is_not_there_yet_is_waited_for() {
    let allowed = finish(Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]));
    if allowed.code != Some(0) {
        return skip("network namespaces cannot be made here");
    }
    let dir = tempfile::TempDir::new().unwrap();
    let binary = wrapped(dir.path(), "unshare --net sh -c 'ip link set lo up; exec \"$@\"' sh");
    let mut member = Member::new(&binary, "m1", [10, 99, 0, 1].into(), "");
    let config = std::fs::read_to_string(member.config()).unwrap();
    std::fs::write(member.config(), config.replace("10.99.0.1:7482", "127.0.0.1:7482")).unwrap();
    member.spawn();
    let ready = "curl -sS http://127.0.0.1:7482/readyz";
    wait_for("the reason to be told", LIMIT, || {
        let page = in_network(&mut member, ready);
        let told = page.contains("10.99.0.1:7480") && page.contains("10.99.0.1:7481");
        if told && page.contains("127.0.0.1") { Ok(()) } else { Err(page) }
    });
    assert_eq!(in_network(&mut member, "curl -sS http://127.0.0.1:7482/livez"), "ok\n");
    let status = in_network(&mut member, &format!("{ready} -o /dev/null -w %{{http_code}}"));
    assert_eq!(status, "503");
    assert!(
        member.output().contains("not on this machine yet: admin_address 10.99.0.1:7480"),
        "{}",
        member.output()
    );
    // A signal ends one that waits, also where nothing else would.
    assert_eq!(member.stop().code(), Some(0), "{}", member.output());

    member.spawn();
    wait_for("it to wait again", LIMIT, || {
        if in_network(&mut member, ready).contains("10.99.0.1") { Ok(()) } else { Err(member.output()) }
    });
    in_network(&mut member, "ip address add 10.99.0.1/32 dev lo");
    wait_for("the member to go on", LIMIT, || {
        let page = in_network(&mut member, ready);
        if page.contains("belongs to no cluster yet") { Ok(()) } else { Err(page) }
    });
    assert_eq!(member.stop().code(), Some(0), "{}", member.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_without_a_quorum_takes_no_longer_than_the_grace_time_and_five_seconds() {
    let mut cluster = Cluster::start_with(trestled(), 3, "shutdown_grace = \"9s\"\n").await;
    let _origin = serve(&mut cluster).await;
    let leader = cluster.leader().await;
    let mut open = TcpStream::connect((cluster.members[leader].ip, 8080)).unwrap();
    assert!(!ask(&mut open).unwrap().is_empty());
    for number in (0..3).filter(|number| *number != leader) {
        cluster.members[number].kill();
    }
    let began = Instant::now();
    let status = cluster.members[leader].stop();
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{}", cluster.members[leader].output());
    assert!(took < Duration::from_secs(14), "it took {took:?}: {}", cluster.members[leader].output());
    assert!(took > Duration::from_secs(8), "the connection had {took:?}");
}
