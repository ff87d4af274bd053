//! What this member itself lacks says nothing of backends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use trestle_dataplane::{CloseReason, DataPlaneSettings, ShortageKind, Verdict};
use trestle_model::{BackendSpec, CheckKind, HttpCheck};

use crate::checking::PATIENT;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};
use crate::vips::alone;

/// An address that is on no machine (RFC 5737).
const ELSEWHERE: [u8; 4] = [192, 0, 2, 77];

/// Local ports that there are in a namespace of [`narrow`].
const PORTS: usize = 16;

/// Those of them with which connections towards one backend are made: servers and listeners have a few.
const USABLE: std::ops::RangeInclusive<usize> = PORTS - 4..=PORTS;

/// Runs `body` where connections have few local ports.
fn narrow(body: impl Future<Output = ()> + Send) {
    alone(async {
        let last = 50_000 + PORTS - 1;
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("50000 {last}")).unwrap();
        body.await;
    });
}

fn from(source: impl IntoIterator<Item = IpAddr>) -> Plane {
    Plane::with(DataPlaneSettings { source: source.into_iter().collect(), ..settings() })
}

/// A client with an address of its own, and a port that is none of those that the kernel chooses from.
async fn client(front: SocketAddr) -> Option<Client> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip(), 40_000).into()).unwrap();
    // It may be reset as it learns that it is connected.
    let stream = soon("a connection", socket.connect(front)).await.ok()?;
    let mut client = Client { stream, server: String::new() };
    client.works_after_its_name().await.then_some(client)
}

impl Client {
    async fn works_after_its_name(&mut self) -> bool {
        let mut name = [0];
        soon("a name", tokio::io::AsyncReadExt::read_exact(&mut self.stream, &mut name)).await.is_ok()
            && self.works().await
    }
}

/// Connects until no local port is left towards the backend, and then `more` times.
async fn fill(front: SocketAddr, more: usize) -> Vec<Client> {
    let (mut clients, mut refused) = (Vec::new(), 0);
    while refused < more {
        match client(front).await {
            Some(client) => clients.push(client),
            None => refused += 1,
        }
    }
    clients
}

fn count(plane: &Plane, kind: ShortageKind) -> u64 {
    plane.plane.shortage_counts().find(|(known, _)| *known == kind).unwrap().1
}

#[test]
fn without_local_ports_connections_stay_and_the_backend_is_not_blamed() {
    for kind in [CheckKind::Tcp, CheckKind::Http(HttpCheck::default())] {
        narrow(async {
            let server = Server::start("a").await;
            let mut plane = Plane::start();
            let spec = checked();
            plane.pool("p", spec, &[("a", at(server.address))]).await;
            let front = plane.listener("l", "p").await;
            let mut clients = fill(front, 2).await;
            assert!(USABLE.contains(&clients.len()), "{} connections", clients.len());
            plane.until_closed("l", CloseReason::NoResources, 2).await;
            // A check of another kind has no port either, and what it would say is not known.
            if kind != CheckKind::Tcp {
                let health = HealthPatch { kind: Some(kind.clone()), ..HealthPatch::default() };
                plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
            }
            let before = count(&plane, ShortageKind::LocalPorts);
            until("checks find no port", || count(&plane, ShortageKind::LocalPorts) > before + 5).await;
            assert_eq!(plane.verdict("p", "a").0, Verdict::Healthy);
            for client in &mut clients {
                assert!(client.works().await, "a connection that stood was closed");
            }
            let words = format!("no local port is free towards {}: widen", server.address);
            let said = plane.plane.shortages();
            assert!(said.len() == 1 && said[0].starts_with(&words), "{said:?}");
            let grounds = |plane: &Plane| {
                let table = plane.plane.table();
                table.pools[&pool_name("p")].backend(&backend_name("a")).unwrap().grounds()
            };
            assert!(grounds(&plane).starts_with(&format!("connected; now not checked: {words}")));
            let counts = plane.backend_counts("p", "a");
            assert_eq!((counts.connect_failures, counts.checks_failed), (0, 0), "{counts:?}");
            clients.truncate(2);
            until("checks go on", || !grounds(&plane).contains("not checked")).await;
            // A server that greets is none for HTTP.
            assert_eq!(client(front).await.is_some(), kind == CheckKind::Tcp);
        });
    }
}

#[test]
fn what_is_lacking_towards_one_backend_is_tried_at_another() {
    narrow(async {
        let (a, b) = (Server::start("a").await, Server::start("b").await);
        let mut plane = Plane::start();
        let spare = BackendSpec { backup: true, ..at(b.address) };
        plane.pool("p", unchecked(), &[("a", at(a.address)), ("b", spare)]).await;
        let front = plane.listener("l", "p").await;
        let clients = fill(front, 1).await;
        assert!(USABLE.contains(&(clients.len() / 2)), "{} connections", clients.len());
        plane.until_closed("l", CloseReason::NoResources, 1).await;
        assert_eq!(plane.backend_counts("p", "a").connect_failures, 0);
    });
}

#[test]
fn each_source_address_has_ports_of_its_own() {
    narrow(async {
        let server = Server::start("a").await;
        let sources = [ip(), ip(), ip()];
        let mut plane = from(sources);
        plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
        let front = plane.listener("l", "p").await;
        let clients = fill(front, 1).await;
        assert!(USABLE.contains(&(clients.len() / 3)), "{} connections", clients.len());
        let said = plane.plane.shortages();
        assert!(
            said.iter().any(|words| words.contains(&format!("towards {} from 127.", server.address))),
            "{said:?}"
        );
    });
}

#[tokio::test]
async fn a_source_address_that_is_not_here_is_named_and_another_is_used() {
    let server = Server::start("a").await;
    let here = ip();
    for (sources, served) in [(vec![ELSEWHERE.into()], false), (vec![ELSEWHERE.into(), here], true)] {
        let mut plane = from(sources);
        plane.pool("p", checked(), &[("a", at(server.address))]).await;
        let start = Instant::now();
        let front = plane.listener("l", "p").await;
        if served {
            assert_eq!(servers(front, 4).await, "aaaa");
            plane.until_verdict("p", "a", Verdict::Healthy).await;
        } else {
            assert!(start.elapsed() >= Duration::from_secs(2), "no check was made");
            assert!(turned_away(front).await);
            plane.until_closed("l", CloseReason::NoResources, 1).await;
            let words = "not checked yet; now not checked: source_address 192.0.2.77 is not on this machine";
            let table = plane.plane.table();
            let backend = table.pools[&pool_name("p")].backend(&backend_name("a")).unwrap();
            assert_eq!(backend.verdict, Verdict::Unknown);
            assert!(backend.grounds().starts_with(words), "{}", backend.grounds());
        }
        assert!(count(&plane, ShortageKind::SourceAddress) > 0);
        let said = plane.plane.shortages();
        assert!(said[0].starts_with("source_address 192.0.2.77 is not on this machine: add it"), "{said:?}");
        assert_eq!(plane.backend_counts("p", "a").connect_failures, 0);
    }
}

#[test]
fn a_route_that_forbids_the_way_is_this_members_own() {
    alone(async {
        let forbidden = SocketAddr::from(([192, 0, 2, 1], 80));
        let made = std::process::Command::new("ip").args(["route", "add", "prohibit", "192.0.2.1"]).status();
        assert!(made.unwrap().success());
        let server = Server::start("b").await;
        let mut plane = Plane::start();
        let mut spec = checked();
        spec.health.timeout = PATIENT;
        let backends = [("a", at(forbidden)), ("b", at(server.address))];
        plane.pool("p", spec, &backends).await;
        let front = plane.listener("l", "p").await;
        assert_eq!(servers(front, 2).await, "bb");
        assert_eq!(plane.verdict("p", "a").0, Verdict::Unknown);
        assert!(count(&plane, ShortageKind::Permission) > 0);
        let said = plane.plane.shortages();
        assert!(said[0].starts_with("this machine does not permit connections to 192.0.2.1:80"), "{said:?}");
        assert!(TcpStream::connect(forbidden).await.is_err());
    });
}
