//! Clients that come back to the backend that they had.

use std::net::SocketAddr;
use std::time::Duration;

use trestle_dataplane::Verdict;
use trestle_model::{AdminState, Algorithm, BackendSpec, PoolSpec};

use crate::harness::*;
use crate::patch::{BackendPatch, PoolPatch};
use crate::policies::Judged;
use crate::sources::{client_from, server_of};

fn sticky(spec: PoolSpec) -> PoolSpec {
    PoolSpec { stickiness: Duration::from_secs(3600), ..spec }
}

/// The servers that one client is led to, as a word; each connection may come to another worker.
async fn servers_of(client: u8, front: SocketAddr, times: usize) -> String {
    let mut word = String::new();
    for _ in 0..times {
        word.push_str(&server_of(client, front).await);
    }
    word
}

#[tokio::test]
async fn a_client_keeps_its_backend_on_every_worker_and_across_changes() {
    let (a, b, c) = (Server::start("a").await, Server::start("b").await, Server::start("c").await);
    let mut plane = Plane::start();
    let backends = [("a", at(a.address)), ("b", at(b.address))];
    plane.pool("p", sticky(unchecked()), &backends).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(server_of(1, front).await, "a");
    assert_eq!(server_of(2, front).await, "b");
    assert_eq!(servers_of(1, front, 12).await, "a".repeat(12));
    assert_eq!(servers_of(2, front, 12).await, "b".repeat(12));
    let (pool, name) = (pool_name("p"), backend_name("0"));
    plane.apply(trestle_model::Command::create((pool, name, at(c.address)))).await;
    plane.update_backend("p", "b", BackendPatch { weight: Some(200), ..BackendPatch::default() }).await;
    assert_eq!(servers_of(1, front, 5).await, "aaaaa");
    plane.update_pool("p", PoolPatch { stickiness: Some(Duration::ZERO), ..PoolPatch::default() }).await;
    assert!(servers_of(1, front, 202).await.contains('b'), "nobody is remembered any more");
}

#[tokio::test]
async fn a_client_is_forgotten_after_its_time() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let keep = Duration::from_secs(2);
    let backends = [("a", at(a.address)), ("b", at(b.address))];
    plane.pool("p", PoolSpec { stickiness: keep, ..unchecked() }, &backends).await;
    let front = plane.listener("l", "p").await;
    let client = client_from(1, front).await;
    assert_eq!(client.server, "a");
    tokio::time::sleep(keep).await;
    // That the connection lasted longer than the time does not matter: the time counts from its end.
    client.finish().await;
    until("the end is counted", || plane.backend_counts("p", "a").active == 0).await;
    assert_eq!(server_of(1, front).await, "a");
    until("the end is counted", || plane.backend_counts("p", "a").active == 0).await;
    let short = Duration::from_millis(10);
    tokio::time::sleep(short).await;
    plane.update_pool("p", PoolPatch { stickiness: Some(short), ..PoolPatch::default() }).await;
    assert_eq!(server_of(1, front).await, "b");
}

#[tokio::test]
async fn while_its_backend_is_full_a_client_goes_elsewhere_and_then_comes_back() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let one = BackendSpec { max_connections: 1, ..at(a.address) };
    plane.pool("p", sticky(unchecked()), &[("a", one), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let first = client_from(1, front).await;
    assert_eq!(first.server, "a");
    assert_eq!(servers_of(1, front, 3).await, "bbb");
    first.finish().await;
    until("a is free", || plane.backend_counts("p", "a").active == 0).await;
    for _ in 0..3 {
        assert_eq!(server_of(1, front).await, "a");
        until("a is free", || plane.backend_counts("p", "a").active == 0).await;
    }
}

#[tokio::test]
async fn a_client_of_a_backend_that_goes_gets_another_one_for_good() {
    let (mut j, a) = (Judged::start("j").await, Server::start("a").await);
    let _a_checks = Server::start_at("h", SocketAddr::new(a.address.ip(), j.address.port())).await;
    let mut plane = Plane::start();
    let spec = PoolSpec { algorithm: Algorithm::First, ..checked() };
    plane.pool("p", j.pool(sticky(spec)), &[("a", at(a.address)), ("j", at(j.server.address))]).await;
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "j", Verdict::Healthy).await;
    let front = plane.listener("l", "p").await;
    assert_eq!((server_of(1, front).await, server_of(2, front).await), ("j".into(), "j".into()));
    plane.admin("p", "a", AdminState::Enabled).await;
    assert_eq!((server_of(1, front).await, server_of(3, front).await), ("j".into(), "a".into()));
    j.fail().await;
    plane.until_verdict("p", "j", Verdict::Unhealthy).await;
    assert_eq!(server_of(1, front).await, "a");
    j.recover().await;
    plane.until_verdict("p", "j", Verdict::Healthy).await;
    assert_eq!(server_of(1, front).await, "a", "it has another backend now");
    assert_eq!(server_of(2, front).await, "a", "what was before it went down is forgotten");
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    assert_eq!(server_of(1, front).await, "j", "a backend that is drained takes nobody");
    plane.admin("p", "a", AdminState::Enabled).await;
    assert_eq!(server_of(1, front).await, "j");
    plane.remove_backend("p", "j").await;
    assert_eq!(server_of(1, front).await, "a");
}

#[tokio::test]
async fn a_client_that_its_backend_refuses_gets_another_one() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", sticky(unchecked()), &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(server_of(1, front).await, "a");
    a.stop().await;
    assert_eq!(servers_of(1, front, 3).await, "bbb");
    assert_eq!(plane.backend_counts("p", "a").connect_failures, 1);
}
