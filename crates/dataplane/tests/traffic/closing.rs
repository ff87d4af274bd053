//! What ends connections, and what does not.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use trestle_dataplane::CloseReason;
use trestle_model::{AdminState, Algorithm, Command, OnDown, PoolSpec};

use crate::harness::*;
use crate::patch::{BackendPatch, HealthPatch, PoolPatch};

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
    plane.apply(Command::delete(pool_name("p"))).await;
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
        health: HealthPatch {
            kind: Some(trestle_model::CheckKind::Tcp),
            interval: Some(Duration::from_millis(50)),
            ..Default::default()
        },
        on_down: Some(OnDown::Keep),
        close_spread_percent: Some(50),
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

/// How long after `begin` each of these clients was reset, the first one first.
async fn ends(clients: Vec<Client>, begin: Instant) -> Vec<Duration> {
    let ends = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
            begin.elapsed()
        })
    });
    let mut times = Vec::new();
    for end in ends.collect::<Vec<_>>() {
        times.push(end.await.unwrap());
    }
    times.sort();
    times
}

/// A pool that spreads ends over half of a time, and 40 clients of it.
async fn many() -> (Plane, Server, Vec<Client>) {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    let spec = PoolSpec { close_spread_percent: 50, ..unchecked() };
    plane.pool("p", spec, &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(front).await.unwrap());
    }
    (plane, server, clients)
}

/// A time over whose second half ends are spread: long enough for a machine that stands still for a while.
const TIME: Duration = Duration::from_secs(2);

/// Whether 40 ends lie in the second half of the time and fill half of that at least.
fn are_spread(ends: &[Duration]) {
    assert!(ends[0] >= TIME / 2, "{ends:?}");
    assert!(ends[39] - ends[0] >= TIME / 4, "{ends:?}");
}

#[tokio::test]
async fn connections_end_one_after_another_before_a_drain_does() {
    let (mut plane, _server, clients) = many().await;
    let begin = Instant::now();
    plane.admin("p", "a", AdminState::Draining { timeout: Some(TIME) }).await;
    are_spread(&ends(clients, begin).await);
    plane.until_closed("l", CloseReason::Drained, 40).await;
}

#[tokio::test]
async fn a_drain_that_is_taken_back_ends_no_more() {
    let (mut plane, _server, clients) = many().await;
    let begin = Instant::now();
    plane.admin("p", "a", AdminState::Draining { timeout: Some(TIME) }).await;
    until("one has ended", || plane.listener_counts("l").closed(CloseReason::Drained) > 0).await;
    plane.admin("p", "a", AdminState::Enabled).await;
    let drained = || plane.listener_counts("l").closed(CloseReason::Drained);
    let before = drained();
    assert!(before < 40, "all have ended at once");
    tokio::time::sleep((TIME + Duration::from_millis(100)).saturating_sub(begin.elapsed())).await;
    assert_eq!(drained(), before);
    drop(clients);
}

#[tokio::test]
async fn connections_end_one_after_another_before_the_grace_time_does() {
    let (plane, _server, clients) = many().await;
    let begin = Instant::now();
    let (cut, ends) = tokio::join!(plane.plane.finish(TIME), ends(clients, begin));
    are_spread(&ends);
    assert_eq!(cut, 40);
    assert_eq!(plane.listener_counts("l").closed(CloseReason::MemberShutdown), 40);
}

#[tokio::test]
async fn a_member_that_takes_its_leave_spreads_the_ends_of_drains_without_a_deadline_too() {
    let (mut plane, _server, clients) = many().await;
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    // One that is taken in again ends nothing.
    plane.plane.end_within(Some(TIME));
    plane.plane.end_within(None);
    tokio::time::sleep(TIME + Duration::from_millis(100)).await;
    assert_eq!(plane.plane.open_connections(), 40);
    let begin = Instant::now();
    plane.plane.end_within(Some(TIME));
    are_spread(&ends(clients, begin).await);
    plane.until_closed("l", CloseReason::Drained, 40).await;
}

#[tokio::test]
async fn lifetimes_that_began_together_end_one_after_another() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    let spec = PoolSpec { close_spread_percent: 50, max_lifetime: TIME, ..unchecked() };
    plane.pool("p", spec, &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    let begin = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(front).await.unwrap());
    }
    are_spread(&ends(clients, begin).await);
    plane.until_closed("l", CloseReason::Expired, 40).await;
}
