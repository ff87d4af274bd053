//! The top level, and the README's two commands.

use crate::{expect_none, root};

/// All that may stand at the top, but for files whose names begin with a dot.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bin",
    "build.rs",
    "crates",
    "deploy",
    "proto",
    "target",
    "tests",
];

/// One runs the main job, one passes the tests; a stranger needs no third.
const COMMANDS: &[&str] = &["cargo run --release --bin trestled -- dev", "cargo test --workspace"];

#[test]
fn the_top_level_is_small() {
    let names =
        std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let wrong: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    expect_none("entries that have no place at the top level", &wrong);
}

#[test]
fn the_readme_has_its_two_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let missing = COMMANDS.iter().filter(|command| !readme.lines().any(|line| line.trim() == **command));
    let missing: Vec<String> = missing.map(|command| (*command).to_owned()).collect();
    expect_none("commands that README.md must give on a line of their own", &missing);
}

#[test]
fn ci_runs_what_the_readme_says() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("cargo test --workspace"), ".ci/run does not run the README's test command");
}
