//! What becomes of connections to backups when a primary is back.

use std::io::ErrorKind;
use std::time::Duration;

use trestle_dataplane::{CloseReason, Verdict};
use trestle_model::{AdminState, Command, OnPrimaryUp, PoolSpec};

use crate::harness::*;
use crate::patch::{BackendPatch, PoolPatch};
use crate::policies::{Judged, backup, judged_pair};

fn closing(spec: PoolSpec) -> PoolSpec {
    PoolSpec { on_primary_up: OnPrimaryUp::Close, ..spec }
}

/// A primary `a` and its backup `b`, and their checks.
async fn pair(spec: PoolSpec) -> (Plane, std::net::SocketAddr, Judged, Judged) {
    let (a, b) = judged_pair().await;
    let mut plane = Plane::start();
    let backends = [("a", at(a.server.address)), ("b", backup(b.server.address))];
    plane.pool("p", a.pool(spec), &backends).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    (plane, front, a, b)
}

#[tokio::test]
async fn when_a_primary_is_back_its_backups_connections_are_reset() {
    let (mut plane, front, mut a, _b) =
        pair(closing(PoolSpec { stickiness: Duration::from_secs(600), ..checked() })).await;
    for round in 1..=2 {
        a.fail().await;
        plane.until_verdict("p", "a", Verdict::Unhealthy).await;
        let mut writer = Client::connect(front).await.unwrap();
        assert_eq!(writer.server, "b");
        assert!(writer.works().await);
        a.recover().await;
        assert_eq!(writer.end().await, Some(ErrorKind::ConnectionReset));
        plane.until_closed("l", CloseReason::PrimaryUp, round).await;
        assert_eq!(plane.backend_counts("p", "b").closed(CloseReason::PrimaryUp), round);
        assert_eq!(servers(front, 3).await, "aaa", "nobody is led back to what is remembered of him");
    }
    let mut stays = Client::connect(front).await.unwrap();
    let patch = BackendPatch { weight: Some(9), ..BackendPatch::default() };
    plane.update_backend("p", "b", patch).await;
    assert!(stays.works().await);
}

#[tokio::test]
async fn a_primary_that_an_operator_brings_back_counts_too() {
    let (mut plane, front, a, _b) = pair(closing(checked())).await;
    let (out, weightless) =
        (AdminState::Disabled, BackendPatch { weight: Some(0), ..BackendPatch::default() });
    let spec = at(a.server.address);
    for way in ["enabled", "given a weight", "added"] {
        match way {
            "enabled" => plane.admin("p", "a", out).await,
            "given a weight" => plane.update_backend("p", "a", weightless.clone()).await,
            _ => plane.remove_backend("p", "a").await,
        }
        let mut writer = Client::connect(front).await.unwrap();
        assert_eq!(writer.server, "b", "{way}");
        match way {
            "enabled" => plane.admin("p", "a", AdminState::Enabled).await,
            "given a weight" => {
                let patch = BackendPatch { weight: Some(1), ..BackendPatch::default() };
                plane.update_backend("p", "a", patch).await;
            }
            _ => {
                let (pool, name, spec) = (pool_name("p"), backend_name("a"), spec.clone());
                plane.apply(Command::create((pool, name, spec))).await;
            }
        }
        assert_eq!(writer.end().await, Some(ErrorKind::ConnectionReset), "{way}");
    }
    plane.until_closed("l", CloseReason::PrimaryUp, 3).await;
}

#[tokio::test]
async fn a_client_that_the_primary_refuses_is_not_led_to_a_backup() {
    // Without a check the primary counts as usable all the time.
    let (b, none) = (Server::start("b").await, free());
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(none)), ("b", backup(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut spilled = Client::connect(front).await.unwrap();
    assert_eq!(spilled.server, "b");
    let close = PoolPatch { on_primary_up: Some(OnPrimaryUp::Close), ..PoolPatch::default() };
    plane.update_pool("p", close).await;
    assert_eq!(spilled.end().await, Some(ErrorKind::ConnectionReset));
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::ConnectFailed, 1).await;
}

#[tokio::test]
async fn unless_the_pool_says_so_connections_to_backups_stay() {
    let (mut plane, front, mut a, _b) = pair(checked()).await;
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    let mut old = Client::connect(front).await.unwrap();
    a.recover().await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    assert_eq!(servers(front, 2).await, "aa");
    assert!(old.works().await);
    // Said later, it holds for what is there.
    let close = PoolPatch { on_primary_up: Some(OnPrimaryUp::Close), ..PoolPatch::default() };
    plane.update_pool("p", close).await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::PrimaryUp, 1).await;
}
