//! Arrows between crates point down only; some libraries stay behind one crate.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{expect_none, files, root, shown};

/// What each crate may depend on; `dev:` marks what only its tests may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("display-more", &[]),
    ("trestle-model", &[]),
    ("trestle-engine", &["trestle-model", "dev:trestle-fuzz"]),
    ("trestle-identity", &["trestle-model", "dev:trestle-fuzz"]),
    ("trestle-api", &["trestle-identity", "trestle-model", "dev:trestle-fuzz"]),
    ("trestle-consensus", &["trestle-api", "trestle-model"]),
    ("trestle-dataplane", &["trestle-engine", "trestle-model", "dev:trestle-fuzz"]),
    ("trestle-vip", &["trestle-engine", "dev:trestle-fuzz", "dev:trestle-testkit"]),
    (
        "trestle-node",
        &[
            "trestle-api",
            "trestle-consensus",
            "trestle-dataplane",
            "trestle-engine",
            "trestle-identity",
            "trestle-model",
            "trestle-vip",
        ],
    ),
    ("trestle-ctl", &["trestle-api", "trestle-identity", "trestle-model"]),
    ("trestle-testkit", &["trestle-api", "trestle-identity", "trestle-image"]),
    ("trestle-fuzz", &[]),
    ("trestle-image", &[]),
    ("trestle-xtask", &["trestle-image"]),
    (
        "trestle-simulation",
        &[
            "dev:trestle-api",
            "dev:trestle-consensus",
            "dev:trestle-engine",
            "dev:trestle-model",
            "dev:trestle-node",
            "dev:trestle-vip",
        ],
    ),
    (
        "trestle",
        &["trestle-node", "trestle-ctl", "dev:trestle-api", "dev:trestle-identity", "dev:trestle-testkit"],
    ),
];

/// Libraries that only these crates may name, so that they can be replaced there.
const WRAPPED: &[(&str, &[&str])] = &[
    ("openraft", &["trestle-consensus"]),
    ("openraft-rt", &["trestle-consensus"]),
    ("openraft-rt-tokio", &["trestle-consensus"]),
    ("openraft-macros", &["trestle-consensus"]),
    ("sled", &["trestle-consensus"]),
    ("prometheus-client", &["trestle-node"]),
    ("axum", &["trestle-node"]),
    ("clap", &["trestle-node", "trestle-ctl", "trestle"]),
    ("comfy-table", &["trestle-ctl"]),
    ("ratatui", &["trestle-ctl"]),
    ("prost-reflect", &["trestle-api", "trestle-ctl"]),
    ("arc-swap", &["trestle-dataplane"]),
    ("h2", &["trestle-dataplane", "trestle-node"]),
    ("hickory-resolver", &["trestle-dataplane"]),
    ("hyper", &["trestle-dataplane", "trestle-node"]),
    ("resolv-conf", &["trestle-dataplane"]),
    ("pem", &["trestle-identity"]),
    ("rcgen", &["trestle-identity", "trestle-dataplane"]),
    ("rustls", &["trestle-dataplane", "trestle-identity"]),
    ("rustls-webpki", &["trestle-identity"]),
    ("tokio-rustls", &["trestle-dataplane", "trestle-identity"]),
    ("x509-parser", &["trestle-dataplane", "trestle-identity"]),
    ("netlink-packet-core", &["trestle-dataplane", "trestle-vip"]),
    ("netlink-packet-route", &["trestle-dataplane", "trestle-vip"]),
    ("caps", &["trestle-vip"]),
    ("libc", &["trestle-dataplane", "trestle-node", "trestle-simulation", "trestle-vip"]),
    // The data plane has the two messages of gRPC's health protocol, which are not ours to compile from proto/.
    ("prost", &["trestle-api", "trestle-consensus", "trestle-dataplane", "trestle-node", "trestle-testkit"]),
];

/// Names in pure crates that would bring in a clock, random order or I/O.
const IMPURE: &[&str] = &[
    "tokio",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::thread",
];

/// Package name -> its dependencies, tests' own ones with `dev:`.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let edge = |value: &Value| match value["kind"].as_str() {
        Some("dev") => format!("dev:{}", name(value)),
        _ => name(value),
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|p| (name(p), p["dependencies"].as_array().unwrap().iter().map(edge).collect()))
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let found = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, edges) in &found {
        let Some(allowed) = allowed.get(package.as_str()) else {
            wrong.push(format!("{package} is not in the table"));
            continue;
        };
        let inner = edges.iter().filter(|edge| found.contains_key(edge.trim_start_matches("dev:")));
        wrong.extend(inner.filter(|e| !allowed.contains(&e.as_str())).map(|e| format!("{package} -> {e}")));
    }
    wrong.extend(
        allowed.keys().filter(|name| !found.contains_key(**name)).map(|name| format!("{name} is gone")),
    );
    expect_none("arrows that the table in tests/tidy/arrows.rs does not allow", &wrong);
}

#[test]
fn wrapped_libraries_stay_behind_their_crate() {
    let mut wrong = Vec::new();
    for (package, edges) in dependencies() {
        for (library, users) in WRAPPED {
            let named = edges.contains(*library) || edges.contains(&format!("dev:{library}"));
            if named && !users.contains(&package.as_str()) {
                wrong.push(format!("{package} -> {library}, which only {} may use", users.join(", ")));
            }
        }
    }
    expect_none("libraries outside their crate", &wrong);
}

#[test]
fn model_and_engine_are_pure() {
    let mut wrong = Vec::new();
    for dir in ["crates/model/src", "crates/engine/src"] {
        for path in files(dir, "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in
                text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
            {
                let named = IMPURE.iter().filter(|name| line.contains(**name));
                wrong.extend(named.map(|name| format!("{}:{}: {name}", shown(&path), number + 1)));
            }
        }
    }
    expect_none("clocks, random order or I/O in pure crates (time is an argument there)", &wrong);
}
