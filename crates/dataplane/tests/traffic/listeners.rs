//! Listening sockets come, go and lead elsewhere without touching others; what cannot be bound is reported.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};
use trestle_model::{Bind, Command, ListenerSpec};

use crate::harness::*;
use crate::patch::ListenerPatch;

async fn with_pools() -> (Plane, [Server; 2]) {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("a", unchecked(), &[("a", at(a.address))]).await;
    plane.pool("b", unchecked(), &[("b", at(b.address))]).await;
    (plane, [a, b])
}

#[tokio::test]
async fn listeners_change_under_traffic_and_leave_others_alone() {
    let (mut plane, _servers) = with_pools().await;
    let steady = plane.listener("steady", "a").await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let traffic: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(steady).await.unwrap();
                    assert!(client.works().await);
                    client.finish().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut held = Client::connect(steady).await.unwrap();
    for round in 0..20 {
        let front = plane.listener("moving", "a").await;
        assert_eq!(servers(front, 1).await, "a");
        let mut old = Client::connect(front).await.unwrap();
        let patch = ListenerPatch { pool: Some(pool_name("b")), ..ListenerPatch::default() };
        plane.update_listener("moving", patch).await;
        assert_eq!(servers(front, 1).await, "b");
        let elsewhere = free();
        let binds = Some(vec![Bind::parse(&elsewhere.to_string()).unwrap().into()]);
        plane.update_listener("moving", ListenerPatch { binds, ..ListenerPatch::default() }).await;
        assert_eq!(servers(elsewhere, 1).await, "b");
        assert!(std::net::TcpStream::connect(front).is_err(), "round {round}: {front} still listens");
        assert!(old.works().await);
        plane.remove_listener("moving").await;
        assert!(std::net::TcpStream::connect(elsewhere).is_err(), "round {round}: {elsewhere} still listens");
        assert!(old.works().await && held.works().await);
        let seen = done.load(Ordering::Relaxed);
        until("traffic goes on", || done.load(Ordering::Relaxed) > seen).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in traffic {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_listener_can_be_removed_and_made_again_under_another_name_at_once() {
    let (mut plane, _servers) = with_pools().await;
    let front = plane.listener("first", "a").await;
    let mut old = Client::connect(front).await.unwrap();
    plane.prepare(Command::delete(listener_name("first")));
    plane.listener_at("second", front, "b").await;
    assert_eq!(plane.errors("second"), [""; 0]);
    assert_eq!(servers(front, 2).await, "bb");
    assert!(old.works().await);
}

#[tokio::test]
async fn no_client_is_turned_away_while_its_listener_goes() {
    let (mut plane, _servers) = with_pools().await;
    for _ in 0..20 {
        let front = plane.listener("l", "a").await;
        // Connected means welcomed by the kernel, whether or not a worker has seen it yet.
        let clients: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(front).unwrap()).collect();
        plane.remove_listener("l").await;
        for client in clients {
            client.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(client).unwrap();
            let mut client = Client { stream, server: String::new() };
            let mut name = [0];
            soon("a name", tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut name)).await.unwrap();
            assert_eq!(&name, b"a");
        }
    }
}

#[tokio::test]
async fn an_address_in_use_is_reported_and_tried_again() {
    let (mut plane, _servers) = with_pools().await;
    let front = free();
    // Even one that would share the address, and would quietly get half of the connections.
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stranger.set_reuse_address(true).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.bind(&front.into()).unwrap();
    stranger.listen(1).unwrap();
    let other = plane.listener("other", "b").await;
    plane.listener_at("l", front, "a").await;
    let [error] = &plane.errors("l")[..] else { panic!("one error, not {:?}", plane.errors("l")) };
    assert!(error.contains(&front.to_string()) && error.contains("address already in use"), "{error}");
    assert_eq!(servers(other, 1).await, "b");
    drop(stranger);
    until("it is bound after all", || plane.errors("l").is_empty()).await;
    assert_eq!(servers(front, 1).await, "a");
}

/// Reports of other balancers and of Kubernetes tell of it: nobody listens there, and yet the port is taken.
#[tokio::test]
async fn a_port_that_a_connection_has_is_told_as_such_and_bound_when_it_ends() {
    let (mut plane, servers_of_pools) = with_pools().await;
    // From an address of its own: one port of 127.0.0.1 may have connections of several tests, in TIME-WAIT too, if their
    // destinations differ.
    let source = tokio::net::TcpSocket::new_v4().unwrap();
    source.bind((ip(), 0).into()).unwrap();
    let connection = source.connect(servers_of_pools[0].address).await.unwrap();
    let front = connection.local_addr().unwrap();
    plane.listener_at("l", front, "a").await;
    let [error] = &plane.errors("l")[..] else { panic!("one error, not {:?}", plane.errors("l")) };
    assert!(
        error.starts_with(&format!("{front}: address already in use by another process, or by a connection"))
    );
    connection.set_zero_linger().unwrap();
    drop(connection);
    until("it is bound after all", || plane.errors("l").is_empty()).await;
    assert_eq!(servers(front, 1).await, "a");
}

#[tokio::test]
async fn an_address_of_another_machine_is_reported_and_the_rest_is_bound() {
    let (mut plane, _servers) = with_pools().await;
    let here = free();
    // TEST-NET-1 (RFC 5737) is on no machine.
    let binds = vec![Bind::parse("192.0.2.1:7000").unwrap(), Bind::parse(&here.to_string()).unwrap()];
    let spec = ListenerSpec::new(binds, pool_name("a"));
    plane.apply(Command::create((listener_name("l"), spec))).await;
    let [error] = &plane.errors("l")[..] else { panic!("one error, not {:?}", plane.errors("l")) };
    assert!(error.contains("192.0.2.1:7000: cannot assign requested address"), "{error}");
    let bound: Vec<SocketAddr> = plane.plane.table().listeners[&listener_name("l")].bound().collect();
    assert_eq!(bound, [here]);
    assert_eq!(servers(here, 1).await, "a");
}

#[tokio::test]
async fn a_wildcard_means_the_data_address_and_the_listener_that_is_there_has_it() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let own = ip();
    let mut plane =
        Plane::with(trestle_dataplane::DataPlaneSettings { data_address: Some(own), ..settings() });
    plane.pool("a", unchecked(), &[("a", at(a.address))]).await;
    plane.pool("b", unchecked(), &[("b", at(b.address))]).await;
    let front = SocketAddr::new(own, 7001);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 7001);
    plane.listener_at("exact", front, "b").await;
    assert_eq!(servers(front, 1).await, "b");
    // Another one that sorts before it takes nothing from it, whatever becomes of it.
    plane.listener_at("any", any, "a").await;
    limit(&mut plane, "exact", 1000).await;
    assert_eq!(servers(front, 2).await, "bb");
    let [error] = &plane.errors("any")[..] else { panic!("one error, not {:?}", plane.errors("any")) };
    assert!(error.contains("listener \"exact\" has this address"), "{error}");
    assert!(plane.errors("exact").is_empty());
    let elsewhere = SocketAddr::new(ip(), 7001);
    assert!(std::net::TcpStream::connect(elsewhere).is_err(), "the wildcard itself is bound");
    plane.remove_listener("exact").await;
    assert_eq!(servers(front, 1).await, "a");
    assert!(plane.errors("any").is_empty());
}

/// Changes a listener as nobody notices.
async fn limit(plane: &mut Plane, name: &str, max_connections: u32) {
    let patch = ListenerPatch { max_connections: Some(max_connections), ..ListenerPatch::default() };
    plane.update_listener(name, patch).await;
}

#[tokio::test]
async fn of_two_listeners_that_come_at_once_the_older_has_the_address_however_often_it_changed() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let own = ip();
    let mut plane =
        Plane::with(trestle_dataplane::DataPlaneSettings { data_address: Some(own), ..settings() });
    plane.prepare_pool("a", unchecked(), &[("a", at(a.address))]);
    plane.prepare_pool("b", unchecked(), &[("b", at(b.address))]);
    let front = SocketAddr::new(own, 7001);
    plane.prepare_listener("older", front, "b");
    plane.prepare_listener("newer", SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 7001), "a");
    limit(&mut plane, "older", 1000).await;
    assert_eq!(servers(front, 2).await, "bb");
    assert_eq!(plane.errors("newer").len(), 1);
}

#[tokio::test]
async fn a_wildcard_beside_an_address_leaves_that_address_its_own() {
    let (mut plane, _servers) = with_pools().await;
    let specific = free();
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), specific.port());
    plane.listener_at("any", any, "a").await;
    plane.listener_at("specific", specific, "b").await;
    assert!(plane.errors("any").is_empty() && plane.errors("specific").is_empty());
    let words = format!(
        "listener \"specific\" at {specific} takes the connections there from listener \"any\" at {any}; if that is not meant, \
         give one of them another address or port"
    );
    assert_eq!(*plane.plane.table().shadowed, [words]);
    assert_eq!(servers(specific, 4).await, "bbbb");
    assert_eq!(servers(SocketAddr::new(ip(), any.port()), 4).await, "aaaa");
}

#[tokio::test]
async fn the_wildcards_of_both_families_stand_side_by_side() {
    let (mut plane, _servers) = with_pools().await;
    let port = free().port();
    plane.listener_at("four", SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), "a").await;
    plane.listener_at("six", SocketAddr::new(IpAddr::from([0; 16]), port), "b").await;
    assert!(plane.errors("four").is_empty() && plane.errors("six").is_empty());
    assert_eq!(servers(SocketAddr::new(ip(), port), 2).await, "aa");
    assert_eq!(servers(SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port), 2).await, "bb");
}
