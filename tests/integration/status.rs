//! `trestle status`: what is wrong is named with what to do, and goes with its cause.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use trestle_testkit::{Cluster, Origin, wait_until};

use crate::{trestle, trestled};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the status has these words, and answers it.
async fn told(endpoints: &str, words: &[&str]) -> String {
    wait_until(&format!("{words:?} in the status"), LIMIT, async || {
        let status = trestle(endpoints, &["status"]).stdout;
        if words.iter().all(|words| status.contains(words)) { Ok(status) } else { Err(status) }
    })
    .await
}

const WELL: &[&str] = &["\nno problems\n"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_and_goes_with_its_cause() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let endpoints = cluster.endpoints();
    told(&endpoints, WELL).await;

    // Somebody has the listener's address: one line for all.
    let front = SocketAddr::from((cluster.subnet.ip(21), 8080));
    let taken = TcpListener::bind(front).unwrap();
    let ip = cluster.subnet.ip(11);
    let mut origins = [Origin::start((ip, 0), "a"), Origin::start((ip, 0), "b")];
    let addresses = [origins[0].address(), origins[1].address()];
    let api = cluster.api(0);
    api.create_pool("web", Some(Duration::from_millis(100))).await.unwrap();
    for (name, address) in ["a", "b"].into_iter().zip(addresses) {
        api.create_backend("web", name, address).await.unwrap();
    }
    api.create_listener("front", front, "web").await.unwrap();
    let unbound =
        format!("problem: listener front is not bound to {front} on m1, m2, m3: address already in use");
    let status = told(&endpoints, &[&unbound, "\"trestle listener get front\""]).await;
    assert_eq!(status.matches("problem: ").count(), 1, "{status}");
    drop(taken);
    trestle(&endpoints, &["listener", "delete", "front"]).expect_success();
    told(&endpoints, WELL).await;

    // A pool loses one backend, then the other.
    origins[0].stop();
    let degraded =
        "problem: pool web is degraded on m1, m2, m3: 1 of 2 backends healthy (a: connection refused)";
    told(&endpoints, &[degraded]).await;
    // Fewer than the pool wants are as bad as none, and so is one that gets no connections.
    trestle(&endpoints, &["pool", "update", "web", "--minimum-healthy", "2"]).expect_success();
    let few = "problem: pool web is down on m1, m2, m3: 1 of 2 backends healthy, fewer than its minimum, no listener leads to \
               it (a: connection refused): ";
    told(&endpoints, &[few]).await;
    trestle(&endpoints, &["pool", "update", "web", "--minimum-healthy", "1"]).expect_success();
    trestle(&endpoints, &["backend", "update", "web/b", "--weight", "0"]).expect_success();
    told(&endpoints, &["problem: pool web is down on m1, m2, m3: 0 of 1 backends healthy"]).await;
    trestle(&endpoints, &["backend", "update", "web/b", "--weight", "1"]).expect_success();
    told(&endpoints, &[degraded]).await;
    origins[1].stop();
    let down = "problem: pool web is down on m1, m2, m3: 0 of 2 backends healthy, no listener leads to it (a, b: \
                connection refused): \"trestle backend list web\" shows each\n";
    told(&endpoints, &[down]).await;
    let _back = addresses.map(|address| Origin::start(address, "back"));
    told(&endpoints, WELL).await;

    // A member hangs, and is gone.
    let silent = format!("problem: m3 does not answer at {}: ", cluster.members[2].peer());
    let leads = cluster.leader().await;
    if leads == 2 {
        trestle(&endpoints, &["leader", "transfer", "--to", "m1"]).expect_success();
    }
    cluster.members[2].process().freeze();
    told(&endpoints, &[&format!("{silent}no answer within 1 s: its process is frozen, or")]).await;
    cluster.members[2].process().thaw();
    told(&endpoints, WELL).await;
    cluster.members[2].kill();
    told(&endpoints, &[&format!("{silent}connection refused: nothing listens there; ")]).await;
    cluster.members[2].start();
    told(&endpoints, WELL).await;
}
