//! Owners and annotations of all kinds of resources.

use trestle_testkit::Cluster;

use crate::vips::restore_vip;
use crate::{trestle, trestled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_keeps_its_owner_and_its_annotations_and_they_change_one_by_one() {
    let cluster = Cluster::start(trestled(), 1).await;
    let endpoint = cluster.members[0].admin().to_string();
    let run = |args: &[&str]| trestle(&endpoint, args).expect_success();
    // No member can hold this one, so it comes by a document.
    restore_vip(&endpoint, "api", "192.0.2.10/24");
    let given = ["--owner", "team web", "--annotation", "example.com/ticket=OPS-12", "--annotation", "tier="];
    for command in [
        &["pool", "create", "web"][..],
        &["backend", "add", "web/a", "10.0.0.1:8080"],
        &["listener", "create", "front", "--bind", "0.0.0.0:8080", "--pool", "web"],
        &["vip", "update", "api"],
    ] {
        run(&[command, &given].concat());
    }
    let kinds = [("pool", "web"), ("backend", "web/a"), ("listener", "front"), ("vip", "api")];
    for (kind, name) in kinds {
        let text = run(&[kind, "get", name]);
        let has = |name: &str, value: &str| {
            text.lines().any(|line| line.split_once(' ').is_some_and(|(n, v)| n == name && v.trim() == value))
        };
        assert!(has("OWNER", "team web") && has("ANNOTATION", "tier="), "{text}");
        assert!(has("ANNOTATION", "example.com/ticket=OPS-12"), "{text}");

        run(&[kind, "update", name, "--annotation", "tier-", "--annotation", "zone=b"]);
        let document: serde_json::Value =
            serde_json::from_str(&run(&["-o", "json", kind, "get", name])).unwrap();
        assert_eq!(document["owner"], "team web", "{kind}: {document}");
        let wanted = serde_json::json!({"example.com/ticket": "OPS-12", "zone": "b"});
        assert_eq!(document["annotations"], wanted, "{kind}: {document}");

        let long = format!("--annotation=x={}", "y".repeat(257));
        let refused = trestle(&endpoint, &[kind, "update", name, &long, "--annotation", "two words=1"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        for part in [".annotations[x]", "must be at most 256 bytes", "must have a key of 1 to 63 characters"]
        {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
        run(&[kind, "update", name, "--owner", ""]);
        let text = run(&[kind, "get", name]);
        assert!(!text.contains("OWNER") && text.contains("zone=b"), "{text}");
        assert!(!run(&[kind, "list"]).contains("OPS-12"));
    }
    let again = ["pool", "create", "web", "--annotation", "zone=b", "--if-absent"];
    let there = run(&again);
    assert!(there.contains("exists already, unchanged"), "{there}");
    let other = trestle(&endpoint, &["pool", "create", "web", "--annotation", "zone=c", "--if-absent"]);
    assert_eq!(other.code, Some(4), "{}", other.stderr);
    assert!(other.stderr.contains("error: pool.annotations[zone] \"c\": is b there\n"), "{}", other.stderr);
}
