//! The way back: a configuration that was saved, and a cluster of one from what is left.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use trestle_testkit::{Api, Cluster, Member, Subnet, wait_until};

use crate::{Finished, finish, trestle, trestled};

const LIMIT: Duration = Duration::from_secs(30);

fn json(endpoint: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["-o", "json"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&trestle(endpoint, &arguments).expect_success()).unwrap()
}

/// Every list, without what belongs to the log that it came through.
fn lists(endpoint: &str) -> Vec<Value> {
    fn bare(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                // What members see at the moment is no setting either.
                let others =
                    ["revision", "etag", "possibly_stale", "member", "healthy_backends", "down_on", "down"];
                fields.retain(|name, _| !others.contains(&name.as_str()));
                fields.values_mut().for_each(bare);
            }
            Value::Array(values) => values.iter_mut().for_each(bare),
            _ => {}
        }
    }
    let mut lists = vec![
        json(endpoint, &["pool", "list"]),
        json(endpoint, &["listener", "list"]),
        json(endpoint, &["vip", "list"]),
    ];
    for pool in ["web", "tls", "empty"] {
        lists.push(json(endpoint, &["pool", "get", pool]));
    }
    lists.iter_mut().for_each(bare);
    lists
}

fn backends(endpoint: &str) -> String {
    let saved = trestle(endpoint, &["backup"]).expect_success();
    let document: Value = serde_json::from_str(&saved).unwrap();
    document["backends"].to_string()
}

/// An empty member that has founded a cluster.
fn founded(member: &mut Member) -> String {
    member.start();
    let endpoint = member.admin().to_string();
    trestle(&endpoint, &["cluster", "bootstrap"]).expect_success();
    endpoint
}

fn configure(endpoint: &str) {
    for arguments in [
        "pool create web --algorithm least-connections --health http --max-lifetime 1h",
        "pool create tls --health tls --slow-start 20s --all-down fail-open",
        "pool create empty --health none",
        "backend add tls/a 10.0.0.9:443 --weight 7 --backup --max-connections 12",
        "backend add tls/b db.example:443",
        "backend drain tls/b --deadline 1h",
        "listener create web --bind 0.0.0.0:8080 --pool web --allow 10.0.0.0/8 --accept-rate 100",
    ] {
        trestle(endpoint, &arguments.split(' ').collect::<Vec<_>>()).expect_success();
    }
}

fn refused(finished: &Finished, code: i32, text: &str) {
    assert_eq!(finished.code, Some(code), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains(text), "no {text:?} in {}", finished.stderr);
}

#[test]
fn a_large_configuration_is_saved_and_restored_as_it_was_through_an_empty_cluster() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    let endpoint = founded(&mut member);
    configure(&endpoint);
    let dir = tempfile::TempDir::new().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let small = file("small.json");
    trestle(&endpoint, &["backup", &small]).expect_success();

    // A thousand backends more, by the document: one change.
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(&small).unwrap()).unwrap();
    let list = document["backends"].as_array_mut().unwrap();
    for number in 0..1000 {
        let address = format!("10.1.{}.{}:80", number / 250, number % 250);
        list.push(
            serde_json::json!({"name": format!("pools/web/backends/b{number:04}"), "address": address}),
        );
    }
    let edited = file("edited.json");
    std::fs::write(&edited, document.to_string()).unwrap();
    refused(&trestle(&endpoint, &["restore", &edited]), 4, "--replace");
    let before = backends(&endpoint);
    let tried = trestle(&endpoint, &["restore", &edited, "--replace", "--dry-run"]).expect_success();
    assert!(tried.contains("1000 created, 0 updated, 0 deleted"), "{tried}");
    assert!(tried.contains("\n  pools/web/backends/b0000 created\n"), "{tried}");
    assert_eq!(backends(&endpoint), before, "a dry run changes nothing");
    let done = trestle(&endpoint, &["restore", &edited, "--replace"]).expect_success();
    assert!(done.contains("1000 created, 0 updated, 0 deleted"), "{done}");
    let again = trestle(&endpoint, &["restore", &edited]).expect_success();
    assert!(
        again.contains("what the backup says already, unchanged"),
        "what is there already needs no --replace: {again}"
    );

    let large = file("large.json");
    trestle(&endpoint, &["backup", &large]).expect_success();
    let expected = (lists(&endpoint), backends(&endpoint));
    assert!(expected.1.len() > 50_000);
    assert!(
        !std::fs::read_to_string(&large).unwrap().contains("members/m1\",\n  \"peer"),
        "members are no part of it"
    );
    member.stop();
    member.wipe();
    let endpoint = founded(&mut member);
    let done = trestle(&endpoint, &["restore", &large, "--wait"]).expect_success();
    assert!(done.contains("1006 created"), "{done}");
    assert_eq!((lists(&endpoint), backends(&endpoint)), expected);
    let back = trestle(&endpoint, &["backup"]).expect_success();
    assert_eq!(back, std::fs::read_to_string(&large).unwrap());
    // What was applied survives a restart too.
    member.stop();
    member.start();
    assert_eq!(backends(&endpoint), expected.1);

    let done = trestle(&endpoint, &["restore", &small, "--replace"]).expect_success();
    assert!(done.contains("0 created, 0 updated, 1000 deleted"), "{done}");
    assert_eq!(backends(&endpoint), before);
}

#[test]
fn a_document_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    let endpoint = founded(&mut member);
    configure(&endpoint);
    let saved = trestle(&endpoint, &["backup"]).expect_success();
    let dir = tempfile::TempDir::new().unwrap();
    let restore = |text: &str| {
        let path = dir.path().join("document.json");
        std::fs::write(&path, text).unwrap();
        trestle(&endpoint, &["restore", "--replace", &path.display().to_string()])
    };
    refused(&restore("no document"), 2, "must be a backup");
    refused(&restore(&saved.replace("\"pools\"", "\"polls\"")), 2, "polls");
    refused(&restore(&saved.replace("\"format_version\": 1", "\"format_version\": 9")), 1, "format_version");
    let wrong = saved
        .replace("10.0.0.9:443", "10.0.0.9:443:9")
        .replace("\"pool\": \"pools/web\"", "\"pool\": \"pools/gone\"");
    let finished = restore(&wrong);
    refused(&finished, 1, "pools/tls/backends/a");
    let wrong = saved.replace("\"pool\": \"pools/web\"", "\"pool\": \"pools/gone\"");
    refused(&restore(&wrong), 1, "listeners/web");
    refused(&trestle(&endpoint, &["restore", "/nowhere/document.json"]), 1, "/nowhere/document.json");
    assert_eq!(trestle(&endpoint, &["backup"]).expect_success(), saved);
}

fn recover(config: &Path, answer: Option<&str>) -> Finished {
    let mut command = Command::new(trestled());
    command.args(["recover", "--config"]).arg(config);
    let Some(answer) = answer else {
        return finish(command.arg("--yes").stdin(Stdio::null()));
    };
    let quoted = format!("echo {answer} | {} recover --config {}", trestled().display(), config.display());
    finish(Command::new("sh").args(["-c", &quoted]))
}

async fn leads_alone(api: &Api, name: &str, id: &str) {
    wait_until("the survivor to lead alone", LIMIT, async || {
        let status = api.status().await.map_err(|status| status.to_string())?;
        let leads = status.leader == format!("members/{name}") && status.cluster_id == id;
        if leads && status.members.len() == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// The second member comes back with what it had, and is told what to do.
async fn stays_out(cluster: &mut Cluster) {
    let endpoint = cluster.members[0].admin().to_string();
    cluster.members[1].start();
    let old = cluster.members[1].admin().to_string();
    wait_until("the member of before to say what to do", LIMIT, async || {
        let status = trestle(&old, &["status"]).stdout;
        if status.contains("wipe") { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(
        cluster.members[1].output().contains("made anew from one member"),
        "{}",
        cluster.members[1].output()
    );
    assert!(
        cluster.members[0].output().contains("refused a member of before"),
        "{}",
        cluster.members[0].output()
    );
    let added = trestle(&endpoint, &["member", "add", &cluster.members[1].peer().to_string()]);
    assert_ne!(added.code, Some(0), "{}", added.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_is_made_a_cluster_and_members_of_before_stay_out() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    for number in 0..20 {
        api.create_pool(&format!("p{number}"), None).await.unwrap();
    }
    let status = cluster.agreed().await;
    let id = status.cluster_id;
    let config = cluster.members[0].config();

    refused(&recover(&config, None), 75, "in use by another process");
    cluster.members[0].stop();
    let finished = recover(&config, None);
    refused(&finished, 1, "there is a quorum");
    assert!(finished.stderr.contains("m2 at") && finished.stderr.contains("m3 at"), "{}", finished.stderr);
    // One of the others and this one would be a quorum.
    cluster.members[1].kill();
    refused(&recover(&config, None), 1, "there is a quorum");
    cluster.members[2].kill();

    let finished = recover(&config, Some("no"));
    refused(&finished, 1, "nothing was changed");
    for part in [
        "last log entry: ",
        "revision of its configuration: ",
        "m2 at",
        "m3 at",
        "not reached",
        "that the others have agreed on is lost",
    ] {
        assert!(finished.stdout.contains(part), "no {part:?} in {}", finished.stdout);
    }
    let done = recover(&config, Some("yes")).expect_success();
    assert!(done.contains("recovery 1"), "{done}");

    cluster.members[0].start();
    let api = cluster.api(0);
    leads_alone(&api, "m1", &id).await;
    let endpoint = cluster.members[0].admin().to_string();
    let listed = trestle(&endpoint, &["pool", "list"]).expect_success();
    (0..20).for_each(|number| assert!(listed.contains(&format!("p{number}")), "{listed}"));
    api.create_pool("after", None).await.unwrap();

    stays_out(&mut cluster).await;
    for number in [1, 2] {
        if cluster.members[number].is_running() {
            cluster.members[number].stop();
        }
        cluster.members[number].wipe();
        cluster.members[number].start();
        cluster.take_in(number).await;
    }
    let status = cluster.agreed().await;
    assert_eq!((status.members.len(), &status.cluster_id), (3, &id));
    // The new members know of the recovery as well, and carry on without the first.
    cluster.members[0].stop();
    cluster.leader().await;
    cluster.api(1).create_pool("later", None).await.unwrap();

    // Once more: another member survives, and the number goes on.
    cluster.members[2].kill();
    cluster.members[1].stop();
    let done = recover(&cluster.members[1].config(), None).expect_success();
    assert!(done.contains("recovery 2"), "{done}");
    cluster.members[1].start();
    let api = cluster.api(1);
    leads_alone(&api, "m2", &id).await;
}

/// What the status of the member at `endpoint` says is wrong.
fn told(endpoint: &str, words: &str) -> Result<(), String> {
    let status = trestle(endpoint, &["status"]).stdout;
    if status.contains(words) { Ok(()) } else { Err(status) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_recoveries_of_one_cluster_are_told_apart_and_neither_changes_the_other() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    cluster.api(0).create_pool("before", None).await.unwrap();
    let id = cluster.agreed().await.cluster_id;
    cluster.members.iter_mut().for_each(|member| member.kill());
    let configs: Vec<_> = cluster.members.iter().map(Member::config).collect();
    recover(&configs[0], None).expect_success();
    // The second one is warned while the first runs; and made a cluster all the same once that is stopped.
    cluster.members[0].start();
    leads_alone(&cluster.api(0), "m1", &id).await;
    refused(&recover(&configs[1], None), 1, "m1 at");
    refused(&recover(&configs[1], None), 1, "was made all of the cluster already");
    cluster.members[0].kill();
    recover(&configs[1], None).expect_success();
    let endpoints: Vec<String> = cluster.members.iter().map(|member| member.admin().to_string()).collect();
    let mut saved = Vec::new();
    for (number, name) in [(0, "m1"), (1, "m2")] {
        cluster.members[number].start();
        let api = cluster.api(number);
        leads_alone(&api, name, &id).await;
        api.create_pool(&format!("of-{name}"), None).await.unwrap();
        saved.push(trestle(&endpoints[number], &["backup"]).expect_success());
    }
    for (number, other) in [(0, 1), (1, 0)] {
        let name = &cluster.members[other].name;
        let words = format!("and member \"{name}\" at {} is of the other one", cluster.members[other].peer());
        wait_until("the other recovery in the status", LIMIT, async || told(&endpoints[number], &words))
            .await;
        let address = cluster.members[other].peer().to_string();
        let added = trestle(&endpoints[number], &["member", "add", &address]);
        refused(&added, 1, "of this cluster by another recovery (number 1)");
    }
    for (number, name) in [(0, "m1"), (1, "m2")] {
        leads_alone(&cluster.api(number), name, &id).await;
        assert_eq!(trestle(&endpoints[number], &["backup"]).expect_success(), saved[number]);
    }
    // One of them grows, and is recovered again: the other is no member of before for that.
    let peer = cluster.members[2].peer().to_string();
    cluster.members[2].wipe();
    cluster.members[2].start();
    trestle(&endpoints[0], &["member", "add", &peer]).expect_success();
    trestle(&endpoints[0], &["member", "promote", "m3"]).expect_success();
    cluster.members[2].kill();
    cluster.members[0].stop();
    let done = recover(&configs[0], None).expect_success();
    assert!(done.contains("recovery 2"), "{done}");
    cluster.members[0].start();
    leads_alone(&cluster.api(0), "m1", &id).await;
    let (name, at) = (&cluster.members[0].name, cluster.members[0].peer());
    let words = format!("(recovery 1), and member \"{name}\" at {at} is of the other one");
    for (number, words) in
        [(1, &*words), (0, "(recovery 1), and a member that has called is of the other one")]
    {
        wait_until("the other recovery in the status", LIMIT, async || told(&endpoints[number], words)).await;
        let status = trestle(&endpoints[number], &["status"]).stdout;
        assert!(!status.contains("is of before"), "{status}");
    }
    let added = trestle(&endpoints[0], &["member", "add", &cluster.members[1].peer().to_string()]);
    refused(&added, 1, "of this cluster by another recovery (number 1)");

    // One is kept, and the other rejoins.
    cluster.members[1].stop();
    cluster.members[1].wipe();
    cluster.members[1].start();
    cluster.take_in(1).await;
    let listed = trestle(&endpoints[1], &["pool", "list"]).expect_success();
    assert!(listed.contains("of-m1") && !listed.contains("of-m2"), "{listed}");
}
