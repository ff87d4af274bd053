//! The files of `deploy` for service managers: what systemd and Kubernetes say of them, and that the daemon takes what they give it.

use std::path::{Path, PathBuf};
use std::process::Command;

use trestle_testkit::has_tools;

use crate::{finish, trestled};

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !has_tools(&["systemd-analyze"]) {
        return;
    }
    let unit = std::fs::read_to_string(deployed("systemd/trestled.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/trestled --config /etc/trestle/trestled.toml\n"));
    // The program is where it was built; its name is the unit's.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trestled.service");
    let verify = |unit: String| {
        std::fs::write(&path, unit).unwrap();
        finish(
            Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).arg(&path),
        )
    };
    let there = |unit: &str| unit.replace("/usr/bin/trestled", trestled().to_str().unwrap());
    let said = verify(there(&unit));
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""));
    // What it does not know, it says.
    let said = verify(there(&unit).replace("WatchdogSec=", "WatchDog="));
    assert!(said.stderr.contains("WatchDog"), "{}", said.stderr);
}

#[test]
fn the_daemon_takes_the_arguments_of_the_unit_and_of_the_pod() {
    let unit = std::fs::read_to_string(deployed("systemd/trestled.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/trestled ")).unwrap();
    let pod = std::fs::read_to_string(deployed("kubernetes/trestled.yaml")).unwrap();
    let args = pod.lines().find_map(|line| line.trim().strip_prefix("args: ")).unwrap();
    let args: Vec<String> = serde_json::from_str(args).unwrap();
    for arguments in [start.split(' ').map(str::to_owned).collect(), args] {
        // The shipped file of a node, where this machine may read it.
        let here = deployed("kubernetes/trestled.toml").display().to_string();
        let arguments = arguments.iter().map(|word| word.replace("/etc/trestle/trestled.toml", &here));
        let arguments: Vec<String> = arguments.collect();
        assert!(arguments.contains(&here), "{arguments:?}");
        let shown = finish(Command::new(trestled()).env_clear().args(&arguments).arg("--check-config"));
        assert!(shown.expect_success().contains("name = \"node1\""));
    }
}

#[test]
fn the_pod_is_what_kubernetes_schema_says() {
    if !has_tools(&["kubernetes-validate"]) {
        return;
    }
    let pod = std::fs::read_to_string(deployed("kubernetes/trestled.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trestled.yaml");
    let validate = |pod: &str| {
        std::fs::write(&path, pod).unwrap();
        finish(Command::new("kubernetes-validate").arg("--strict").arg(&path))
    };
    let said = validate(&pod);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let said = validate(&pod.replace("failureThreshold: 60", "failureTreshold: 60"));
    assert_ne!(
        said.code,
        Some(0),
        "a key that Kubernetes does not know is taken: {}{}",
        said.stdout,
        said.stderr
    );
}

#[test]
fn probes_and_volumes_are_where_the_daemon_has_them() {
    let shown = finish(Command::new(trestled()).env_clear().args(["--name", "m1", "--check-config"]))
        .expect_success();
    let pod = std::fs::read_to_string(deployed("kubernetes/trestled.yaml")).unwrap();
    assert_eq!(pod.matches("host: 127.0.0.1").count(), 3);
    assert_eq!(pod.matches("port: 7482").count(), 3);
    for (line, path) in [
        ("http_address = \"127.0.0.1:7482\"", None),
        ("data_dir = \"/var/lib/trestle\"", Some("mountPath: /var/lib/trestle}")),
        ("admin_socket = \"/run/trestle/admin.sock\"", Some("mountPath: /run/trestle}")),
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
        assert!(path.is_none_or(|path| pod.contains(path)), "{path:?} is not in the pod");
    }
}
