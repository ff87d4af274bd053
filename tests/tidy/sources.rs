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

/// Places at which a test tells that it does not run and returns without [`trestle_testkit::skip`], which fails where every tool
/// is there.
fn silent_skips(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tells = |line: &str| line.starts_with("eprintln!(") || line.starts_with("println!(");
    let silent = |at: &usize| {
        let (line, next) = (lines[*at], lines.get(at + 1).copied().unwrap_or_default());
        // A crate that the test kit is not for may look at the variable itself.
        let looked = lines[at.saturating_sub(3)..*at].iter().any(|line| line.contains("TRESTLE_TEST_ALL"));
        (line.contains("return eprintln!(") || tells(line) && next.starts_with("return")) && !looked
    };
    (0..lines.len()).filter(silent).map(|at| at + 1).collect()
}

#[test]
fn no_test_skips_itself_silently() {
    let mut wrong = Vec::new();
    for (name, text) in
        sources().into_iter().filter(|(name, _)| name.contains("test") && !name.contains("/bench/"))
    {
        wrong.extend(silent_skips(&text).into_iter().map(|line| format!("{name}:{line}")));
    }
    expect_none("tests that return without testkit's skip()", &wrong);
}

#[test]
fn silent_skips_are_seen() {
    // Put together here, so that this file does not find itself.
    let tell = ["eprint", "ln!(\"skipped: x\")"].concat();
    assert_eq!(silent_skips(&format!("if x {{\n    {tell};\n    return;\n}}")), [2]);
    assert_eq!(silent_skips(&format!("Err(_) => return {tell},")), [1]);
    assert_eq!(silent_skips(&format!("assert!(TRESTLE_TEST_ALL);\n{tell};\nreturn;")), [0; 0]);
    assert_eq!(silent_skips(&format!("{tell};\ngo_on();")), [0; 0]);
}

#[test]
fn every_fuzz_target_is_one_of_xtasks() {
    let list = std::fs::read_to_string(crate::root().join("crates/xtask/src/fuzz.rs")).unwrap();
    let entries =
        list.split("(\"").skip(1).filter_map(|rest| rest.split("\")").next()?.split_once("\", \"trestle-"));
    let mut listed: Vec<String> = entries.map(|(name, package)| format!("{name} {package}")).collect();
    let mut found = Vec::new();
    for (name, text) in sources() {
        let Some(package) = name.strip_prefix("crates/").and_then(|rest| rest.split('/').next()) else {
            continue;
        };
        let tests =
            text.lines().filter_map(|line| line.trim().strip_prefix("fn fuzz_")?.strip_suffix("() {"));
        found.extend(tests.map(|test| format!("{test} {package}")));
    }
    found.sort();
    listed.sort();
    assert!(found.len() > 3, "the test looks in the wrong place: {found:?}");
    assert_eq!(found, listed, "tests called fuzz_NAME, and the targets in crates/xtask/src/fuzz.rs");
}

/// The programs' channels to members are made in one place, so that TLS has one door.
#[test]
fn channels_to_members_are_made_in_one_place() {
    let doors = ["crates/api/src/transport.rs"];
    let programs = ["bin/", "crates/api/", "crates/consensus/", "crates/ctl/", "crates/node/"];
    let marks = ["Endpoint::from_", "Endpoint::new(", "Channel::from_"];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let own = programs.iter().any(|program| name.starts_with(program)) && !name.contains("/tests");
        if !own || doors.contains(&name.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let found = marks.iter().filter(|mark| line.contains(**mark));
            wrong.extend(found.map(|mark| format!("{name}:{}: {mark}", number + 1)));
        }
    }
    expect_none("channels that are made beside crates/api/src/transport.rs", &wrong);
}
