//! House rules that are tests: what may depend on what, how long files are, what is documented.
//!
//! Clippy checks the length of functions (.clippy.toml) and forbids panics (workspace lints).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrows;
mod buf;
mod circles;
mod deny;
mod names;
mod paper;
mod protos;
mod sources;
mod tree;

use std::path::{Path, PathBuf};

/// Top of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` whose name ends in `.extension`, in order, without build output.
fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} files below {dir}: the test looks in the wrong place");
    found
}

/// Path as written in the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Fails with every finding, so that all of them can be mended at once.
fn expect_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}
