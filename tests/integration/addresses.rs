//! What listeners and backends of one cluster are to one another, and to the members' own ports.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use trestle_testkit::{Cluster, Member, Origin, Subnet, fetch_http, get, wait_for, wait_until};

use crate::{Finished, trestle, trestled};

const LIMIT: Duration = Duration::from_secs(30);

fn refused(finished: &Finished, words: &str) {
    assert_eq!(finished.code, Some(1), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stderr.contains(words), "no {words:?} in {}", finished.stderr);
}

fn json(endpoint: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["-o", "json"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&trestle(endpoint, &arguments).expect_success()).unwrap()
}

/// A cluster with two pools, whose backends answer with the pools' names.
async fn two_pools(size: u8, more: &str) -> (Cluster, [Origin; 2]) {
    let cluster = Cluster::start_with(trestled(), size, more).await;
    let origins = ["one", "two"].map(|name| Origin::start((cluster.subnet.ip(11), 0), name));
    for (name, origin) in ["one", "two"].iter().zip(&origins) {
        cluster.api(0).create_pool(name, None).await.unwrap();
        cluster.api(0).create_backend(name, "a", origin.address()).await.unwrap();
    }
    (cluster, origins)
}

/// Changes a line of a member's configuration file, or adds it.
fn set(cluster: &Cluster, number: usize, key: &str, line: &str) {
    let path = cluster.members[number].config();
    let text = std::fs::read_to_string(&path).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with(&format!("{key} = ")));
    let text: String = kept.map(|line| format!("{line}\n")).collect();
    std::fs::write(path, format!("{text}{line}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_would_take_anothers_address_is_refused_and_the_one_that_is_there_keeps_it() {
    // Each member has a data address of its own.
    let (mut cluster, _origins) = two_pools(3, "").await;
    let endpoint = cluster.members[1].admin().to_string();
    let create = |name: &str, bind: &str, more: &[&str]| {
        let listener = ["listener", "create", name, "--bind", bind, "--pool", "two"];
        trestle(&endpoint, &[&listener, more].concat())
    };
    cluster.api(0).create_listener("web", "0.0.0.0:7400", "one").await.unwrap();
    let first = SocketAddr::from((cluster.members[0].ip, 7400));
    let clash = format!(
        "--bind \"{first}\": meets listener \"web\" at 0.0.0.0:7400: both are {first} on member m1; choose another address or port"
    );
    for more in [&["--dry-run"][..], &[]] {
        refused(&create("aaa", &first.to_string(), more), &clash.replace("--bind", "listener.binds"));
    }
    // The other way round, in an update, and with one that is right beside it.
    // Not waited for: on this one machine only one of the members can have it bound.
    create("aaa", &first.to_string().replace("7400", "7401"), &[]).expect_success();
    let update = ["listener", "update", "web", "--bind", ":7400", "--bind", ":7401"];
    let words = format!("listener.binds[1] \"0.0.0.0:7401\": meets listener \"aaa\" at {}:7401", first.ip());
    refused(&trestle(&endpoint, &update), &words);
    // In a document too, where it is new; what is there already is taken.
    let saved = trestle(&endpoint, &["backup"]).expect_success();
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("document.json").display().to_string();
    std::fs::write(&path, saved.replace(":7401", ":7400")).unwrap();
    let restored = trestle(&endpoint, &["restore", "--replace", &path]);
    refused(&restored, &format!("listeners/aaa: listener.binds \"{first}\": meets listener \"web\""));

    // A member that is down and was never heard of is not guessed about. When it is back, the older listener has the address,
    // whatever they are called, and however often it has changed.
    let new = cluster.prepare();
    cluster.members[new].start();
    cluster.take_in(new).await;
    let last = SocketAddr::from((cluster.members[new].ip, 7400));
    cluster.members[new].kill();
    set(&cluster, new, "data_address", &format!("data_address = \"{}\"", cluster.subnet.ip(9)));
    // All are on this machine: nobody else may have it there meanwhile.
    for name in ["m1", "m2", "m3"] {
        trestle(&endpoint, &["member", "drain", name, "--wait"]).expect_success();
    }
    create("a-second", &format!("{}:7400", cluster.subnet.ip(9)), &[]).expect_success();
    trestle(&endpoint, &["listener", "update", "web", "--max-connections", "1000"]).expect_success();
    cluster.members[new].start();
    let moved = SocketAddr::from((cluster.subnet.ip(9), 7400));
    wait_for("service by the member with another data address", LIMIT, || match fetch_http(moved) {
        Ok(text) if text == "one" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(TcpStream::connect(last).is_err(), "it has another data address now");
    wait_for("why the other listener is not there", LIMIT, || {
        let listed = json(&endpoint, &["listener", "get", "a-second"]).to_string();
        let words = "listener \\\"web\\\" has this address on this member";
        if listed.contains(words) { Ok(()) } else { Err(listed) }
    });
    assert_eq!(fetch_http(moved), Ok("one".to_owned()));
    trestle(&endpoint, &["member", "enable", "m1", "--wait"]).expect_success();
    wait_for("the first member's listeners", LIMIT, || fetch_http(first));
    for _ in 0..4 {
        assert_eq!(fetch_http(first), Ok("one".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_beside_a_wildcard_is_taken_with_a_warning_and_the_status_says_so() {
    // A member without a data address, on a machine with many.
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    let text = std::fs::read_to_string(member.config()).unwrap();
    std::fs::write(member.config(), text.replace("data_address = ", "# ")).unwrap();
    member.start();
    let (endpoint, other) = (member.admin().to_string(), subnet.ip(5));
    trestle(&endpoint, &["cluster", "bootstrap"]).expect_success();
    trestle(&endpoint, &["pool", "create", "one", "--health", "none"]).expect_success();
    let create = |name: &str, bind: &str, more: &[&str]| {
        let listener = ["listener", "create", name, "--bind", bind, "--pool", "one"];
        trestle(&endpoint, &[&listener, more].concat())
    };
    create("web", "0.0.0.0:29917", &["--wait"]).expect_success();
    let status = trestle(&endpoint, &["status"]).expect_success();
    assert!(!status.contains("takes the connections"), "{status}");
    let taken = format!(
        "listener \"aaa\" at {other}:29917 takes the connections there from listener \"web\" at 0.0.0.0:29917"
    );
    let tried = create("aaa", &format!("{other}:29917"), &["--dry-run"]);
    assert_eq!((tried.code, tried.stderr.trim()), (Some(0), &*format!("warning: {taken}, on member m1")));
    let done = create("aaa", &format!("{other}:29917"), &["-o", "json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let note: Value = serde_json::from_str(&done.stderr).unwrap();
    assert_eq!(note["note"], format!("warning: {taken}, on member m1"));
    let answer: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(answer["warnings"][0], format!("{taken}, on member m1"), "{answer}");
    assert!(json(&endpoint, &["listener", "get", "aaa"])["warnings"].is_null());
    wait_for("the line in the status", LIMIT, || {
        let status = trestle(&endpoint, &["status"]).stdout;
        let line = status.lines().find(|line| line.starts_with("problem: ") && line.contains(&taken));
        if line.is_some() { Ok(()) } else { Err(status) }
    });
    // It goes with its cause; nothing is said of one that is beside none.
    trestle(&endpoint, &["listener", "delete", "aaa", "--wait"]).expect_success();
    wait_for("the end of the line", LIMIT, || {
        let status = trestle(&endpoint, &["status"]).stdout;
        if status.contains("takes the connections") { Err(status) } else { Ok(()) }
    });
    let beside = create("bbb", &format!("{other}:29918"), &[]);
    assert_eq!((beside.code, beside.stderr.as_str()), (Some(0), ""));
    // A change is told of as a creation is.
    let moved = trestle(&endpoint, &["listener", "update", "bbb", "--bind", &format!("{other}:29917")]);
    let taken = taken.replace("\"aaa\"", "\"bbb\"");
    assert_eq!((moved.code, moved.stderr.trim()), (Some(0), &*format!("warning: {taken}, on member m1")));
    assert!(member.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_listener_and_no_backend_is_at_a_members_own_port_whichever_that_member_has() {
    let (mut cluster, _origins) = two_pools(3, "").await;
    // Members differ in where they serve HTTP, and one does on loopback.
    let http = SocketAddr::from((cluster.members[1].ip, 7999));
    let hidden = SocketAddr::from(([127, 0, 0, 1], 7998));
    for (number, address) in [(1, http), (2, hidden)] {
        cluster.members[number].stop();
        set(&cluster, number, "http_address", &format!("http_address = \"{address}\""));
        cluster.members[number].spawn();
        let alive = || get(address, "/livez").map(drop);
        wait_for("the member at its new port", LIMIT, alive);
    }
    let api = cluster.api(0);
    let endpoint = cluster.members[0].admin().to_string();
    let told = |address: SocketAddr| {
        let tried = trestle(&endpoint, &["backend", "add", "one/x", &address.to_string(), "--dry-run"]);
        match tried.stderr.contains("is the admin, peer or HTTP port of a member of this cluster") {
            true => Ok(()),
            false => Err(format!("{address}: {}{}", tried.stdout, tried.stderr)),
        }
    };
    wait_for("where members serve HTTP", LIMIT, || told(http).and_then(|()| told(hidden)));
    // What was told is known of a member that is down, too, and to one that has just started.
    cluster.members[1].kill();
    cluster.members[0].kill();
    cluster.members[0].start();
    wait_until("a leader", LIMIT, async || api.status().await.map(drop)).await;
    for address in [http, hidden, SocketAddr::from((cluster.members[1].ip, 7480))] {
        wait_for("a refusal", LIMIT, || told(address));
    }
    // Another program on loopback may be a backend.
    let origin = Origin::start(([127, 0, 0, 1], 0), "beside");
    trestle(&endpoint, &["backend", "add", "one/beside", &origin.address().to_string()]).expect_success();

    // A name, and a backend that takes the client's port, are known when they are dialled.
    trestle(&endpoint, &["pool", "create", "any", "--health", "none"]).expect_success();
    trestle(&endpoint, &["backend", "add", "any/a", "127.0.0.1"]).expect_success();
    let name = trestle(&endpoint, &["backend", "add", "any/b", "localhost:7998"]);
    refused(&name, "is the admin, peer or HTTP port of a member of this cluster");
    trestle(&endpoint, &["listener", "create", "leak", "--bind", ":7998", "--pool", "any"]).expect_success();
    let leak = SocketAddr::from((cluster.members[0].ip, 7998));
    wait_for("the listener", LIMIT, || TcpStream::connect(leak));
    let mut client = TcpStream::connect(leak).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let end = client.read(&mut [0]);
    assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    wait_for("a reset as loop", LIMIT, || {
        let page = get(cluster.members[0].http(), "/metrics")?.body;
        let line = "trestle_listener_closes_total{listener=\"leak\",reason=\"loop\"}";
        if page.contains(line) { Ok(()) } else { Err("not there".to_owned()) }
    });

    let create =
        |bind: &str| trestle(&endpoint, &["listener", "create", "own", "--bind", bind, "--pool", "one"]);
    let own = |bind: &str, what: &str| {
        let words = format!("listener.binds \"{bind}\": meets the {what}");
        refused(&create(bind), &words);
        refused(&create(bind), "choose another address or port");
    };
    own("0.0.0.0:7480", "admin port");
    own("0.0.0.0:7000-7999", "admin port");
    own(&http.to_string(), &format!("HTTP port ({http}) of member m2 itself"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_a_listener_of_the_cluster_is_shown_as_that_and_never_as_healthy() {
    let (cluster, _origins) = two_pools(3, "").await;
    let endpoint = cluster.members[0].admin().to_string();
    trestle(&endpoint, &["listener", "create", "web", "--bind", ":7400", "--pool", "one", "--wait"])
        .expect_success();
    // It is the second member's, as the first one knows.
    let own = format!("{}:7400", cluster.members[1].ip);
    trestle(&endpoint, &["pool", "create", "round", "--health-interval", "100ms"]).expect_success();
    trestle(&endpoint, &["backend", "add", "round/web", &own, "--wait"]).expect_success();
    trestle(&endpoint, &["listener", "create", "round", "--bind", ":7401", "--pool", "round", "--wait"])
        .expect_success();
    let line = "healthy on 0/3 members (is a listener of this cluster, so no client is led there; connected)";
    wait_for("what the backend is", LIMIT, || {
        let listed = trestle(&endpoint, &["backend", "list", "round"]).expect_success();
        if listed.contains(line) { Ok(()) } else { Err(listed) }
    });
    let got = trestle(&endpoint, &["backend", "get", "round/web"]).expect_success();
    let healthy = got.lines().filter(|line| line.split_whitespace().any(|word| word == "healthy"));
    assert_eq!(healthy.collect::<Vec<_>>(), [format!("HEALTH        {line}")], "{got}");
    let metrics = get(cluster.members[2].http(), "/metrics").unwrap().body;
    let gauge = "trestle_backend_verdict{pool=\"round\",backend=\"web\",verdict=\"unhealthy\"} 1";
    assert!(metrics.contains(gauge), "{metrics}");
    let said = trestle(&endpoint, &["status"]).stdout;
    assert!(said.contains("pool round") && said.contains("is a listener of this cluster"), "{said}");
    let status = cluster.api(0).status().await.unwrap();
    assert!(status.members.iter().all(|member| member.dead_pools == ["pools/round"]), "{status:?}");
}
