//! A data directory and a backup of the version whose format was 1, as that version left them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use trestle_testkit::{Member, Subnet};

use crate::{copy_all, finish, trestle, trestled};

fn kept(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/format-1").join(name)
}

#[test]
fn an_older_data_directory_is_refused_with_what_carries_it_over() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "old", subnet.ip(1), "");
    copy_all(&kept("data"), &member.data_dir());
    let mut command = Command::new(trestled());
    command.arg("--config").arg(member.config());
    let refused = finish(&mut command);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.code, Some(70), "{said}");
    for part in ["storage format 1", "\"trestle backup FILE\"", "\"trestle restore FILE\""] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("damaged"), "{said}");
    // What it was refused for is as it was.
    for file in ["identity", "store/db"] {
        let now = std::fs::read(member.data_dir().join(file)).unwrap();
        assert!(now == std::fs::read(kept("data").join(file)).unwrap(), "{file} was changed");
    }

    // The backup that the version before wrote is taken as it is.
    member.wipe();
    member.start();
    let endpoint = member.admin().to_string();
    trestle(&endpoint, &["cluster", "bootstrap"]).expect_success();
    let backup = kept("backup.json");
    trestle(&endpoint, &["restore", backup.to_str().unwrap()]).expect_success();
    let before: Value = serde_json::from_slice(&std::fs::read(&backup).unwrap()).unwrap();
    let mut after: Value = serde_json::from_str(&trestle(&endpoint, &["backup"]).expect_success()).unwrap();
    // What that version did not have is as it was there.
    for listener in after["listeners"].as_array_mut().unwrap() {
        let settings = listener.as_object_mut().unwrap();
        assert_eq!(settings.remove("first_bytes_timeout"), Some("5s".into()));
        assert_eq!(settings.remove("on_silence"), Some("ON_SILENCE_RESET".into()));
    }
    assert_eq!(after, before);
}
