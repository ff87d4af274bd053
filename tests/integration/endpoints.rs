//! Endpoints that answer and are no admin port of a member of the cluster: an empty member, a removed one, other ports.

use std::time::Duration;

use trestle_testkit::{Cluster, get, wait_for};

use crate::{trestle, trestled};

const LIMIT: Duration = Duration::from_secs(30);

/// A cluster of two, a member that was removed from it, and one that is empty; their admin addresses.
async fn cluster_and_outsiders() -> (Cluster, [String; 4]) {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let empty = cluster.prepare();
    cluster.members[empty].start();
    let admin = |number: usize| cluster.members[number].admin().to_string();
    let addresses = [admin(0), admin(1), admin(2), admin(empty)];
    wait_for("the removal", LIMIT, || {
        let done = trestle(&addresses[0], &["member", "remove", "m3"]);
        if done.code == Some(0) || done.stderr.contains("does not exist") { Ok(()) } else { Err(done.stderr) }
    });
    wait_for("m3 to know that it was removed", LIMIT, || {
        let page = get(cluster.members[2].http(), "/readyz").map_err(|error| error.to_string())?;
        if page.body.contains("was removed") { Ok(()) } else { Err(page.body) }
    });
    trestle(&addresses[0], &["pool", "create", "web", "--wait"]).expect_success();
    (cluster, addresses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_admin_port_of_the_cluster_is_passed_over_and_named_and_no_second_cluster_advised() {
    let (cluster, [one, two, removed, empty]) = cluster_and_outsiders().await;
    let (http, peer) = (cluster.members[0].http().to_string(), cluster.members[0].peer().to_string());
    let all = [&empty, &removed, &http, &peer, &two].map(String::as_str).join(",");
    let done = trestle(&all, &["pool", "list"]);
    assert_eq!(
        done.stderr,
        format!(
            "{empty} belongs to no cluster yet\n\
             {removed} was removed from its cluster\n\
             {http} is the HTTP port of a member; the admin port is 7480 by default\n\
             {peer} is the peer port of a member; the admin port is 7480 by default\n"
        )
    );
    assert!(done.expect_success().contains("\nweb "));

    // What every member answers hides nothing either, nor do lists that need no leader.
    let some = format!("{empty},{removed},{two}");
    let told = format!("{empty} belongs to no cluster yet\n{removed} was removed from its cluster\n");
    for (command, shown) in [
        (&["status"][..], "LEADER      m"),
        (&["leader", "show"], "m"),
        (&["pool", "list", "--local"], "web"),
        (&["member", "list"], "m2"),
        (&["pool", "create", "web2"], "pool web2 created"),
        (&["connection", "list"], ""),
        (&["top", "--once"], "web"),
    ] {
        let done = trestle(&some, command);
        assert!(done.stderr.starts_with(&told), "{command:?}: {}", done.stderr);
        assert!(done.stdout.contains(shown), "{command:?}: {}{}", done.stdout, done.stderr);
        assert_eq!(done.code, Some(0), "{command:?}");
    }
    let status = trestle(&some, &["status"]).expect_success();
    assert!(status.contains("m1") && status.contains("m2"), "{status}");
    trestle(&one, &["pool", "get", "web2"]).expect_success();
    nothing_else_is_left(&cluster, [&removed, &empty]);
}

/// What is said where no endpoint belongs to the cluster: only members that know of none are to found one.
fn nothing_else_is_left(cluster: &Cluster, [removed, empty]: [&str; 2]) {
    let http = cluster.members[0].http().to_string();
    let refused = |endpoints: &[&str], command: &[&str]| {
        let done = trestle(&endpoints.join(","), command);
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{}", done.stderr);
        done.stderr
    };
    assert_eq!(
        refused(&[empty, removed], &["pool", "list"]),
        format!(
            "error: no endpoint is the admin port of a member of the cluster\n  \
             {empty} belongs to no cluster yet\n  \
             {removed} was removed from its cluster\n  \
             to let a member join the cluster run \"trestle token create\" on a member of that cluster, and \"trestled join\" where it \
             runs; without identities, \"trestle member add HOST:PORT\"\n"
        )
    );
    assert_eq!(
        refused(&[&http], &["pool", "create", "late"]),
        format!(
            "error: no endpoint is the admin port of a member of the cluster\n  \
             {http} is the HTTP port of a member; the admin port is 7480 by default\n  \
             name the admin address of a member of the cluster with --endpoint or TRESTLE_ENDPOINT\n"
        )
    );
    let alone = refused(&[empty], &["pool", "list"]);
    assert!(alone.contains("create one with \"trestle cluster bootstrap\""), "{alone}");
    let silent = refused(&[empty, "127.0.0.1:1"], &["pool", "list"]);
    assert!(silent.contains("127.0.0.1:1: connection refused") && !silent.contains("bootstrap"), "{silent}");

    let status = trestle(empty, &["status"]).expect_success();
    assert!(status.contains("create one with \"trestle cluster bootstrap\""), "{status}");
    let peer = cluster.members[3].peer();
    let status = trestle(&format!("{empty},127.0.0.1:1"), &["status"]);
    assert_eq!(status.stderr, "127.0.0.1:1: connection refused\n");
    let advice = format!("run \"trestle member add {peer}\" on a member of the cluster to take it in\n");
    assert!(status.stdout.ends_with(&advice) && !status.stdout.contains("bootstrap"), "{}", status.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_asks_to_be_taken_in_is_not_to_found_a_cluster() {
    // Nobody is where it asks.
    let mut cluster = Cluster::start_with(trestled(), 1, "").await;
    cluster.members[0].stop();
    let asked = cluster.members[0].peer();
    let joining = cluster.prepare_with(&format!("join = [\"{asked}\"]\n"));
    cluster.members[joining].start();
    let (admin, peer) = (cluster.members[joining].admin(), cluster.members[joining].peer());
    let status = trestle(&admin.to_string(), &["status"]).expect_success();
    let problem = format!(
        "problem: this member belongs to no cluster yet and asks {asked} to take it in: see its log for why that takes long, \
         or run \"trestle member add {peer}\" on a member of the cluster\n"
    );
    assert!(status.ends_with(&problem), "{status}");
    let done = trestle(&admin.to_string(), &["pool", "list"]);
    assert_eq!(
        done.stderr,
        format!(
            "error: no endpoint is the admin port of a member of the cluster\n  \
             {admin} belongs to no cluster yet, and asks to be taken into one\n  \
             to let a member join the cluster run \"trestle token create\" on a member of that cluster, and \"trestled join\" where it \
             runs; without identities, \"trestle member add HOST:PORT\"\n"
        )
    );
}
