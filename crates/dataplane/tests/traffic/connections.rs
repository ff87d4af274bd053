//! Listing connections, closing single ones, and how many there may be.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use trestle_dataplane::{CloseReason, ConnectionSnapshot, ConnectionState, DataPlaneSettings};
use trestle_model::{AdminState, BackendSpec, CheckKind, Command, OnDown, PoolSpec, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};

fn of(plane: &Plane, client: SocketAddr) -> Option<ConnectionSnapshot> {
    plane.plane.connections().into_iter().find(|connection| connection.client == client)
}

#[tokio::test]
async fn a_connection_is_listed_as_long_as_it_lasts() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    assert!(plane.plane.connections().is_empty());
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(front).await.unwrap());
    }
    assert!(clients[0].works().await);
    let client = clients[0].stream.local_addr().unwrap();
    // Bytes are counted after they have gone out.
    let bytes = || of(&plane, client).map(|found| (found.bytes_in, found.bytes_out));
    until("bytes are counted", || bytes() == Some((4, 5))).await;
    let all = plane.plane.connections();
    assert_eq!(all.len(), 8);
    assert!(all.is_sorted_by(|a, b| a.id < b.id), "{all:?}");
    let found = of(&plane, client).unwrap();
    assert_eq!((found.listener, found.local), (listener_name("l"), front));
    assert_eq!((found.pool, found.backend), (Some(pool_name("p")), Some(backend_name("a"))));
    assert_eq!((found.backend_address, found.state), (Some(server.address), ConnectionState::Relaying));
    assert!(found.connect_time.is_some_and(|time| time < DEADLINE));
    let last = all.last().unwrap().id;
    for client in clients {
        client.finish().await;
    }
    until("none is listed", || plane.plane.connections().is_empty()).await;
    let later = Client::connect(front).await.unwrap();
    assert!(plane.plane.connections()[0].id > last, "numbers are not used again");
    later.finish().await;
}

#[tokio::test]
async fn single_connections_can_be_closed() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::connect(front).await.unwrap());
    }
    let mut stays = clients.split_off(3);
    let ids: Vec<u64> =
        clients.iter().map(|c| of(&plane, c.stream.local_addr().unwrap()).unwrap().id).collect();
    let unknown = [ids.as_slice(), &[1 << 40]].concat();
    assert_eq!(plane.plane.close_connections(&unknown), 3);
    for client in &mut clients {
        assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
    }
    plane.until_closed("l", CloseReason::ClosedByOperator, 3).await;
    assert_eq!(plane.backend_counts("p", "a").closed(CloseReason::ClosedByOperator), 3);
    until("the server's sides end too", || server.open.load(Ordering::SeqCst) == 3).await;
    assert_eq!(plane.plane.close_connections(&ids), 0);
    for client in &mut stays {
        assert!(client.works().await);
    }
    // What was not closed can still be.
    plane.admin("p", "a", AdminState::Disabled).await;
    for client in &mut stays {
        assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
    }
    plane.until_closed("l", CloseReason::BackendDisabled, 3).await;
}

#[tokio::test]
async fn who_is_not_connected_yet_can_be_closed() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    let only_one = BackendSpec { max_connections: 1, ..at(server.address) };
    plane.pool("full", unchecked(), &[("a", only_one)]).await;
    // Nobody answers at an address of TEST-NET-1 (RFC 5737).
    let spec = PoolSpec { connect_timeout: Duration::from_secs(60), ..unchecked() };
    plane.pool("lost", spec, &[("a", at("192.0.2.77:80".parse().unwrap()))]).await;
    let (full, lost) = (plane.listener("full", "full").await, plane.listener("lost", "lost").await);
    let first = Client::connect(full).await.unwrap();
    for (front, listener, state) in
        [(full, "full", ConnectionState::Waiting), (lost, "lost", ConnectionState::Opening)]
    {
        let stream = TcpStream::connect(front).await.unwrap();
        let from = stream.local_addr().unwrap();
        let mut found = None;
        until("it is listed", || {
            found = of(&plane, from).filter(|connection| connection.state == state);
            found.is_some()
        })
        .await;
        let found = found.unwrap();
        assert_eq!((found.pool, found.backend), (Some(pool_name(listener)), None));
        if listener == "lost" && plane.listener_counts("lost").closed(CloseReason::ConnectFailed) > 0 {
            // This machine's network refuses such addresses at once.
            continue;
        }
        assert_eq!(plane.plane.close_connections(&[found.id]), 1);
        let mut client = Client { stream, server: String::new() };
        assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
        plane.until_closed(listener, CloseReason::ClosedByOperator, 1).await;
    }
    first.finish().await;
}

#[tokio::test]
async fn a_connection_that_outlived_one_close_hears_of_the_next() {
    // With `fail_open` a backend that is down takes connections, which stay when it goes down again and end when it is
    // disabled.
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    let spec = PoolSpec {
        all_down: trestle_model::AllDown::FailOpen,
        on_down: OnDown::Close,
        health: trestle_model::HealthCheck {
            port: trestle_model::Port::new(free().port()),
            ..checked().health
        },
        ..PoolSpec::default()
    };
    plane.pool("p", spec, &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "a", trestle_dataplane::Verdict::Unhealthy).await;
    let mut client = Client::connect(front).await.unwrap();
    for timeout in [3600, 1800] {
        plane.admin("p", "a", AdminState::Draining { timeout: Some(Duration::from_secs(timeout)) }).await;
        assert!(client.works().await);
    }
    plane.admin("p", "a", AdminState::Disabled).await;
    assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn accepting_pauses_when_the_descriptors_are_used_up() {
    let server = Server::start("a").await;
    // One socket that listens, and four connections. With a second worker there could be a fifth.
    let workers = NonZeroUsize::MIN;
    let mut plane = Plane::with(DataPlaneSettings { workers, descriptors: Some(9), ..settings() });
    plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!((plane.plane.descriptors().used, plane.plane.descriptors().limit), (1, Some(9)));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(front).await.unwrap());
    }
    // The kernel welcomes more, and they wait.
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(tokio::spawn(Client::connect(front)));
    }
    until("accepting pauses", || plane.plane.descriptors().pauses > 0).await;
    assert_eq!((plane.plane.descriptors().used, plane.plane.open_connections()), (9, 4));
    for client in &mut clients {
        assert!(client.works().await);
    }
    for client in clients {
        client.finish().await;
    }
    // As places come free all of them come in, four at a time.
    for client in waiting {
        let client = client.await.unwrap().unwrap();
        assert!(plane.plane.open_connections() <= 4);
        client.finish().await;
    }
    assert_eq!(plane.listener_counts("l").connections, 10);
    plane.remove_listener("l").await;
    until("nothing is used", || plane.plane.descriptors().used == 0).await;
}

#[tokio::test]
async fn connections_and_checks_come_from_the_source_address() {
    let own = match ip() {
        IpAddr::V4(own) => own,
        IpAddr::V6(own) => panic!("{own}"),
    };
    let source = [own.into(), Ipv6Addr::LOCALHOST.into()].into_iter().collect();
    let mut plane = Plane::with(DataPlaneSettings { source, ..settings() });
    let listening = [SocketAddr::from((ip(), 0)), (Ipv6Addr::LOCALHOST, 0).into()].map(|address| {
        let socket = std::net::TcpListener::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(socket).unwrap()
    });
    for (pool, socket) in ["v4", "v6"].iter().zip(listening) {
        // Not a TCP check, of which a program does not learn.
        let spec = checked_by(CheckKind::Tls(TlsCheck::default()), HASTY);
        plane.pool(pool, spec, &[("a", at(socket.local_addr().unwrap()))]).await;
        let expected: IpAddr = if *pool == "v4" { own.into() } else { Ipv6Addr::LOCALHOST.into() };
        let (_check, from) = soon("a check", socket.accept()).await.unwrap();
        assert_eq!(from.ip(), expected);
        let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
        plane.update_pool(pool, PoolPatch { health, ..PoolPatch::default() }).await;
        let front = plane.listener(pool, pool).await;
        let mut client = TcpStream::connect(front).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"hello").await.unwrap();
        // Checks may have come before; only the client says hello.
        let from = loop {
            let (mut stream, from) = soon("the connection", socket.accept()).await.unwrap();
            let mut said = [0; 5];
            let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut said).await;
            if read.is_ok() && &said == b"hello" {
                break from;
            }
        };
        assert_eq!(from.ip(), expected);
        plane.apply(Command::delete(listener_name(pool))).await;
    }
}
