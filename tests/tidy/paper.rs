//! Documents name what is there: each path exists, and each test that holds a promise up.

use std::path::{Path, PathBuf};

use crate::{expect_none, files, root, shown};

/// Ends of names by which a word is taken for a file's.
const ENDINGS: &[&str] =
    &[".rs", ".md", ".proto", ".toml", ".yaml", ".yml", ".sh", ".service", ".py", "Dockerfile", "/"];

/// Where paths of the repository begin.
const ROOMS: &[&str] = &["bin/", "crates/", "deploy/", "proto/", "tests/", ".ci/", ".github/"];

fn documents() -> Vec<PathBuf> {
    let top = ["ARCHITECTURE.md", "CONTRIBUTING.md", "PROMISES.md", "README.md", "SECURITY.md"];
    let top = top.iter().map(|name| root().join(name)).filter(|path| path.exists());
    top.chain(files("crates", "md")).chain(files("deploy", "md")).collect()
}

/// What stands between backticks in a text, outside of blocks of code, with the line that it begins in.
fn quoted(text: &str) -> Vec<(usize, String)> {
    let (mut prose, mut in_block) = (String::new(), false);
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        prose.push_str(if in_block || fence { "" } else { line });
        prose.push('\n');
    }
    let mut number = 1;
    let mut found = Vec::new();
    for (place, part) in prose.split('`').enumerate() {
        if place % 2 == 1 {
            found.push((number, part.replace('\n', " ")));
        }
        number += part.matches('\n').count();
    }
    found
}

/// Targets of links into the repository, without their anchors.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let inner = targets.map(|target| target.split('#').next().unwrap_or_default());
        let inner = inner.filter(|target| !target.is_empty() && !target.contains("://"));
        found.extend(inner.map(|target| (number + 1, target)));
    }
    found
}

/// Whether a word of a document in `directory` is the path of something in the repository, and which.
fn named(word: &str, directory: &Path) -> Option<Vec<PathBuf>> {
    let of_repository = ROOMS.iter().any(|room| word.starts_with(room));
    let looks_so =
        ENDINGS.iter().any(|ending| word.ends_with(ending)) && !word.starts_with(['/', '-', '~', '<']);
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if !plain || !word.contains('/') || !(of_repository || looks_so) {
        return None;
    }
    let from = [root().to_owned(), root().join("crates"), directory.to_owned(), directory.join("src")];
    let mut places: Vec<PathBuf> = from.iter().map(|from| from.join(word)).collect();
    // `vips/owner.rs` is a file of one crate or another.
    let sources = |entry: std::fs::DirEntry| entry.path().join("src").join(word);
    places.extend(std::fs::read_dir(root().join("crates")).unwrap().flatten().map(sources));
    // `consensus/propose.rs` is short for `crates/consensus/src/propose.rs`.
    if let Some((package, rest)) = word.split_once('/') {
        places.push(root().join("crates").join(package).join("src").join(rest));
    }
    Some(places)
}

#[test]
fn every_path_in_the_documents_exists() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let directory = document.parent().unwrap();
        for (number, word) in quoted(&text) {
            let Some(places) = named(&word, directory) else { continue };
            seen += 1;
            if !places.iter().any(|place| place.exists()) {
                wrong.push(format!("{}:{number}: {word}", shown(&document)));
            }
        }
        for (number, target) in links(&text) {
            seen += 1;
            if !directory.join(target).exists() {
                wrong.push(format!("{}:{number}: link to {target}", shown(&document)));
            }
        }
    }
    assert!(seen > 30, "only {seen} paths were found: the test looks in the wrong place");
    expect_none("paths in documents of what is not there", &wrong);
}

#[test]
fn each_promise_has_its_tests() {
    let text = std::fs::read_to_string(root().join("PROMISES.md")).unwrap();
    let (mut wrong, mut promises) = (Vec::new(), 0);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        let Some(cell) = line.trim_end_matches(" |").rsplit(" | ").next().filter(|cell| cell.contains('`'))
        else {
            continue;
        };
        promises += 1;
        let mut file = None;
        for word in cell.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                file = Some((word, std::fs::read_to_string(root().join(word)).unwrap_or_default()));
            } else if !file.as_ref().is_some_and(|(_, text)| text.contains(&format!("fn {word}("))) {
                let file = file.as_ref().map_or("no file", |(name, _)| name);
                wrong.push(format!("PROMISES.md:{}: {word} is not in {file}", number + 1));
            }
        }
    }
    assert!(promises > 10, "only {promises} promises were found");
    expect_none("promises without their tests", &wrong);
}

#[test]
fn paths_are_told_from_other_words() {
    let here = root().join("crates/ctl");
    for word in ["crates/ctl", "consensus/propose.rs", "src/lib.rs", ".ci/run", "deploy/recipes/"] {
        assert!(named(word, &here).is_some(), "{word}");
    }
    let others = [
        "/etc/trestle/trestled.toml",
        "kube-api/controller1",
        "lib.rs",
        "cargo xtask fuzz",
        "--rate 20/s",
        "pools/-",
    ];
    for word in others {
        assert!(named(word, &here).is_none(), "{word}");
    }
    let words = [(1, "b".to_owned()), (1, "c d".to_owned()), (6, "g".to_owned())];
    assert_eq!(quoted("a `b` `c\nd`\n```sh\n`e`\n```\n`g`"), words);
    assert_eq!(links("[a](b/c.md#d) [e](https://f) [g](#h)"), [(1, "b/c.md")]);
}
