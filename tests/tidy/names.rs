//! A type has one name and a name one type: no public or `pub(crate)` type's name is there twice in the workspace.

use std::collections::BTreeMap;

use crate::{expect_none, files, shown};

/// Names that are there more than once, how often at most, and why. Shorter is better.
const SHARED: &[(&str, usize, &str)] = &[
    ("Algorithm", 2, WORDS),
    ("AllDown", 2, WORDS),
    ("Authority", 2, "who signs, as it is recorded; one of a test"),
    ("Backend", 2, TABLE),
    ("Command", 2, "what the log holds; what the command line takes"),
    ("Error", 2, "each crate's own"),
    ("Event", 2, "what the data plane finds out; what a member keeps of all that happens"),
    ("Failure", 2, "why a call failed, as it is sent and as the command line tells it"),
    ("Fault", 2, "why a member is unfit; what a test breaks"),
    ("Host", 3, "a name or address; a machine of a lab; what holds virtual IPs on a machine"),
    ("Listener", 2, TABLE),
    ("Member", 2, "its record, and its process in a test"),
    ("OnDown", 2, WORDS),
    ("OnPrimaryUp", 2, WORDS),
    ("OnQuorumLoss", 2, WORDS),
    ("Origin", 2, "who asked for a change; a web server of a test"),
    ("Pool", 2, TABLE),
    ("SendProxy", 2, WORDS),
    ("Shared", 2, "what the parts of one crate share"),
    ("Snapshot", 2, "Raft's; one look of top"),
    ("Socket", 2, "of a connection; of netlink"),
    ("ThreadLiveness", 2, "the same of two crates that do not know one another"),
    ("Traffic", 2, "what top counts; what a test sends"),
    ("Transport", 2, "how a member is reached; what a relay moves bytes over"),
    ("VipCommand", 2, "of the command line; of the owner's thread"),
    ("Write", 2, "what every write of the API may carry, as it is read and as it is sent"),
];

/// A setting of the model, and the flag with its words.
const WORDS: &str = "a setting, and the words of its flag";

/// A resource as it was agreed on, and with what a member knows of it.
const TABLE: &str = "the resource, and its entry in the data plane's table";

/// Name of the type that a line declares for others than its own module.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) "))?;
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
    let name = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Every such name, with the places where it is declared. Tests have names of their own.
fn declarations() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files("crates", "rs").into_iter().chain(files("bin", "rs")) {
        let name = shown(&path);
        if name.contains("/tests/") || name.ends_with("/tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if let Some(kind) = declared(line) {
                found.entry(kind.to_owned()).or_default().push(format!("{name}:{}", number + 1));
            }
        }
    }
    found
}

#[test]
fn a_type_name_has_one_meaning() {
    let found = declarations();
    assert!(found.len() > 300, "{} types: the test looks in the wrong place", found.len());
    let mut wrong = Vec::new();
    for (name, places) in found.iter().filter(|(_, places)| places.len() > 1) {
        if !SHARED.iter().any(|(shared, most, _)| shared == name && *most >= places.len()) {
            wrong.push(format!("{name}: {}", places.join(", ")));
        }
    }
    for (name, _, why) in SHARED {
        if !found.contains_key(*name) {
            wrong.push(format!("{name} is gone: take it out of the list ({why})"));
        }
    }
    expect_none("type names with more than one meaning", &wrong);
}

#[test]
fn declarations_are_seen() {
    let seen = [
        ("pub struct Order {", Some("Order")),
        ("    pub(crate) enum Order<T> {", Some("Order")),
        ("pub unsafe trait Order: Send {", Some("Order")),
        ("pub(crate) type Order = u8;", Some("Order")),
        ("pub struct Order(u8);", Some("Order")),
        ("struct Order;", None),
        ("pub(super) struct Order;", None),
        ("pub use model::Order;", None),
        ("pub fn order() {}", None),
        ("// pub struct Order;", None),
    ];
    for (line, name) in seen {
        assert_eq!(declared(line), name, "{line}");
    }
}
