//! What backends count as before they are checked, and the history of what they were found to be.

use std::time::Duration;

use trestle_dataplane::Verdict;
use trestle_model::{CheckKind, InitialState, PoolSpec};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{BackendPatch, HealthPatch, PoolPatch};

/// A pool whose backends count as `state` at first, and are checked seldom.
fn starting(state: InitialState) -> PoolSpec {
    let mut spec = checked_by(CheckKind::Tcp, PATIENT);
    (spec.health.initial_state, spec.health.rise, spec.health.fall) = (state, 3, 3);
    (spec.health.interval, spec.health.fast_interval) =
        (Duration::from_secs(3600), Duration::from_secs(3600));
    spec
}

fn often() -> PoolPatch {
    let often = Some(Duration::from_millis(50));
    let health = HealthPatch { interval: often, fast_interval: often, ..HealthPatch::default() };
    PoolPatch { health, ..PoolPatch::default() }
}

fn history(plane: &Plane) -> Vec<(Verdict, String)> {
    let table = plane.plane.table();
    let backend = table.pools[&pool_name("p")].backend(&backend_name("a")).unwrap();
    let changes = backend.history();
    assert!(changes.is_sorted_by_key(|change| change.at));
    assert!(changes.iter().all(|change| change.ago() < DEADLINE));
    assert!(changes.last().is_none_or(|last| last.at == backend.since && last.verdict == backend.verdict));
    changes.iter().map(|change| (change.verdict, change.reason.to_string())).collect()
}

#[tokio::test]
async fn a_backend_that_starts_healthy_is_used_until_checks_have_failed() {
    let mut plane = Plane::start();
    plane.pool("p", starting(InitialState::Healthy), &[("a", at(free()))]).await;
    until("a check", || plane.backend_counts("p", "a").checks_failed == 1).await;
    assert_eq!(plane.verdict("p", "a"), good("not checked yet"));
    plane.update_pool("p", often()).await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(plane.backend_counts("p", "a").checks_failed >= 4);
    assert_eq!(history(&plane), [good("not checked yet"), bad("connection refused")]);
}

#[tokio::test]
async fn a_backend_that_starts_unhealthy_is_used_when_checks_have_succeeded() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", starting(InitialState::Unhealthy), &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    until("a check", || plane.backend_counts("p", "a").checks_ok == 1).await;
    assert_eq!(plane.verdict("p", "a"), bad("not checked yet"));
    assert!(turned_away(front).await);
    plane.update_pool("p", often()).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    assert_eq!(servers(front, 1).await, "a");
}

#[tokio::test]
async fn what_is_moved_or_checked_again_starts_anew() {
    let (server, elsewhere) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let mut spec = starting(InitialState::Unhealthy);
    spec.health.kind = CheckKind::None;
    plane.pool("p", spec, &[("a", at(server.address))]).await;
    assert_eq!(plane.verdict("p", "a").0, Verdict::Unknown);
    let health = HealthPatch { kind: Some(CheckKind::Tcp), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    assert_eq!(plane.verdict("p", "a"), bad("not checked yet"));
    plane.update_pool("p", often()).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    let health =
        HealthPatch { interval: Some(Duration::from_secs(3600)), rise: Some(100), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    let address = Some(at(elsewhere.address).address);
    plane.update_backend("p", "a", BackendPatch { address, ..BackendPatch::default() }).await;
    assert_eq!(plane.verdict("p", "a"), bad("not checked yet"));
    let expected = [bad("not checked yet"), good("connected"), bad("not checked yet")];
    assert_eq!(history(&plane), expected);
}

#[tokio::test]
async fn the_last_changes_are_kept_with_their_reasons() {
    let address = free();
    let mut plane = Plane::start();
    let mut spec = checked();
    (spec.health.rise, spec.health.fall) = (1, 1);
    plane.pool("p", spec, &[("a", at(address))]).await;
    let mut expected = Vec::new();
    for _ in 0..9 {
        plane.until_verdict("p", "a", Verdict::Unhealthy).await;
        let server = Server::start_at("a", address).await;
        plane.until_verdict("p", "a", Verdict::Healthy).await;
        server.stop().await;
        expected.extend([bad("connection refused"), good("connected")]);
    }
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    expected.push(bad("connection refused"));
    assert_eq!(history(&plane), expected[3..]);
}
