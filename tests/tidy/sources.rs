//! What may be in a Rust file.

use crate::{expect_none, files, shown};

/// Lines at which a file has to be split.
const LINES_MAX: usize = 500;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "helpers", "manager", "misc", "types"];

fn sources() -> Vec<(String, String)> {
    let dirs = ["bin", "crates", "tests"];
    let paths = dirs.iter().flat_map(|dir| files(dir, "rs"));
    paths.map(|path| (shown(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().map(|(name, text)| (name, text.lines().count()));
    let long =
        long.filter(|(_, lines)| *lines > LINES_MAX).map(|(name, lines)| format!("{name}: {lines} lines"));
    expect_none(&format!("files of more than {LINES_MAX} lines"), &long.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["to", "do!("].concat(),
        ["unimpl", "emented!("].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X:"].concat(),
    ];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            wrong.extend(
                marks.iter().filter(|m| line.contains(*m)).map(|m| format!("{name}:{}: {m}", number + 1)),
            );
        }
    }
    expect_none("unfinished work", &wrong);
}

#[test]
fn lines_end_cleanly() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().enumerate().filter(|(_, l)| l.contains('\t') || l.ends_with(' '));
        wrong.extend(lines.map(|(number, _)| format!("{name}:{}", number + 1)));
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            wrong.push(format!("{name}: ends without exactly one line break"));
        }
    }
    expect_none("tabs, spaces at line ends, or a ragged end of file", &wrong);
}

#[test]
fn modules_have_names_that_mean_something() {
    let names = sources().into_iter().map(|(name, _)| name);
    let wrong =
        names.filter(|name| name.trim_end_matches(".rs").split('/').any(|part| EMPTY_NAMES.contains(&part)));
    expect_none("modules named after nothing in particular", &wrong.collect::<Vec<_>>());
}
