//! What the command line prints, word for word, and how it finds its way among endpoints.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use trestle_testkit::{Cluster, Process, get, wait_for};

use crate::{Finished, trestle, trestled};

/// A session at the terminal; `golden/session.txt` is what it must look like, with the member's address written as
/// 127.0.0.1.
const SESSION: &str = "
pool list
pool create web --algorithm least-connections --health none
pool create api
pool create api
pool create a/b
pool list
pool get web
pool get nothing
backend add web/a 10.0.0.1:8080
backend add web/b 10.0.0.2:8080 --weight 3 --backup
backend add web/c 2001:db8::1:443
backend add web/c http://10.0.0.1:80
backend list web
backend drain web/a
backend enable web/a
backend disable web/b
pool get web -o json
listener create front --bind 0.0.0.0:8080 --pool web --wait
listener create other --bind 0.0.0.0:8080 --pool web
listener list
listener get front -o yaml
pool delete web
pool update api --algorithm round-robin --etag 1
pool delete api --dry-run
pool delete api
backend remove web/b
backend remove web/b
listener delete front
member list -o json
member promote m1
member drain m1 --dry-run
leader show
vip list
vip get nothing
vip create 10.0.3.300/24
pool
frobnicate
";

fn shown(line: &str, finished: &Finished) -> String {
    let Finished { code, stdout, stderr } = finished;
    let marked =
        |text: &str, mark: &str| text.lines().map(|line| format!("{mark}{line}\n")).collect::<String>();
    let code = code.map_or_else(|| "by signal".to_owned(), |code| code.to_string());
    format!("$ trestle {line}\n{}{}[{code}]\n\n", marked(stdout, "  "), marked(stderr, "! "))
}

/// Types each line of a session; what is said must be what `golden` says, with the member's address written as 127.0.0.1.
pub(crate) fn golden_session(
    cluster: &Cluster,
    session: &str,
    file: &str,
    golden: &str,
    mask: impl Fn(&str) -> String,
) {
    let (endpoints, ip) = (cluster.endpoints(), cluster.subnet.ip(1).to_string());
    // Entries of the member's own, which would come between those of the session, sooner or later.
    wait_for("the member's start to be recorded", Duration::from_secs(30), || {
        let output = cluster.members[0].output();
        if output.contains("a process of member m1 has started") { Ok(()) } else { Err(output) }
    });
    wait_for("the time to be noted in the log", Duration::from_secs(30), || {
        let page = get(cluster.members[0].http(), "/metrics").map_err(|error| error.to_string())?.body;
        let noted = page.lines().find_map(|line| line.strip_prefix("trestle_log_timestamp_seconds "));
        match noted.and_then(|time| time.parse::<f64>().ok()) {
            Some(time) if time > 0.0 => Ok(()),
            _ => Err(page),
        }
    });
    // The member's address as the golden file writes it.
    let typed = |line: &str| {
        let line = line.replace("127.0.0.1", &ip);
        trestle(&endpoints, &line.split(' ').collect::<Vec<_>>())
    };
    let said: String =
        session.lines().filter(|line| !line.is_empty()).map(|line| shown(line, &typed(line))).collect();
    let status = trestle(&endpoints, &["status", "-o", "json"]).expect_success();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let said = said.replace(&ip, "127.0.0.1").replace(status["cluster_id"].as_str().unwrap(), "CLUSTER-ID");
    let said = mask(&said);
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    std::fs::write(&found, &said).unwrap();
    for (number, (said, golden)) in said.lines().zip(golden.lines()).enumerate() {
        assert_eq!(said, golden, "line {} of {} is not as in golden/{file}", number + 1, found.display());
    }
    assert_eq!(said.lines().count(), golden.lines().count(), "{} has more or fewer lines", found.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_looks_as_it_should() {
    // One member that is never in doubt about its leadership: every run gives the same revisions.
    let cluster = Cluster::start_with(trestled(), 1, "profile = \"wide\"\n").await;
    golden_session(&cluster, SESSION, "session.txt", include_str!("golden/session.txt"), str::to_owned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_endpoints_are_walked_past() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    cluster.members[0].kill();
    cluster.leader().await;
    let endpoints = cluster.endpoints();
    trestle(&endpoints, &["pool", "create", "web"]).expect_success();
    assert!(trestle(&endpoints, &["pool", "list"]).expect_success().contains("web"));
    let status = trestle(&endpoints, &["status"]);
    assert!(
        status.stdout.contains("m1") && status.stdout.contains("m3"),
        "{}{}",
        status.stdout,
        status.stderr
    );

    cluster.members[1].kill();
    let local = trestle(&endpoints, &["pool", "list", "--local"]);
    assert!(local.stdout.contains("web"), "a local read needs no leader: {}", local.stderr);
    let refused = trestle(&endpoints, &["pool", "create", "late"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("leader"), "{}", refused.stderr);

    cluster.members[2].kill();
    let nobody = trestle(&endpoints, &["--timeout", "2s", "pool", "list"]);
    assert_eq!(nobody.code, Some(1));
    for member in &cluster.members {
        assert!(nobody.stderr.contains(&member.admin().to_string()), "{}", nobody.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_changes_and_survives_the_member_it_asked() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let endpoints = cluster.endpoints();
    let dir = tempfile::TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    command.args(["--endpoint", &endpoints, "watch"]);
    let watch = Process::spawn("trestle watch", &mut command, &dir.path().join("output.log"));
    let shown = |name: &str| {
        wait_for(&format!("{name} in the watch"), Duration::from_secs(30), || {
            let output = watch.output();
            if output.contains(name) { Ok(()) } else { Err(output) }
        });
    };
    // A watch begins with changes from now on, so what it shows first may be any of these.
    let mut number = 0;
    wait_for("the watch to begin", Duration::from_secs(30), || {
        number += 1;
        trestle(&endpoints, &["pool", "create", &format!("first-{number}")]).expect_success();
        if watch.output().contains("first-") { Ok(()) } else { Err(watch.output()) }
    });
    cluster.members[0].kill();
    trestle(&endpoints, &["pool", "create", "second"]).expect_success();
    shown("second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let leader = cluster.leader().await;
    let next = &cluster.members[(leader + 1) % 3].name.clone();
    trestle(&cluster.endpoints(), &["leader", "transfer", "--to", next]).expect_success();
    assert_eq!(cluster.leader().await, (leader + 1) % 3);
    let refused = trestle(&cluster.endpoints(), &["leader", "transfer", "--to", "nobody"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("nobody"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_all_pools_and_who_does_not_answer() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let endpoints = cluster.endpoints();
    for line in [
        "pool create web --health none --slow-start 10s",
        "pool create empty",
        "backend add web/a 127.0.0.1:1 --max-connections 5",
        "listener create front --bind 0.0.0.0:8080 --pool web --wait",
    ] {
        trestle(&endpoints, &line.split(' ').collect::<Vec<_>>()).expect_success();
    }
    // Each of these connections finds nobody at the backend. A client that goes before that is forgotten, so they stay.
    for _ in 0..3 {
        let mut client = std::net::TcpStream::connect((cluster.members[0].ip, 8080)).unwrap();
        let _ = client.read(&mut [0; 1]);
    }
    let look = || -> serde_json::Value {
        let output = trestle(&endpoints, &["top", "--once", "-i", "100ms", "-o", "json"]).expect_success();
        serde_json::from_str(&output).unwrap()
    };
    let json = look();
    assert_eq!(json["voters_answering"], 3, "{json}");
    let pools: Vec<&str> =
        json["pools"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(pools, ["empty", "web"]);
    let backend = &json["pools"][1]["backends"][0];
    assert_eq!((&backend["address"], &backend["state"]), (&"127.0.0.1:1".into(), &"enabled".into()));
    assert_eq!(backend["verdicts"], serde_json::json!(["unknown", "unknown", "unknown"]));
    let failures = || -> u64 {
        let output = trestle(&endpoints, &["listener", "get", "front", "-o", "json"]).expect_success();
        let json: serde_json::Value = serde_json::from_str(&output).unwrap();
        let views = json["ready"]["views"].as_array().unwrap().clone();
        views.iter().map(|view| view["failures"].as_u64().unwrap()).sum()
    };
    wait_for("three connections that reached no backend", Duration::from_secs(30), || match failures() {
        3 => Ok(()),
        other => Err(other.to_string()),
    });

    cluster.members[2].kill();
    let json = look();
    assert_eq!(json["voters_answering"], 2, "{json}");
    assert_eq!(json["members"][2]["state"], "unreachable");
    assert_eq!(json["pools"][1]["backends"][0]["verdicts"][2], "-");
    assert_eq!(json["listeners"][0]["problem"], "m3: unreachable");
}

#[test]
fn help_and_completions_need_no_cluster() {
    let nobody = "127.0.0.1:1";
    assert!(trestle(nobody, &["--help"]).expect_success().contains("TRESTLE_ENDPOINT"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(trestle(nobody, &["completions", shell]).expect_success().contains("trestle"), "{shell}");
    }
}
