//! Shares that grow after a backend came back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trestle_dataplane::Verdict;
use trestle_model::{AdminState, PoolSpec};

use crate::harness::*;
use crate::patch::{BackendPatch, PoolPatch};
use crate::policies::Judged;

/// Backends `a` and `b`, of which `a` was down, in a pool that lets shares grow for `slow_start`.
async fn recovered(slow_start: Duration) -> (Plane, SocketAddr, [Server; 2], Judged) {
    let (mut a, b) = (Judged::start("a").await, Server::start("b").await);
    let b_checks = Server::start_at("h", SocketAddr::new(b.address.ip(), a.address.port())).await;
    let mut plane = Plane::start();
    let spec = PoolSpec { slow_start, ..checked() };
    plane.pool("p", a.pool(spec), &[("a", at(a.server.address)), ("b", at(b.address))]).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    let front = plane.listener("l", "p").await;
    let word = servers(front, 20).await;
    assert_eq!(count(&word, 'a'), 10, "nothing is slow when a member starts: {word}");
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    a.recover().await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    (plane, front, [b, b_checks], a)
}

#[tokio::test]
async fn a_backend_that_was_down_begins_with_a_twentieth() {
    let (mut plane, front, _servers, _a) = recovered(Duration::from_secs(3600)).await;
    // A step takes three minutes, and turns are exact: 1 of 21.
    let word = servers(front, 42).await;
    assert_eq!((count(&word, 'a'), count(&word, 'b')), (2, 40), "{word}");
    let all = PoolPatch { slow_start: Some(Duration::ZERO), ..PoolPatch::default() };
    plane.update_pool("p", all).await;
    let word = servers(front, 42).await;
    assert_eq!((count(&word, 'a'), count(&word, 'b')), (21, 21), "{word}");
}

#[tokio::test]
async fn a_backend_that_is_enabled_again_begins_with_a_twentieth() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    for spec in [checked(), unchecked()] {
        let mut plane = Plane::start();
        let spec = PoolSpec { slow_start: Duration::from_secs(3600), ..spec };
        plane.prepare_pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]);
        plane.admin("p", "a", AdminState::Disabled).await;
        let front = plane.listener("l", "p").await;
        for state in [AdminState::Draining { timeout: None }, AdminState::Disabled] {
            // A change of another setting makes nothing cold or warm.
            plane.admin("p", "a", AdminState::Enabled).await;
            plane.update_backend("p", "a", BackendPatch { weight: Some(1), ..BackendPatch::default() }).await;
            let word = servers(front, 42).await;
            assert_eq!((count(&word, 'a'), count(&word, 'b')), (2, 40), "{word}");
            plane.admin("p", "a", state).await;
            assert_eq!(servers(front, 2).await, "bb");
        }
    }
}

#[tokio::test]
async fn its_share_grows_by_itself() {
    let (_plane, front, _servers, _a) = recovered(Duration::from_secs(2)).await;
    let start = Instant::now();
    while count(&servers(front, 40).await, 'a') != 20 {
        assert!(start.elapsed() < DEADLINE, "the share does not grow to a half");
    }
}
