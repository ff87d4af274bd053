//! deny.toml holds: licences, banned crates, duplicate versions and sources, from `cargo metadata` and without a network.
//!
//! cargo-deny reads the same file and finds the same; building it takes longer than all other checks of CI together.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{expect_none, root};

/// A package that the programs or their tests are built from.
struct Package {
    name: String,
    version: String,
    /// As an SPDX expression.
    license: Option<String>,
    /// None for those of this workspace.
    source: Option<String>,
}

/// All packages on the targets of the file; with optional parts, but not those of other systems.
fn packages(rules: &toml::Table) -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--offline", "--locked"]).current_dir(root());
    // The machine that runs the tests has no packages of other systems.
    cargo.args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
    let targets = rules["graph"]["targets"].as_array().unwrap();
    assert!(targets.iter().any(|target| target.as_str().unwrap().starts_with(std::env::consts::ARCH)));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let all = metadata["packages"].as_array().unwrap().iter();
    let all = all.filter(|package| used.contains(package["id"].as_str().unwrap()));
    all.map(|package| Package {
        name: text(&package["name"]).unwrap(),
        version: text(&package["version"]).unwrap(),
        license: text(&package["license"]),
        source: text(&package["source"]),
    })
    .collect()
}

fn strings(list: &toml::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Entries of a list of crates: the crate, a version if one is named, and the reason, which must be given.
fn reasoned<'a>(rules: &'a toml::Table, list: &str) -> Vec<(&'a str, Option<&'a str>, &'a str)> {
    let entries = rules["bans"][list].as_array().unwrap().iter();
    let one = |entry: &'a toml::Value| {
        let text = |key: &str| entry.get(key).and_then(toml::Value::as_str);
        let spec = text("crate").unwrap_or_else(|| panic!("{list}: {entry} names no crate"));
        let reason = text("reason").unwrap_or_else(|| panic!("{list}: {spec} has no reason"));
        let (name, version) = spec.split_once('@').map_or((spec, None), |(name, v)| (name, Some(v)));
        (name, version, reason)
    };
    entries.map(one).collect()
}

fn licences(rules: &toml::Table, packages: &[Package], wrong: &mut Vec<String>) {
    let allowed = strings(&rules["licenses"]["allow"]);
    let mut used = BTreeSet::new();
    for Package { name, version, license, .. } in packages {
        let Some(license) = license else {
            wrong.push(format!("{name} {version} names no licence"));
            continue;
        };
        let expression = spdx::Expression::parse_mode(license, spdx::ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{name}: {license}: {error}"));
        let named = |requirement: &spdx::LicenseReq| requirement.to_string();
        if !expression.evaluate(|requirement| allowed.contains(&named(requirement).as_str())) {
            wrong.push(format!("{name} {version} has the licence {license}, which is not allowed"));
        }
        used.extend(expression.requirements().map(|requirement| named(&requirement.req)));
    }
    wrong.extend(
        allowed
            .iter()
            .filter(|one| !used.contains(**one))
            .map(|one| format!("no package has the licence {one}")),
    );
}

fn bans(rules: &toml::Table, packages: &[Package], wrong: &mut Vec<String>) {
    for (banned, _, reason) in reasoned(rules, "deny") {
        if packages.iter().any(|package| package.name == banned) {
            wrong.push(format!("{banned} is banned: {reason}"));
        }
    }
}

fn duplicates(rules: &toml::Table, packages: &[Package], wrong: &mut Vec<String>) {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let skipped = reasoned(rules, "skip");
    for (name, all) in versions.iter().filter(|(_, all)| all.len() > 1) {
        // Begins with what is skipped: 0.21 stands for 0.21.7.
        let counted = all.iter().filter(|version| {
            !skipped
                .iter()
                .any(|(crate_, skip, _)| crate_ == name && skip.is_some_and(|s| version.starts_with(s)))
        });
        if counted.count() > 1 {
            wrong.push(format!("{name} is there in the versions {all:?}"));
        }
    }
    for (name, version, _) in skipped {
        let there = versions.get(name).filter(|all| all.len() > 1).into_iter().flatten();
        if !there.into_iter().any(|one| version.is_some_and(|version| one.starts_with(version))) {
            wrong
                .push(format!("{name} {version:?} is not there beside another version: take it out of skip"));
        }
    }
}

fn sources(rules: &toml::Table, packages: &[Package], wrong: &mut Vec<String>) {
    let allowed = strings(&rules["sources"]["allow-registry"]);
    for Package { name, source, .. } in packages {
        let Some(source) = source else { continue };
        if !source.strip_prefix("registry+").is_some_and(|registry| allowed.contains(&registry)) {
            wrong.push(format!("{name} comes from {source}"));
        }
    }
}

fn rules() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

type Check = fn(&toml::Table, &[Package], &mut Vec<String>);

#[test]
fn what_the_programs_are_built_from_is_allowed() {
    let rules = rules();
    let packages = packages(&rules);
    assert!(packages.len() > 200, "{} packages: the test looks in the wrong place", packages.len());
    let mut wrong = Vec::new();
    let checks: [Check; 4] = [licences, bans, duplicates, sources];
    checks.iter().for_each(|check| check(&rules, &packages, &mut wrong));
    expect_none("what deny.toml does not allow", &wrong);
}

#[test]
fn what_is_not_allowed_is_seen() {
    let rules: toml::Table = r#"
        licenses.allow = ["MIT", "Zlib"]
        bans.deny = [{ crate = "bad", reason = "it is" }]
        bans.skip = [{ crate = "old@1.2", reason = "b wants it" }, { crate = "gone@1", reason = "c wanted it" }]
        sources.allow-registry = ["https://registry"]
    "#
    .parse()
    .unwrap();
    let package = |name: &str, version: &str, license: Option<&str>, source: &str| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: license.map(str::to_owned),
        source: Some(source.to_owned()),
    };
    let registry = "registry+https://registry";
    let packages = [
        package("good", "1.0.0", Some("GPL-3.0 OR MIT/Apache-2.0"), registry),
        package("copyleft", "1.0.0", Some("MIT AND GPL-3.0"), registry),
        package("silent", "1.0.0", None, "git+https://else"),
        package("bad", "1.0.0", Some("MIT"), registry),
        package("old", "1.2.3", Some("MIT"), registry),
        package("old", "2.0.0", Some("MIT"), registry),
        package("twice", "1.0.0", Some("MIT"), registry),
        package("twice", "2.0.0", Some("MIT"), registry),
    ];
    let found = |check: Check| {
        let mut wrong = Vec::new();
        check(&rules, &packages, &mut wrong);
        wrong
    };
    assert_eq!(
        found(licences),
        [
            "copyleft 1.0.0 has the licence MIT AND GPL-3.0, which is not allowed",
            "silent 1.0.0 names no licence",
            "no package has the licence Zlib",
        ]
    );
    assert_eq!(found(bans), ["bad is banned: it is"]);
    let [twice, gone] = &found(duplicates)[..] else { panic!("{:?}", found(duplicates)) };
    assert!(twice.starts_with("twice is there in the versions") && gone.starts_with("gone Some(\"1\")"));
    assert_eq!(found(sources), ["silent comes from git+https://else"]);
}
