//! Checks and what follows from them.

use std::time::Duration;

use trestle_dataplane::Verdict;
use trestle_model::{BackendAddress, BackendSpec, CheckKind, HealthCheck, Host, PoolSpec};

use crate::harness::*;
use crate::patch::{BackendPatch, HealthPatch, PoolPatch};

#[tokio::test]
async fn a_backend_that_stops_is_left_out_and_one_that_returns_is_taken_back() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", checked(), &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    assert_eq!(plane.verdict("p", "a").1, "connected");
    assert_eq!(count(&servers(front, 4).await, 'a'), 2);
    let address = a.address;
    a.stop().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert_eq!(plane.verdict("p", "a").1, "connection refused");
    let checks = plane.backend_counts("p", "a");
    assert!(checks.checks_failed >= 3 && checks.checks_ok >= 1, "{checks:?}");
    let before = plane.backend_counts("p", "a").connect_failures;
    assert_eq!(servers(front, 4).await, "bbbb");
    assert_eq!(
        plane.backend_counts("p", "a").connect_failures,
        before,
        "it was dialled although it is unhealthy"
    );
    let _a = Server::start_at("a", address).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    assert_eq!(count(&servers(front, 4).await, 'a'), 2);
}

#[tokio::test]
async fn the_first_check_decides_at_once() {
    let mut plane = Plane::start();
    let patient =
        HealthCheck { interval: Duration::from_secs(3600), rise: 100, fall: 100, ..HealthCheck::default() };
    let a = Server::start("a").await;
    let spec = PoolSpec { health: patient, ..PoolSpec::default() };
    plane.pool("p", spec, &[("a", at(a.address)), ("b", at(free()))]).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Unhealthy).await;
}

#[tokio::test]
async fn a_silent_backend_times_out() {
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind((ip(), 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let silent = full.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(silent).await.unwrap();
    let mut plane = Plane::start();
    let mut spec = checked();
    spec.health.timeout = Duration::from_millis(60);
    plane.pool("p", spec, &[("a", at(silent))]).await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert_eq!(plane.verdict("p", "a").1, "timed out after 60ms");
}

#[tokio::test]
async fn no_check_means_unknown_and_usable() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(a.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(plane.verdict("p", "a"), (Verdict::Unknown, "the pool has no health check".to_owned()));
    assert_eq!(servers(front, 1).await, "a");
    assert_eq!(plane.backend_counts("p", "a").checks_ok, 0);
}

#[tokio::test]
async fn the_pools_port_is_checked_where_it_has_one() {
    let checked_port = Server::start("h").await;
    let front = free();
    let mut plane = Plane::start();
    let mut spec = checked();
    spec.health.port = std::num::NonZeroU16::new(checked_port.address.port());
    let portless = BackendSpec::at(BackendAddress { host: Host::Ip(checked_port.address.ip()), port: None });
    plane.pool("p", spec, &[("a", portless)]).await;
    plane.listener_at("l", front, "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    checked_port.stop().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
}

#[tokio::test]
async fn other_check_settings_keep_the_verdict_and_another_address_does_not() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", checked(), &[("a", at(a.address)), ("b", at(b.address))]).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    let seldom = Duration::from_secs(3600);
    let health = HealthPatch { interval: Some(seldom), fall: Some(100), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    assert_eq!(plane.verdict("p", "a").0, Verdict::Healthy);
    let dead = BackendAddress::parse(&free().to_string()).unwrap();
    plane.update_backend("p", "a", BackendPatch { address: Some(dead), ..BackendPatch::default() }).await;
    // The first check there decides, though it would take a hundred to change a verdict that stood.
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert_eq!(plane.verdict("p", "b").0, Verdict::Healthy);
    let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    assert_eq!(plane.verdict("p", "a").0, Verdict::Unknown);
    assert_eq!(plane.verdict("p", "b").0, Verdict::Unknown);
}

#[tokio::test]
async fn a_change_restarts_only_the_checks_that_it_concerns() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let mut spec = checked();
    (spec.health.interval, spec.health.jitter_percent) = (Duration::from_secs(3600), 0);
    plane.pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    plane.update_backend("p", "b", BackendPatch { weight: Some(9), ..BackendPatch::default() }).await;
    let elsewhere = Server::start("c").await;
    let address = Some(BackendAddress::parse(&elsewhere.address.to_string()).unwrap());
    plane.update_backend("p", "a", BackendPatch { address, ..BackendPatch::default() }).await;
    until("a is checked at its new address", || plane.backend_counts("p", "a").checks_ok == 2).await;
    assert_eq!(plane.backend_counts("p", "b").checks_ok, 1);
}

#[tokio::test]
async fn many_doubts_bring_no_storm_of_checks() {
    let judge = Server::start("h").await;
    let dead = {
        let ip = judge.address.ip();
        std::net::TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
    };
    let mut plane = Plane::start();
    let mut spec = checked();
    spec.health.port = std::num::NonZeroU16::new(judge.address.port());
    let hour = Duration::from_secs(3600);
    (spec.health.interval, spec.health.fast_interval) = (hour, hour);
    plane.pool("p", spec, &[("a", at(dead))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    // Each of these doubts, and the next check may begin an hour after the last one.
    for _ in 0..50 {
        assert!(turned_away(front).await);
    }
    let counts = plane.backend_counts("p", "a");
    assert!(counts.connect_failures >= 50, "{counts:?}");
    assert_eq!((counts.checks_ok, counts.checks_failed), (1, 0));
}
