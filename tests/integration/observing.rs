//! What a monitoring system reads: health, readiness, metrics.

use std::sync::mpsc;
use std::time::Duration;

use trestle_api::v1::Verdict;
use trestle_testkit::{Cluster, Member, Origin, Subnet, fetch_http, get, wait_for};

use crate::trestled;

/// The sum of all series of this metric whose labels include `labels`.
fn value(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name =
        metrics.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
    let values: Vec<f64> = of_name
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {name} with {labels:?} in\n{metrics}");
    values.iter().sum()
}

#[test]
fn an_empty_member_lives_and_is_not_ready() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    member.start();
    assert_eq!(get(member.http(), "/livez").unwrap().status, 200);
    let ready = get(member.http(), "/readyz").unwrap();
    assert_eq!(ready.status, 503);
    assert!(!ready.body.trim().is_empty(), "it says why");
    assert_eq!(get(member.http(), "/nothing").unwrap().status, 404);
    assert_eq!(get(member.http(), "/metrics").unwrap().status, 200);
}

/// Whoever asks in the moment in which a change comes into force must not take the member out of service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_does_not_make_a_member_unready() {
    let cluster = Cluster::start(trestled(), 1).await;
    let (api, http) = (cluster.api(0), cluster.members[0].http());
    let (ended, end) = mpsc::channel::<()>();
    let asking = std::thread::spawn(move || {
        while end.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let page = get(http, "/readyz").unwrap();
            assert_eq!(page.status, 200, "{}", page.body);
        }
    });
    for number in 0..200 {
        api.create_pool(&format!("web{number}"), None).await.unwrap();
    }
    drop(ended);
    asking.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_follow_what_happens() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", Some(Duration::from_millis(100))).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.create_listener("front", "0.0.0.0:8080", "web").await.unwrap();
    let status = cluster.agreed().await;
    api.verdict("web", |_| true, Verdict::Healthy).await;

    let http = cluster.members[1].http();
    assert_eq!(get(http, "/readyz").unwrap().status, 200);
    for _ in 0..5 {
        fetch_http((cluster.members[1].ip, 8080).into()).unwrap();
    }
    let metrics = || get(http, "/metrics").unwrap();
    let page = metrics();
    assert!(page.head.to_lowercase().contains("content-type: application/openmetrics-text"), "{}", page.head);
    assert!(page.body.ends_with("# EOF\n"), "OpenMetrics ends with a mark");
    let before = page.body;
    assert!(value(&before, "trestle_raft_term", &[]) >= 1.0);
    assert!(value(&before, "trestle_raft_applied_index", &[]) >= status.revision as f64);
    assert_eq!(value(&before, "trestle_listener_connections_total", &["listener=\"front\""]), 5.0);
    assert_eq!(value(&before, "trestle_backend_connections_total", &["pool=\"web\"", "backend=\"a\""]), 5.0);
    let undocumented = before.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
    let undocumented: Vec<String> = undocumented
        .map(name)
        .filter(|name| {
            let family =
                ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            !before.contains(&format!("# HELP {} ", family.unwrap_or(name)))
        })
        .collect();
    assert!(undocumented.is_empty(), "metrics without help: {undocumented:?}");

    let labels = ["pool=\"web\"", "backend=\"a\"", "verdict=\"healthy\""];
    let healthy = |metrics: &str| value(metrics, "trestle_backend_verdict", &labels);
    assert_eq!(healthy(&before), 1.0);
    origin.stop();
    api.verdict("web", |_| true, Verdict::Unhealthy).await;
    // What one asks for is made once for all who ask within a second.
    wait_for("the verdict in the metrics", Duration::from_secs(30), || match healthy(&metrics().body) {
        0.0 => Ok(()),
        other => Err(other.to_string()),
    });
}
