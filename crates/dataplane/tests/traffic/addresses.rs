//! Backends whose name has several addresses: which one is used.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use trestle_dataplane::{CloseReason, Verdict};
use trestle_model::{OnDown, PoolSpec};

use crate::harness::*;
use crate::name_server::*;

/// Servers of one port at addresses that follow one another.
async fn two() -> (Server, Server) {
    let (first, second) = (ip(), ip());
    let a = Server::start_at("a", (first, 0).into()).await;
    let b = Server::start_at("b", (second, a.address.port()).into()).await;
    (a, b)
}

#[tokio::test]
async fn a_dead_address_is_left_for_one_that_works() {
    let (dead, alive) = (ip(), Server::start("b").await);
    let six = Server::start_at("s", (IpAddr::from(Ipv6Addr::LOCALHOST), 0).into()).await;
    let names = NameServer::start();
    let mut plane = Plane::with(names.settings());
    names.point("four.example", &[dead, alive.address.ip()]);
    names.point("six.example", &[dead, six.address.ip()]);
    let backends =
        [("v", named("four.example", alive.address.port())), ("w", named("six.example", six.address.port()))];
    plane.pool("p", checked(), &backends).await;
    for (backend, server) in [("v", &alive), ("w", &six)] {
        plane.until_verdict("p", backend, Verdict::Healthy).await;
        let seen = seen(&plane, backend);
        let at = server.address.ip();
        assert_eq!((seen.ip, seen.other_addresses().collect()), (Some(at), vec![dead]));
        assert_eq!(seen.grounds(), format!("{at}: connected"));
        // It was never found down.
        let history: Vec<_> =
            seen.history().iter().map(|change| (change.verdict, change.grounds())).collect();
        assert_eq!(history, [(Verdict::Healthy, format!("{at}: connected"))]);
    }
    let front = plane.listener("l", "p").await;
    let word = servers(front, 4).await;
    assert_eq!((count(&word, 'b'), count(&word, 's')), (2, 2), "{word}");
}

#[tokio::test]
async fn an_address_that_fails_is_left_without_the_backend_going_down() {
    let (a, b) = two().await;
    let port = a.address.port();
    let names = NameServer::start();
    names.point("web.example", &[b.address.ip(), a.address.ip()]);
    let mut plane = Plane::with(names.settings());
    let keep = PoolSpec { on_down: OnDown::Keep, ..checked() };
    plane.pool("p", checked(), &[("w", named("web.example", port))]).await;
    plane.pool("q", keep, &[("w", named("web.example", port))]).await;
    let (front, keeping) = (plane.listener("l", "p").await, plane.listener("m", "q").await);
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    plane.until_verdict("q", "w", Verdict::Healthy).await;
    let mut old = Client::connect(front).await.unwrap();
    let mut kept = Client::connect(keeping).await.unwrap();
    assert_eq!((&*old.server, &*kept.server), ("a", "a"));
    let address = a.address;
    a.stop().await;
    until_dialled(&plane, "w", b.address.ip()).await;
    assert_eq!(servers(front, 3).await, "bbb");
    // As many failed checks as make a backend unhealthy end what is left at that address, and nothing else.
    let mut new = Client::connect(front).await.unwrap();
    assert_eq!(old.end().await, Some(std::io::ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::BackendDown, 1).await;
    assert!(new.works().await && kept.works().await);
    assert_eq!(seen(&plane, "w").history().len(), 1, "it was healthy all the time");
    // Nobody goes back while the one in use works; when that fails, the former takes over again.
    let _a = Server::start_at("a", address).await;
    assert_eq!(servers(front, 2).await, "bb");
    b.stop().await;
    until_dialled(&plane, "w", address.ip()).await;
    assert_eq!(servers(front, 2).await, "aa");
    assert_eq!(seen(&plane, "w").history().len(), 1);
}

#[tokio::test]
async fn a_backend_is_down_when_all_its_addresses_are() {
    let (a, b) = two().await;
    let names = NameServer::start();
    names.point("web.example", &[a.address.ip(), b.address.ip()]);
    let mut plane = Plane::with(names.settings());
    plane.pool("p", checked(), &[("w", named("web.example", a.address.port()))]).await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    let (first, second) = (a.address, b.address);
    b.stop().await;
    a.stop().await;
    plane.until_verdict("p", "w", Verdict::Unhealthy).await;
    let in_use = dialled(&plane, "w").unwrap();
    let grounds = format!("{in_use}: connection refused; its other addresses (1) fail too");
    assert_eq!(seen(&plane, "w").grounds(), grounds);
    let other = if in_use == first.ip() { second } else { first };
    let _other = Server::start_at("c", other).await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    assert_eq!(dialled(&plane, "w"), Some(other.ip()));
}

#[tokio::test]
async fn without_checks_failed_connects_lead_to_the_next_address() {
    let (dead, alive) = ([ip(), ip()], Server::start("b").await);
    let names = NameServer::start();
    names.point_for_long("web.example", &[dead[0], dead[1], alive.address.ip()]);
    let mut plane = Plane::with(names.settings());
    plane.pool("p", unchecked(), &[("w", named("web.example", alive.address.port()))]).await;
    let front = plane.listener("l", "p").await;
    until_dialled(&plane, "w", dead[0]).await;
    let asked = names.asked("web.example", A);
    // At once, for the client that finds it out, and from then on without trying.
    assert_eq!(servers(front, 1).await, "b");
    until_dialled(&plane, "w", alive.address.ip()).await;
    let failures = plane.backend_counts("p", "w").connect_failures;
    assert_eq!(failures, 2);
    assert_eq!(servers(front, 3).await, "bbb");
    assert_eq!(plane.backend_counts("p", "w").connect_failures, failures);
    until("the name is asked again", || names.asked("web.example", A) > asked).await;
}

#[tokio::test]
async fn other_backends_are_tried_before_a_third_address() {
    let (dead, other) = ([ip(), ip(), ip()], Server::start("o").await);
    let names = NameServer::start();
    names.point_for_long("web.example", &dead);
    let mut plane = Plane::with(names.settings());
    let first = PoolSpec { algorithm: trestle_model::Algorithm::First, ..unchecked() };
    let backends = [("a", named("web.example", 1)), ("b", at(other.address))];
    plane.pool("p", first, &backends).await;
    let front = plane.listener("l", "p").await;
    until_dialled(&plane, "a", dead[0]).await;
    assert_eq!(servers(front, 1).await, "o");
    assert_eq!(plane.backend_counts("p", "a").connect_failures, 2);
}

#[tokio::test]
async fn a_name_is_asked_again_when_its_address_fails_but_once_a_second() {
    let (a, b) = two().await;
    let port = a.address.port();
    let names = NameServer::start();
    names.point_for_long("web.example", &[a.address.ip()]);
    let mut plane = Plane::with(names.settings());
    plane.pool("p", checked(), &[("w", named("web.example", port))]).await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    a.stop().await;
    names.point_for_long("web.example", &[b.address.ip()]);
    until_dialled(&plane, "w", b.address.ip()).await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    // Checks of one that stays dead fail twenty times a second.
    b.stop().await;
    plane.until_verdict("p", "w", Verdict::Unhealthy).await;
    let (start, before) = (Instant::now(), names.asked("web.example", A));
    until("the name is asked again", || names.asked("web.example", A) >= before + 3).await;
    let asked = names.asked("web.example", A) - before;
    assert!(asked as u64 <= start.elapsed().as_secs() + 2, "{asked} in {:?}", start.elapsed());
    let third: SocketAddr = (ip(), port).into();
    let _third = Server::start_at("c", third).await;
    names.point_for_long("web.example", &[third.ip()]);
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    assert_eq!(dialled(&plane, "w"), Some(third.ip()));
}
