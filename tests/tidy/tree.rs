//! The top level, and the README's two commands.

use crate::{expect_none, files, root, shown};

/// All that may stand at the top, but for files whose names begin with a dot.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "PROMISES.md",
    "README.md",
    "SECURITY.md",
    "bin",
    "build.rs",
    "crates",
    "deny.toml",
    "deploy",
    "proto",
    "rust-toolchain.toml",
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

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The jobs of the workflow, with their lines.
fn jobs(workflow: &str) -> Vec<(&str, Vec<&str>)> {
    let mut jobs: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in workflow.lines().skip_while(|line| *line != "jobs:").skip(1) {
        let name = line.strip_prefix("  ").filter(|name| !name.starts_with([' ', '#']));
        match name.and_then(|name| name.strip_suffix(':')) {
            Some(name) => jobs.push((name, Vec::new())),
            None => jobs.last_mut().into_iter().for_each(|(_, lines)| lines.push(line.trim())),
        }
    }
    jobs
}

#[test]
fn the_workflow_runs_what_anybody_can_run() {
    let workflow = read(".github/workflows/ci.yml");
    let jobs = jobs(&workflow);
    let job = |name: &str| {
        let found = jobs.iter().find(|(job, _)| *job == name);
        found.unwrap_or_else(|| panic!("ci.yml has no job {name}: {jobs:?}")).1.clone()
    };
    for (name, script) in [("verify", ".ci/run"), ("long", ".ci/long")] {
        let lines = job(name);
        assert!(
            lines.contains(&format!("- run: {script}").as_str()),
            "job {name} does not run {script}: {lines:?}"
        );
        // What it installed or tested by itself would be nobody else's.
        let others: Vec<&&str> =
            lines.iter().filter(|line| line.contains("apt") || line.contains("cargo")).collect();
        assert!(others.is_empty(), "job {name} does more than its script: {others:?}");
        assert!(
            !lines.iter().any(|line| line.starts_with("continue-on-error")),
            "job {name} may fail unseen"
        );
        let script = read(script);
        assert!(script.contains("set -e") && script.contains("export TRESTLE_TEST_ALL=1"), "{script}");
    }
    assert!(!job("verify").iter().any(|line| line.starts_with("if:")), "the tests run on every push");
    assert!(workflow.contains("  schedule:\n    - cron: "), "nothing runs the long tests by itself");
    assert!(job("long").iter().any(|line| line.starts_with("if:") && line.contains("'schedule'")));
}

#[test]
fn what_takes_minutes_runs_in_the_scheduled_job() {
    let script = read(".ci/long");
    let runs: Vec<&str> = script.lines().filter(|line| line.contains("-- --ignored")).collect();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for path in ["crates", "tests"].iter().flat_map(|dir| files(dir, "rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let long = text.lines().filter(|line| line.trim_start().starts_with("#[ignore = \"takes"));
        let long = long.filter(|line| line.contains("minute") || line.contains("hour")).count();
        if long == 0 {
            continue;
        }
        found += long;
        let name = shown(&path);
        let parts: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
        let run = match parts.as_slice() {
            ["crates", package, ..] => format!("--package trestle-{package} -- --ignored"),
            ["tests", target, .., module] => format!("--test {target} -- --ignored {module}::"),
            other => panic!("{other:?}"),
        };
        if !runs.iter().any(|line| line.ends_with(&run)) {
            wrong.push(format!("{name}: {run}"));
        }
    }
    assert!(found > 5, "only {found} long tests were found: the test looks in the wrong place");
    expect_none("long tests that .ci/long does not run", &wrong);
}
