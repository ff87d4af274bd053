//! Which backend a connection is led to.

use std::time::Duration;

use tokio::net::TcpSocket;
use trestle_dataplane::{CloseReason, DataPlaneSettings};
use trestle_model::{
    AdminState, Algorithm, BackendAddress, BackendSpec, Command, Host, HostPort, MemberName, MemberSpec,
    PoolSpec,
};

use crate::harness::*;
use crate::patch::BackendPatch;

#[tokio::test]
async fn round_robin_takes_turns() {
    let (a, b, c) = (Server::start("a").await, Server::start("b").await, Server::start("c").await);
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(a.address)), ("b", at(b.address)), ("c", at(c.address))]).await;
    let front = plane.listener("l", "p").await;
    let word = servers(front, 9).await;
    assert_eq!(word, "abcabcabc");
    assert_eq!(plane.listener_counts("l").connections, 9);
    assert_eq!(plane.backend_counts("p", "b").connections, 3);
}

#[tokio::test]
async fn each_members_turns_begin_at_a_place_of_its_own() {
    let servers_of_pool = [Server::start("a").await, Server::start("b").await, Server::start("c").await];
    let backends: Vec<_> =
        ["a", "b", "c"].into_iter().zip(servers_of_pool.iter().map(|s| at(s.address))).collect();
    let names = ["m1", "m2", "m3"].map(|name| MemberName::parse(name).unwrap());
    let mut words = Vec::new();
    for name in &names {
        let mut plane = Plane::with(DataPlaneSettings { member: Some(name.clone()), ..settings() });
        for (number, name) in names.iter().enumerate() {
            let address = HostPort::parse(&format!("192.0.2.{}:7481", number + 1)).unwrap();
            let spec = MemberSpec {
                name: name.clone(),
                peer_address: address.clone(),
                admin_address: address,
                feature_level_max: 1,
            };
            plane.prepare(Command::AddMember(spec));
        }
        plane.pool("p", unchecked(), &backends).await;
        let front = plane.listener("l", "p").await;
        words.push(servers(front, 3).await);
    }
    assert_eq!(words, ["abc", "bca", "cab"]);
}

#[tokio::test]
async fn weights_are_shares_and_change_under_traffic() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let heavy = BackendSpec { weight: 3, ..at(a.address) };
    plane.pool("p", unchecked(), &[("a", heavy), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let word = servers(front, 40).await;
    assert_eq!((count(&word, 'a'), count(&word, 'b')), (30, 10));
    let none = BackendPatch { weight: Some(0), ..BackendPatch::default() };
    plane.update_backend("p", "a", none).await;
    assert_eq!(servers(front, 4).await, "bbbb");
}

#[tokio::test]
async fn least_connections_counts_what_is_open() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let spec = PoolSpec { algorithm: Algorithm::LeastConnections, ..unchecked() };
    plane.pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(Client::connect(front).await.unwrap());
    }
    let on = |held: &[Client], name| held.iter().filter(|c| c.server == name).count();
    assert_eq!((on(&held, "a"), on(&held, "b")), (3, 3));
    held.retain(|c| c.server == "a");
    until("b is idle", || plane.backend_counts("p", "b").active == 0).await;
    for _ in 0..3 {
        held.push(Client::connect(front).await.unwrap());
    }
    assert_eq!((on(&held, "a"), on(&held, "b")), (3, 3));
}

#[tokio::test]
async fn backups_take_over_only_when_no_primary_is_usable() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let backup = BackendSpec { backup: true, ..at(b.address) };
    plane.pool("p", unchecked(), &[("a", at(a.address)), ("b", backup)]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(servers(front, 4).await, "aaaa");
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    assert_eq!(servers(front, 4).await, "bbbb");
    plane.admin("p", "a", AdminState::Enabled).await;
    assert_eq!(servers(front, 4).await, "aaaa");
}

#[tokio::test]
async fn a_refused_connect_goes_to_another_backend() {
    let b = Server::start("b").await;
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(free())), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(servers(front, 10).await, "bbbbbbbbbb");
    let (dead, listener) = (plane.backend_counts("p", "a"), plane.listener_counts("l"));
    assert_eq!((dead.connections, dead.active), (0, 0));
    assert!(dead.connect_failures > 0);
    assert_eq!((dead.retries, listener.retries), (dead.connect_failures, dead.connect_failures));
}

#[tokio::test]
async fn no_more_backends_are_tried_than_the_pool_allows() {
    let d = Server::start("d").await;
    let mut plane = Plane::start();
    let backends = [("a", at(free())), ("b", at(free())), ("c", at(free())), ("d", at(d.address))];
    plane.pool("p", PoolSpec { connect_retries: 1, ..unchecked() }, &backends).await;
    let front = plane.listener("l", "p").await;
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::ConnectFailed, 1).await;
    assert_eq!(plane.listener_counts("l").connect_failures, 2);
    assert_eq!(plane.backend_counts("p", "d").connections, 0);
}

#[tokio::test]
async fn each_backend_is_tried_once_and_then_the_client_is_reset() {
    let mut plane = Plane::start();
    plane
        .pool("p", PoolSpec { connect_retries: 10, ..unchecked() }, &[("a", at(free())), ("b", at(free()))])
        .await;
    let front = plane.listener("l", "p").await;
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::ConnectFailed, 1).await;
    assert_eq!(plane.backend_counts("p", "a").connect_failures, 1);
    assert_eq!(plane.backend_counts("p", "b").connect_failures, 1);
}

#[tokio::test]
async fn a_connect_that_hangs_goes_elsewhere_after_the_timeout() {
    // A full queue drops SYNs, as a machine that is off would.
    let full = TcpSocket::new_v4().unwrap();
    full.bind((ip(), 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let silent = full.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(silent).await.unwrap();
    let b = Server::start("b").await;
    let mut plane = Plane::start();
    let spec = PoolSpec { connect_timeout: Duration::from_millis(50), ..unchecked() };
    plane.pool("p", spec, &[("a", at(silent)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(servers(front, 2).await, "bb");
    assert_eq!(plane.backend_counts("p", "a").connect_failures, 1);
}

#[tokio::test]
async fn without_a_usable_backend_clients_are_reset() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[]).await;
    let front = plane.listener("l", "p").await;
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::NoBackend, 1).await;
    let zero = BackendSpec { weight: 0, ..at(a.address) };
    let command = trestle_model::Command::create((pool_name("p"), backend_name("a"), zero));
    plane.apply(command).await;
    assert!(turned_away(front).await);
    plane.update_backend("p", "a", BackendPatch { weight: Some(1), ..BackendPatch::default() }).await;
    assert_eq!(servers(front, 1).await, "a");
    assert_eq!(plane.listener_counts("l").closed(CloseReason::NoBackend), 2);
}

#[tokio::test]
async fn a_backend_without_a_port_is_dialled_at_the_clients() {
    let front = free();
    let back = std::net::SocketAddr::new(ip(), front.port());
    let _a = Server::start_at("a", back).await;
    let mut plane = Plane::start();
    let portless = BackendSpec::at(BackendAddress { host: Host::Ip(back.ip()), port: None });
    plane.pool("p", unchecked(), &[("a", portless)]).await;
    plane.listener_at("l", front, "p").await;
    assert_eq!(servers(front, 2).await, "aa");
}
