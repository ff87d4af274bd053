//! The operator's own check program: what it gets, and what becomes of what it leaves.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::{Member, Subnet, skip, wait_for};

use crate::trestled;

const LIMIT: Duration = Duration::from_secs(60);

fn script(path: &Path, body: &str) -> PathBuf {
    std::fs::write(path, format!("#!/bin/sh\n{body}")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// A member with a check that is run every 400 ms and may take 300 ms.
fn member(binary: &Path, subnet: &Subnet, check: &Path) -> Member {
    let check = format!(
        "[vip]\ncheck = \"{}\"\ncheck_interval = \"400ms\"\ncheck_timeout = \"300ms\"\ncheck_rise = 1\ncheck_fall = 1\n",
        check.display()
    );
    Member::new(binary, "m1", subnet.ip(1), &check)
}

/// The processes whose arguments contain a word.
fn processes(word: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let arguments = arguments.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    arguments.filter(|arguments| arguments.starts_with("sleep ") && arguments.contains(word)).collect()
}

fn field(status: &str, name: &str) -> String {
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
    line.trim().to_owned()
}

#[test]
fn a_check_program_has_no_rights_and_no_environment_and_leaves_nothing() {
    let dir = TempDir::with_prefix("trestle-program-").unwrap();
    let out = dir.path().join("out");
    // A number that no other process has in its arguments.
    let unique = format!("9{}", std::process::id());
    let body = format!(
        "env > {out}.env.new; cat /proc/self/status > {out}.status.new; cut -d' ' -f5 /proc/self/stat > {out}.group.new\n\
         pwd > {out}.pwd.new; sleep {unique} & setsid sleep {unique} & ( setsid sleep {unique} & )\n\
         for f in env status group pwd; do mv {out}.$f.new {out}.$f; done; test -e {out}.hang && sleep {unique}; exit 3\n",
        out = out.display()
    );
    let check = script(&dir.path().join("check"), &body);
    let subnet = Subnet::claim();
    let mut member = member(trestled(), &subnet, &check);
    member.start();
    let read =
        |what: &str| std::fs::read_to_string(format!("{}.{what}", out.display())).map_err(|e| e.to_string());
    wait_for("a failure", LIMIT, || {
        let output = member.output();
        if output.contains("ended with exit status: 3") { Ok(()) } else { Err(output) }
    });
    let environment = read("env").unwrap();
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    // The shell adds the last two by itself.
    assert!(
        names.iter().all(|name| ["PATH", "TRESTLE_MEMBER", "PWD", "_", "OLDPWD", "SHLVL"].contains(name)),
        "{names:?}"
    );
    assert!(environment.contains("TRESTLE_MEMBER=m1"), "{environment}");
    assert_eq!(read("pwd").unwrap().trim(), "/");
    let status = read("status").unwrap();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{status}");
    }
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    let group = read("group").unwrap();
    let own = std::fs::read_to_string(format!("/proc/{}/stat", member.process().id())).unwrap();
    assert_ne!(
        Some(group.trim()),
        own.rsplit(") ").next().unwrap().split(' ').nth(2),
        "it is in the member's group"
    );

    // It is killed when it takes too long.
    std::fs::write(format!("{}.hang", out.display()), "").unwrap();
    wait_for("a time-out", LIMIT, || {
        let page = trestle_testkit::get(member.http(), "/livez").map(|page| page.status);
        assert_eq!(page, Ok(200));
        let count = processes(&unique).len();
        // Four for each run that goes on now, and none of an earlier one.
        if count <= 4 { Ok(()) } else { Err(format!("{count} processes")) }
    });
    let most = (0..50).map(|_| {
        std::thread::sleep(Duration::from_millis(40));
        processes(&unique).len()
    });
    assert!(most.max() <= Some(4), "processes of earlier runs are left");
    member.stop();
    wait_for("the end of everything that it has left", LIMIT, || {
        let left = processes(&unique);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn what_a_killed_member_was_running_ends_too() {
    let dir = TempDir::with_prefix("trestle-program-").unwrap();
    let unique = format!("8{}", std::process::id());
    let check = script(&dir.path().join("check"), &format!("setsid sleep {unique} & exec sleep {unique}\n"));
    let text =
        format!("[vip]\ncheck = \"{}\"\ncheck_interval = \"1h\"\ncheck_timeout = \"1h\"\n", check.display());
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), &text);
    member.start();
    wait_for("the program", LIMIT, || if processes(&unique).len() == 2 { Ok(()) } else { Err("not there") });
    member.kill();
    wait_for("its end", LIMIT, || {
        let left = processes(&unique);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// Zombies whose parent is this process.
fn zombies(parent: u32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let ending = format!("Z {parent} ");
    stats.filter(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(&ending))).count()
}

#[test]
fn a_member_that_is_process_1_reaps_what_others_leave() {
    let isolated = ["--fork", "--pid", "--kill-child", "--mount-proc"];
    if !Command::new("unshare")
        .args(isolated)
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return skip("namespaces of processes take root");
    }
    let dir = TempDir::with_prefix("trestle-program-").unwrap();
    let check = script(&dir.path().join("check"), "( sleep 0.2 & )\nexit 0\n");
    let daemon = script(
        &dir.path().join("trestled"),
        &format!("exec unshare {} {} \"$@\"\n", isolated.join(" "), trestled().display()),
    );
    let subnet = Subnet::claim();
    let mut member = member(&daemon, &subnet, &check);
    member.start();
    let outer = member.process().id();
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    let first: u32 = children.trim().parse().unwrap();
    // What is started in its container and left there falls to it as well.
    for _ in 0..20 {
        let entered = Command::new("nsenter")
            .args(["--target", &first.to_string(), "--pid", "--mount", "sh", "-c", "( sleep 0.1 & )"])
            .status();
        assert!(entered.unwrap().success());
    }
    // Those of the check come again and again.
    std::thread::sleep(Duration::from_secs(2));
    wait_for("no zombie", LIMIT, || match zombies(first) {
        0 => Ok(()),
        count => Err(format!("{count} zombies")),
    });
    assert_eq!(trestle_testkit::get(member.http(), "/livez").map(|page| page.status), Ok(200));
}
