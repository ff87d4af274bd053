//! Which connections end when backends are found down, and when a listener begins to serve.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use trestle_dataplane::{BindError, CloseReason, Verdict};
use trestle_model::{AdminState, AllDown, CheckKind, HttpCheck, InitialState, OnDown, PoolSpec};

use crate::checking::PATIENT;
use crate::harness::*;
use crate::patch::{BackendPatch, HealthPatch, PoolPatch};
use crate::policies::{Judged, backup, judged_pair};

/// A patch of a pool's check.
fn asking(health: HealthPatch) -> PoolPatch {
    PoolPatch { health, ..PoolPatch::default() }
}

fn asked_tcp_at(port: u16) -> PoolPatch {
    let (kind, port) = (Some(CheckKind::Tcp), Some(NonZeroU16::new(port)));
    asking(HealthPatch { kind, port, ..HealthPatch::default() })
}

async fn is_reset(client: &mut Client) {
    assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
}

/// An address that takes connections and says nothing, so that a check by HTTP lasts as long as it may.
async fn silent(address: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    (address, accepting)
}

/// A check whose answer never comes, at a port of its own.
fn unanswered(port: u16, timeout: Duration) -> PoolSpec {
    let mut spec = checked();
    spec.health.kind = CheckKind::Http(HttpCheck::default());
    (spec.health.port, spec.health.timeout) = (NonZeroU16::new(port), timeout);
    spec
}

#[tokio::test]
async fn while_all_are_down_connections_stay_until_another_is_healthy() {
    for all_down in [AllDown::Refuse, AllDown::FailOpen] {
        let (mut a, mut b) = judged_pair().await;
        let mut plane = Plane::start();
        let spec = PoolSpec { all_down, ..checked() };
        plane.pool("p", a.pool(spec), &[("a", at(a.server.address)), ("b", at(b.server.address))]).await;
        let front = plane.listener("l", "p").await;
        let mut clients = [Client::connect(front).await.unwrap(), Client::connect(front).await.unwrap()];
        clients.sort_by(|x, y| x.server.cmp(&y.server));
        let [on_a, on_b] = &mut clients;
        a.fail().await;
        is_reset(on_a).await;
        b.fail().await;
        plane.until_verdict("p", "b", Verdict::Unhealthy).await;
        let before = plane.backend_counts("p", "b").checks_failed;
        until("checks go on", || plane.backend_counts("p", "b").checks_failed > before + 3).await;
        assert!(on_b.works().await, "nobody would be served better elsewhere");
        let mut later = None;
        if all_down == AllDown::FailOpen {
            later = Some([Client::connect(front).await.unwrap(), Client::connect(front).await.unwrap()]);
        } else {
            assert!(turned_away(front).await);
        }
        a.recover().await;
        is_reset(on_b).await;
        for client in later.iter_mut().flatten() {
            match &*client.server {
                "a" => assert!(client.works().await, "its backend recovered"),
                _ => is_reset(client).await,
            }
        }
        assert_eq!(servers(front, 2).await, "aa");
    }
}

#[tokio::test]
async fn the_only_backend_keeps_its_connections_through_an_outage() {
    let mut a = Judged::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", a.pool(checked()), &[("a", at(a.server.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut old = Client::connect(front).await.unwrap();
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(old.works().await);
    a.recover().await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    assert!(old.works().await);
    assert_eq!(plane.listener_counts("l").closed(CloseReason::BackendDown), 0);
    // A backend that comes in their place takes over only once it is known to be good.
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    let add = |name, spec| trestle_model::Command::create((pool_name("p"), backend_name(name), spec));
    plane.apply(add("dead", at(free()))).await;
    plane.until_verdict("p", "dead", Verdict::Unhealthy).await;
    assert!(old.works().await);
    let b = Server::start("b").await;
    let _checks = Server::start_at("h", SocketAddr::new(b.address.ip(), a.address.port())).await;
    plane.apply(add("b", at(b.address))).await;
    is_reset(&mut old).await;
}

#[tokio::test]
async fn a_backup_that_is_healthy_takes_over_and_one_that_is_disabled_does_not() {
    let (mut a, b) = judged_pair().await;
    let mut plane = Plane::start();
    let spare = backup(b.server.address);
    plane.prepare_pool("p", a.pool(checked()), &[("a", at(a.server.address)), ("b", spare)]);
    plane.admin("p", "b", AdminState::Disabled).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    let mut old = Client::connect(front).await.unwrap();
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(old.works().await);
    plane.admin("p", "b", AdminState::Enabled).await;
    is_reset(&mut old).await;
    assert_eq!(servers(front, 1).await, "b");
}

#[tokio::test]
async fn with_fewer_than_the_pool_wants_nobody_is_reset_to_be_refused() {
    let (mut a, b) = judged_pair().await;
    let mut plane = Plane::start();
    let spec = PoolSpec { minimum_healthy: 2, ..checked() };
    plane.pool("p", a.pool(spec), &[("a", at(a.server.address)), ("b", at(b.server.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut clients = [Client::connect(front).await.unwrap(), Client::connect(front).await.unwrap()];
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(turned_away(front).await);
    for client in &mut clients {
        assert!(client.works().await);
    }
    plane.update_pool("p", PoolPatch { minimum_healthy: Some(1), ..PoolPatch::default() }).await;
    let on_a = clients.iter_mut().find(|client| client.server == "a").unwrap();
    is_reset(on_a).await;
}

#[tokio::test]
async fn a_backend_that_a_new_check_finds_down_loses_its_connections() {
    let a = Server::start("a").await;
    let dead = SocketAddr::new(a.address.ip(), free().port());
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(a.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut unknown = Client::connect(front).await.unwrap();
    let often = Some(Duration::from_millis(50));
    let pace = HealthPatch { interval: often, fast_interval: often, ..HealthPatch::default() };
    plane.update_pool("p", asking(pace)).await;
    plane.update_pool("p", asked_tcp_at(dead.port())).await;
    is_reset(&mut unknown).await;
    plane.until_closed("l", CloseReason::BackendDown, 1).await;
    plane.update_pool("p", asked_tcp_at(a.address.port())).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    let mut healthy = Client::connect(front).await.unwrap();
    // Of the same question at another pace it stays what it was found to be.
    let pace = HealthPatch { fall: Some(2), ..HealthPatch::default() };
    plane.update_pool("p", asking(pace)).await;
    assert!(healthy.works().await);
    plane.update_pool("p", asked_tcp_at(dead.port())).await;
    is_reset(&mut healthy).await;
}

#[tokio::test]
async fn a_backend_that_is_moved_to_a_dead_address_loses_its_connections() {
    for initial_state in [InitialState::Unknown, InitialState::Healthy, InitialState::Unhealthy] {
        let a = Server::start("a").await;
        let mut plane = Plane::start();
        let mut spec = checked();
        spec.health.initial_state = initial_state;
        plane.pool("p", spec, &[("a", at(a.address))]).await;
        let front = plane.listener("l", "p").await;
        plane.until_verdict("p", "a", Verdict::Healthy).await;
        let mut old = Client::connect(front).await.unwrap();
        let address = Some(at(free()).address);
        plane.update_backend("p", "a", BackendPatch { address, ..BackendPatch::default() }).await;
        is_reset(&mut old).await;
        plane.until_closed("l", CloseReason::BackendDown, 1).await;
    }
}

#[tokio::test]
async fn what_is_led_to_an_unknown_backend_goes_with_the_first_verdict_against_it() {
    let a = Server::start("a").await;
    let (checks, hanging) = silent(SocketAddr::new(a.address.ip(), 0)).await;
    let mut plane = Plane::start();
    plane.pool("p", unanswered(checks.port(), PATIENT), &[("a", at(a.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(plane.verdict("p", "a").0, Verdict::Unknown, "it serves before the first check has ended");
    let mut early = Client::connect(front).await.unwrap();
    // Its connections end, and so do the checks.
    hanging.abort();
    is_reset(&mut early).await;
    plane.until_closed("l", CloseReason::BackendDown, 1).await;
}

#[tokio::test]
async fn a_new_listener_serves_once_its_backends_were_checked() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let checks = Server::start_at("h", (a.address.ip(), 0).into()).await;
    let mut plane = Plane::start();
    let mut spec = checked();
    spec.health.port = NonZeroU16::new(checks.address.port());
    plane.prepare_pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]);
    let front = free();
    plane.prepare_listener("l", front, "p");
    plane.publish().await;
    // Nobody was led to b, of which nothing was known when the configuration came.
    assert_eq!(plane.verdict("p", "a").0, Verdict::Healthy);
    assert_eq!(plane.verdict("p", "b").0, Verdict::Unhealthy);
    assert_eq!(servers(front, 4).await, "aaaa");
}

#[tokio::test]
async fn a_listener_waits_for_slow_checks_no_longer_than_two_seconds_and_others_do_not() {
    let a = Server::start("a").await;
    let (checks, _hanging) = silent(SocketAddr::new(a.address.ip(), 0)).await;
    let mut plane = Plane::start();
    plane.pool("ready", unchecked(), &[("a", at(a.address))]).await;
    plane.prepare_pool("slow", unanswered(checks.port(), PATIENT), &[("a", at(a.address))]);
    let (slow, ready) = (free(), free());
    plane.prepare_listener("slow", slow, "slow");
    let (start, before) = (Instant::now(), plane.state.revision);
    plane.publish_only();
    let held = |plane: &Plane| {
        let table = plane.plane.table();
        let bind = table.listeners.get(&listener_name("slow")).map(|l| l.binds[0].clone());
        bind.is_some_and(|bind| bind.effective == slow && bind.error == Some(BindError::Unchecked))
    };
    until("the new listener waits", || held(&plane)).await;
    assert!(plane.errors("slow").is_empty(), "that is no error");
    assert!(*plane.plane.in_force().borrow() < before, "what waits is not in force");
    plane.prepare_listener("ready", ready, "ready");
    plane.publish_only();
    until("the other listener serves", || std::net::TcpStream::connect(ready).is_ok()).await;
    assert!(start.elapsed() > Duration::from_secs(2) || std::net::TcpStream::connect(slow).is_err());
    plane.publish().await;
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(servers(slow, 1).await, "a");
    // It goes on to serve whatever else comes.
    plane.update_pool("slow", asked_tcp_at(checks.port())).await;
    assert_eq!(servers(slow, 1).await, "a");
}

#[tokio::test]
async fn a_backend_that_is_taken_for_healthy_is_served_at_once() {
    let a = Server::start("a").await;
    let (checks, _hanging) = silent(SocketAddr::new(a.address.ip(), 0)).await;
    let mut spec = unanswered(checks.port(), PATIENT);
    spec.health.initial_state = InitialState::Healthy;
    let mut plane = Plane::start();
    plane.prepare_pool("p", spec, &[("a", at(a.address))]);
    plane.prepare_listener("l", free(), "p");
    plane.publish_only();
    let waits = || plane.plane.table().listeners.values().any(|listener| listener.is_unchecked());
    until("it is in force", || {
        assert!(!waits());
        *plane.plane.in_force().borrow() == plane.state.revision
    })
    .await;
}

#[tokio::test]
async fn a_drained_backend_that_is_down_keeps_its_connections_while_nothing_is_better() {
    let (mut a, mut b) = judged_pair().await;
    let mut plane = Plane::start();
    let spec = PoolSpec { on_down: OnDown::Close, ..checked() };
    plane.pool("p", a.pool(spec), &[("a", at(a.server.address)), ("b", backup(b.server.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut old = Client::connect(front).await.unwrap();
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    b.fail().await;
    plane.until_verdict("p", "b", Verdict::Unhealthy).await;
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(old.works().await);
    b.recover().await;
    is_reset(&mut old).await;
}
