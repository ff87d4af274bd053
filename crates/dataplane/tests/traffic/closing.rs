//! What ends connections, and what does not.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trestle_dataplane::CloseReason;
use trestle_model::{AdminState, Algorithm, BackendPatch, Command, OnDown, PoolPatch};

use crate::harness::*;

/// Two servers, one pool, one listener, and one open connection to each server.
async fn two() -> (Plane, [Server; 2], std::net::SocketAddr, [Client; 2]) {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let clients = [Client::connect(front).await.unwrap(), Client::connect(front).await.unwrap()];
    assert_eq!((&*clients[0].server, &*clients[1].server), ("a", "b"));
    (plane, [a, b], front, clients)
}

#[tokio::test]
async fn a_drain_lets_old_connections_finish_and_new_ones_go_elsewhere() {
    let (mut plane, _servers, front, [mut old, _]) = two().await;
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    assert_eq!(servers(front, 5).await, "bbbbb");
    assert!(old.works().await);
    plane.admin("p", "a", AdminState::Enabled).await;
    assert_eq!(count(&servers(front, 4).await, 'a'), 2);
    assert!(old.works().await);
    old.finish().await;
}

#[tokio::test]
async fn a_drain_with_a_deadline_closes_what_is_left_then() {
    let (mut plane, [a, _b], front, [mut old, mut other]) = two().await;
    plane.admin("p", "a", AdminState::Draining { timeout: Some(Duration::from_secs(3600)) }).await;
    assert!(old.works().await);
    // Counted from the first notice, of which this is long past.
    plane.admin("p", "a", AdminState::Draining { timeout: Some(Duration::from_millis(1)) }).await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::Drained, 1).await;
    until("the server's side ends too", || a.open.load(Ordering::SeqCst) == 0).await;
    assert!(other.works().await);
    plane.admin("p", "a", AdminState::Enabled).await;
    let mut again = Client::connect(front).await.unwrap();
    if again.server != "a" {
        again = Client::connect(front).await.unwrap();
    }
    assert_eq!(again.server, "a");
    assert!(again.works().await, "a connection made after the drain does not belong to it");
}

#[tokio::test]
async fn a_deadline_in_the_future_is_kept() {
    let (mut plane, _servers, _front, [mut old, mut other]) = two().await;
    plane.admin("p", "a", AdminState::Draining { timeout: Some(Duration::from_millis(300)) }).await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::Drained, 1).await;
    assert!(other.works().await);
}

#[tokio::test]
async fn disabling_closes_both_legs_of_that_backend_only() {
    let (mut plane, [a, _b], front, [mut old, mut other]) = two().await;
    plane.admin("p", "a", AdminState::Disabled).await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    until("the server's side ends too", || a.open.load(Ordering::SeqCst) == 0).await;
    plane.until_closed("l", CloseReason::BackendDisabled, 1).await;
    assert!(other.works().await);
    assert_eq!(servers(front, 2).await, "bb");
    plane.admin("p", "a", AdminState::Enabled).await;
    assert_eq!(count(&servers(front, 4).await, 'a'), 2);
}

#[tokio::test]
async fn removing_closes_both_legs_of_that_backend_only() {
    let (mut plane, [a, _b], front, [mut old, mut other]) = two().await;
    plane.remove_backend("p", "a").await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    until("the server's side ends too", || a.open.load(Ordering::SeqCst) == 0).await;
    plane.until_closed("l", CloseReason::BackendRemoved, 1).await;
    assert!(other.works().await);
    assert_eq!(servers(front, 2).await, "bb");
}

#[tokio::test]
async fn removing_a_pool_closes_its_connections() {
    let (mut plane, _servers, _front, [mut old, mut other]) = two().await;
    // Connections go on without their listener, and end with their pool.
    plane.remove_listener("l").await;
    assert!(old.works().await && other.works().await);
    plane.apply(Command::DeletePool { name: pool_name("p"), expect: None }).await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    assert_eq!(other.end().await, Some(ErrorKind::ConnectionReset));
    until("all are gone", || plane.plane.open_connections() == 0).await;
}

#[tokio::test]
async fn other_changes_close_nothing() {
    let (mut plane, _servers, _front, mut clients) = two().await;
    let patch = PoolPatch {
        algorithm: Some(Algorithm::LeastConnections),
        connect_timeout: Some(Duration::from_millis(100)),
        connect_retries: Some(0),
        health: trestle_model::HealthPatch {
            kind: Some(trestle_model::CheckKind::Tcp),
            interval: Some(Duration::from_millis(50)),
            ..Default::default()
        },
        on_down: Some(OnDown::Keep),
        ..PoolPatch::default()
    };
    plane.update_pool("p", patch).await;
    let moved = trestle_model::BackendAddress::parse(&free().to_string()).unwrap();
    let patch =
        BackendPatch { weight: Some(7), backup: Some(true), address: Some(moved), ..BackendPatch::default() };
    plane.update_backend("p", "a", patch).await;
    plane.pool("q", unchecked(), &[]).await;
    // Also a verdict against the backend leaves its connections alone, where the pool says so.
    plane.until_verdict("p", "a", trestle_dataplane::Verdict::Unhealthy).await;
    for client in &mut clients {
        assert!(client.works().await);
    }
}

#[tokio::test]
async fn finishing_waits_for_connections() {
    let (plane, _servers, front, [mut old, other]) = two().await;
    plane.plane.stop_accepting();
    until("nothing listens", || std::net::TcpStream::connect(front).is_err()).await;
    assert!(old.works().await);
    let finishing = plane.plane.finish(Duration::from_secs(3600));
    let clients = async {
        other.finish().await;
        assert!(old.works().await);
        old.finish().await;
    };
    let (forced, ()) = soon("finish", async { tokio::join!(finishing, clients) }).await;
    assert_eq!(forced, 0);
    assert_eq!(plane.plane.finish(Duration::from_secs(3600)).await, 0);
}

#[tokio::test]
async fn after_the_grace_time_what_is_left_is_reset() {
    let (plane, _servers, _front, [old, mut stays]) = two().await;
    old.finish().await;
    until("one has ended", || plane.plane.open_connections() == 1).await;
    assert_eq!(soon("finish", plane.plane.finish(Duration::from_millis(50))).await, 1);
    assert_eq!(stays.end().await, Some(ErrorKind::ConnectionReset));
    assert_eq!(plane.listener_counts("l").closed(CloseReason::MemberShutdown), 1);
}
