//! Which backend a client's address leads to.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;
use trestle_model::{AdminState, Algorithm, PoolSpec};

use crate::harness::*;

/// A client with an address of its own, and the server that it is led to.
pub(crate) async fn client_from(client: u8, front: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    let source = Ipv4Addr::new(127, 12, (std::process::id() % 256) as u8, client);
    socket.bind((source, 0).into()).unwrap();
    let mut stream = soon("a connection", socket.connect(front)).await.unwrap();
    let mut name = [0];
    soon("a name", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut name)).await.unwrap();
    Client { stream, server: char::from(name[0]).to_string() }
}

/// The server that a client with an address of its own is led to.
pub(crate) async fn server_of(client: u8, front: SocketAddr) -> String {
    let client = client_from(client, front).await;
    let server = client.server.clone();
    client.finish().await;
    server
}

async fn servers_of_all(front: SocketAddr) -> String {
    let mut word = String::new();
    for client in 1..=60 {
        word.push_str(&server_of(client, front).await);
    }
    word
}

fn by_source() -> PoolSpec {
    PoolSpec { algorithm: Algorithm::SourceHash, ..unchecked() }
}

#[tokio::test]
async fn every_member_leads_a_client_to_the_same_backend() {
    let servers = [Server::start("a").await, Server::start("b").await, Server::start("c").await];
    let [a, b, c] = servers.each_ref().map(|s| at(s.address));
    let (mut one, mut other) = (Plane::start(), Plane::start());
    one.pool("p", by_source(), &[("a", a.clone()), ("b", b.clone()), ("c", c.clone())]).await;
    // The other learned of the backends in another order, and has connections behind it.
    other.pool("p", by_source(), &[("c", c), ("a", a), ("b", b)]).await;
    let (front, other_front) = (one.listener("l", "p").await, other.listener("l", "p").await);
    server_of(200, other_front).await;
    let before = servers_of_all(front).await;
    assert_eq!(servers_of_all(other_front).await, before);
    for letter in ['a', 'b', 'c'] {
        assert!(count(&before, letter) > 5, "{letter} in {before}");
    }
    one.admin("p", "b", AdminState::Draining { timeout: None }).await;
    let after = servers_of_all(front).await;
    for (before, after) in before.chars().zip(after.chars()) {
        assert!(after != 'b' && (before == 'b' || before == after), "{before} became {after}");
    }
}

#[tokio::test]
async fn a_retry_spreads_the_clients_of_a_dead_backend() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let backends = [("a", at(a.address)), ("b", at(b.address)), ("dead", at(free()))];
    plane.pool("p", by_source(), &backends).await;
    let front = plane.listener("l", "p").await;
    let word = servers_of_all(front).await;
    let failed = plane.backend_counts("p", "dead").connect_failures;
    assert!(failed > 5, "{failed} of 60 clients tried the dead backend");
    assert_eq!(servers_of_all(front).await, word, "a retry leads to the same backend each time");
    assert_eq!(plane.backend_counts("p", "dead").connect_failures, 2 * failed);
}

#[tokio::test]
async fn the_first_by_name_is_used_until_it_is_drained() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let spec = PoolSpec { algorithm: Algorithm::First, ..unchecked() };
    plane.pool("p", spec, &[("b", at(b.address)), ("a", at(a.address))]).await;
    let front = plane.listener("l", "p").await;
    assert_eq!(servers(front, 3).await, "aaa");
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    assert_eq!(servers(front, 3).await, "bbb");
}

#[tokio::test]
async fn two_draws_use_every_backend_and_the_one_with_less_to_do_more() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let spec = PoolSpec { algorithm: Algorithm::RandomTwo, ..unchecked() };
    plane.pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(Client::connect(front).await.unwrap());
    }
    let led_to_a = open.iter().filter(|c| c.server == "a").count();
    // One draw alone would be off by 4 on average; a difference makes three of four connections go the other way.
    assert!((20..=44).contains(&led_to_a), "{led_to_a} of 64");
}

#[tokio::test]
async fn with_the_port_every_connection_of_a_client_goes_its_own_way() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let spec = PoolSpec { algorithm: Algorithm::SourcePortHash, ..unchecked() };
    plane.pool("p", spec, &[("a", at(a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut by_port = Vec::new();
    for port in 20_000..20_040 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let source = Ipv4Addr::new(127, 12, (std::process::id() % 256) as u8, 250);
        socket.bind((source, port).into()).unwrap();
        let mut stream = soon("a connection", socket.connect(front)).await.unwrap();
        let mut name = [0];
        soon("a name", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut name)).await.unwrap();
        stream.set_zero_linger().unwrap();
        by_port.push(char::from(name[0]));
    }
    let word: String = by_port.iter().collect();
    assert!(count(&word, 'a') > 5 && count(&word, 'b') > 5, "{word}");
}
