//! What a pool does when backends go down.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trestle_dataplane::{CloseReason, Verdict};
use trestle_model::{AllDown, BackendSpec, HealthCheck, OnDown, PoolSpec};

use crate::harness::*;
use crate::patch::PoolPatch;

/// A server that works whatever its checks say, and those are answered at another port of its address.
pub(crate) struct Judged {
    pub(crate) server: Server,
    checks: Option<Server>,
    /// Where checks are answered.
    pub(crate) address: SocketAddr,
}

impl Judged {
    pub(crate) async fn start(name: &'static str) -> Self {
        let server = Server::start(name).await;
        let checks = Server::start_at("h", (server.address.ip(), 0).into()).await;
        let address = checks.address;
        Self { server, checks: Some(checks), address }
    }

    pub(crate) async fn fail(&mut self) {
        self.checks.take().unwrap().stop().await;
    }

    pub(crate) async fn recover(&mut self) {
        self.checks = Some(Server::start_at("h", self.address).await);
    }

    pub(crate) fn pool(&self, spec: PoolSpec) -> PoolSpec {
        let port = NonZeroU16::new(self.address.port());
        PoolSpec { health: HealthCheck { port, ..spec.health.clone() }, ..spec }
    }
}

/// Two servers whose checks are answered at the same port of both.
pub(crate) async fn judged_pair() -> (Judged, Judged) {
    let (a, b) = (Judged::start("a").await, Server::start("b").await);
    let address = SocketAddr::new(b.address.ip(), a.address.port());
    let checks = Some(Server::start_at("h", address).await);
    (a, Judged { server: b, checks, address })
}

/// A backend that stands in for others.
pub(crate) fn backup(address: SocketAddr) -> BackendSpec {
    BackendSpec { backup: true, ..at(address) }
}

#[tokio::test]
async fn when_a_backend_falls_both_legs_of_its_connections_are_reset() {
    let mut a = Judged::start("a").await;
    let b = Server::start("b").await;
    let _b_checks = Server::start_at("h", SocketAddr::new(b.address.ip(), a.address.port())).await;
    let mut plane = Plane::start();
    plane.pool("p", a.pool(checked()), &[("a", at(a.server.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    let mut clients = [Client::connect(front).await.unwrap(), Client::connect(front).await.unwrap()];
    clients.sort_by(|x, y| x.server.cmp(&y.server));
    let [old, other] = &mut clients;
    assert_eq!((&*old.server, &*other.server), ("a", "b"));
    a.fail().await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::BackendDown, 1).await;
    assert_eq!(plane.backend_counts("p", "a").closed(CloseReason::BackendDown), 1);
    until("the server's side ends too", || a.server.open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(plane.verdict("p", "a").0, Verdict::Unhealthy);
    assert!(other.works().await);
    assert_eq!(servers(front, 3).await, "bbb");
    assert_eq!(plane.backend_counts("p", "b").closed(CloseReason::BackendDown), 0);
}

#[tokio::test]
async fn a_pool_that_keeps_connections_leaves_them_alone() {
    let (mut a, mut b) = judged_pair().await;
    let mut plane = Plane::start();
    let spec = PoolSpec { on_down: OnDown::Keep, ..checked() };
    plane.pool("p", a.pool(spec), &[("a", at(a.server.address)), ("b", backup(b.server.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut old = Client::connect(front).await.unwrap();
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(old.works().await);
    assert_eq!(servers(front, 1).await, "b");
    // The policy says what happens when a backend falls, not what it is to be while it is down.
    plane.update_pool("p", PoolPatch { on_down: Some(OnDown::Close), ..PoolPatch::default() }).await;
    assert!(old.works().await);
    a.recover().await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    a.fail().await;
    assert_eq!(old.end().await, Some(ErrorKind::ConnectionReset));
    b.fail().await;
}

#[tokio::test]
async fn a_clients_failed_connect_brings_the_next_check_forward() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let mut spec = checked();
    // Without the hint, hardly anything would be checked a second time while this test lasts.
    (spec.health.interval, spec.health.jitter_percent) = (Duration::from_secs(3600), 0);
    plane.pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    a.stop().await;
    assert_eq!(servers(front, 2).await, "bb");
    assert_eq!(plane.backend_counts("p", "a").connect_failures, 1);
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert_eq!(plane.backend_counts("p", "a").checks_failed, 3, "rise and fall count checks only");
}

#[tokio::test]
async fn a_reset_in_place_of_an_answer_brings_the_next_check_forward() {
    let listener = TcpListener::bind((ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let resetting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {
                stream.set_zero_linger().unwrap();
            }
        }
    });
    let mut plane = Plane::start();
    let mut spec = checked();
    // Without the hint, hardly anything would be checked a second time while this test lasts.
    (spec.health.interval, spec.health.jitter_percent) = (Duration::from_secs(3600), 0);
    plane.pool("p", spec, &[("a", at(address))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    let mut client = Client { stream: TcpStream::connect(front).await.unwrap(), server: String::new() };
    client.stream.write_all(b"hello").await.unwrap();
    assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::BackendReset, 1).await;
    until("it is checked again", || plane.backend_counts("p", "a").checks_ok >= 2).await;
    resetting.abort();
}

#[tokio::test]
async fn with_fewer_backends_than_it_wants_a_pool_is_down() {
    let (mut a, b) = (Judged::start("a").await, Server::start("b").await);
    let b_checks = Server::start_at("h", SocketAddr::new(b.address.ip(), a.address.port())).await;
    let mut plane = Plane::start();
    let spec = PoolSpec { minimum_healthy: 2, ..checked() };
    plane.pool("p", a.pool(spec), &[("a", at(a.server.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    plane.until_verdict("p", "b", Verdict::Healthy).await;
    let word = servers(front, 4).await;
    assert!(word == "abab" || word == "baba", "{word}");
    a.fail().await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert!(turned_away(front).await, "b is healthy, but alone");
    plane.until_closed("l", CloseReason::NoBackend, 1).await;
    let open = PoolPatch { all_down: Some(AllDown::FailOpen), ..PoolPatch::default() };
    plane.update_pool("p", open).await;
    let word = servers(front, 4).await;
    assert!(word == "abab" || word == "baba", "all are tried, whatever their verdicts: {word}");
    plane.update_pool("p", PoolPatch { minimum_healthy: Some(1), ..PoolPatch::default() }).await;
    assert_eq!(servers(front, 4).await, "bbbb");
    b_checks.stop().await;
    plane.until_verdict("p", "b", Verdict::Unhealthy).await;
    assert_eq!(count(&servers(front, 4).await, 'a'), 2);
    a.recover().await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    assert_eq!(servers(front, 4).await, "aaaa");
}
