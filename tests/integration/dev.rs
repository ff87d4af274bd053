//! `trestled dev`: what a newcomer runs first, and the commands that it prints.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use trestle_testkit::{Process, fetch_http, wait_for};

use crate::{Finished, finish, programs, trestled};

/// Lines of the output that are commands to try: curl, or this build's own command line.
fn commands(output: &str) -> Vec<String> {
    let program = |line: &str| {
        line.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
    };
    let lines = output.lines().map(str::trim);
    lines.filter(|line| ["curl", "trestle"].contains(&program(line).as_str())).map(str::to_owned).collect()
}

/// The line of the output that says whom to call and as whom.
fn export(output: &str) -> String {
    let mut found = output.lines().map(str::trim).filter(|line| line.starts_with("export "));
    let line = found.next().unwrap_or_else(|| panic!("nothing to export in {output}"));
    assert_eq!(found.next(), None, "one is enough");
    line.to_owned()
}

/// What a line does in a shell in which another one was typed before.
fn shell(export: &str, line: &str) -> Finished {
    let path = std::env::join_paths([programs(), "/usr/bin".into(), "/bin".into()]).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{export}\n{line}")]).env("PATH", path);
    finish(shell.env_remove("TRESTLE_ENDPOINT").env_remove("TRESTLE_CONTEXT"))
}

fn start(dir: &std::path::Path) -> Process {
    let mut command = Command::new(trestled());
    command.arg("dev").arg("--data-dir").arg(dir.join("data"));
    let mut process = Process::spawn("trestled dev", &mut command, &dir.join("output.log"));
    wait_for("the commands to try", Duration::from_secs(60), || {
        assert!(process.status().is_none(), "{}", process.output());
        let found = commands(&process.output());
        if found.len() >= 5 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    process
}

#[test]
fn a_newcomer_gets_a_cluster_and_commands_that_work() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut process = start(dir.path());
    let output = process.output();
    assert!(!output.contains("ERROR"), "{output}");
    let (tried, export) = (commands(&output), export(&output));
    let shell = |line: &str| shell(&export, line);
    // The printed listener serves on each of the three members, from both sample backends.
    for member in 1..=3 {
        let line =
            tried.iter().find(|line| line.starts_with("curl")).expect("a command that shows the balancing");
        let port = line.rsplit_once(':').and_then(|(_, rest)| rest.trim_matches('/').parse::<u16>().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        let target = SocketAddr::from(([127, 0, 0, member], port));
        let answers: std::collections::BTreeSet<_> = (0..20).map(|_| fetch_http(target).unwrap()).collect();
        assert_eq!(answers.len(), 2, "both sample backends answer through {target}: {answers:?}");
    }
    for line in tried.iter().filter(|line| !line.contains(" watch")) {
        let finished = shell(line);
        assert_eq!(finished.code, Some(0), "{line}\n{}{}", finished.stdout, finished.stderr);
        assert!(!finished.stdout.is_empty() || !finished.stderr.is_empty(), "{line} says nothing");
    }
    let status = shell("trestle status -o json").expect_success();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let members = status["members"].as_array().unwrap();
    let shares = members.iter().map(|member| member["descriptors_max"].as_u64().unwrap()).sum::<u64>();
    let limit = process.open_files_max();
    assert!(members.len() == 3 && shares < limit, "three members may have {shares} of {limit} descriptors");
    let secured: serde_json::Value =
        serde_json::from_str(&shell("trestle cluster secure -o json").expect_success()).unwrap();
    assert_eq!(secured["transport"], "require");
    let list = || shell("trestle pool list -o json").expect_success();
    shell("trestle pool create kept").expect_success();
    let before = list();
    assert!(before.contains("kept"), "{before}");

    process.terminate();
    assert_eq!(process.exited(Duration::from_secs(40)).code(), Some(0), "{}", process.output());
    drop(process);

    // The data directory keeps it, and the context.
    std::fs::remove_file(dir.path().join("output.log")).unwrap();
    let mut process = start(dir.path());
    assert_eq!(list(), before);
    process.terminate();
    assert_eq!(process.exited(Duration::from_secs(40)).code(), Some(0), "{}", process.output());
}
