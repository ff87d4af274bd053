//! Who may connect, how often, how many at a time, and for how long.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use trestle_dataplane::{CloseReason, DataPlaneSettings, Verdict};
use trestle_model::{BackendAddress, BackendSpec, Bind, Cidr, PoolSpec};

use crate::harness::*;
use crate::patch::ListenerPatch;

async fn plane(spec: PoolSpec) -> (Plane, Server, SocketAddr) {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", spec, &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    (plane, server, front)
}

async fn from(ip: IpAddr, front: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let mut stream = soon("a connection", socket.connect(front)).await.unwrap();
    let name = soon("a name", stream.read_u8()).await.unwrap();
    Client { stream, server: char::from(name).to_string() }
}

/// Whether a connection from there is reset, perhaps already as the client learns that it is connected.
async fn refused(ip: IpAddr, front: SocketAddr) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let end = match socket.connect(front).await {
        // The server speaks first.
        Ok(mut stream) => soon("a name or the end", stream.read_u8()).await.err(),
        Err(error) => Some(error),
    };
    end.is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

fn patch() -> ListenerPatch {
    ListenerPatch::default()
}

#[tokio::test]
async fn networks_say_who_may_connect() {
    let (mut plane, _server, front) = plane(unchecked()).await;
    let (good, bad) = (ip(), ip());
    let network = |ip: IpAddr| vec![Cidr::parse(&ip.to_string()).unwrap()];
    plane.update_listener("l", ListenerPatch { deny: Some(network(bad)), ..patch() }).await;
    assert!(refused(bad, front).await);
    let other = from(ip(), front).await;
    plane.until_closed("l", CloseReason::Denied, 1).await;
    until("the other is in", || plane.listener_counts("l").active == 1).await;
    plane.update_listener("l", ListenerPatch { allow: Some(network(good)), ..patch() }).await;
    assert!(refused(ip(), front).await);
    let mut allowed = from(good, front).await;
    allowed.stream.shutdown().await.unwrap();
    assert_eq!(allowed.end().await, None);
    plane.until_closed("l", CloseReason::Denied, 2).await;
    other.finish().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_to_be_accepted() {
    let (mut plane, server, front) = plane(unchecked()).await;
    plane.update_listener("l", ListenerPatch { max_connections: Some(3), ..patch() }).await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(Client::connect(front).await.unwrap());
    }
    let mut waiting: JoinSet<_> = (0..20).map(|_| Client::connect(front)).collect();
    // Nobody else is kept from their listener on the same workers.
    let side = plane.listener("side", "p").await;
    assert_eq!(servers(side, 20).await, "a".repeat(20));
    assert_eq!(plane.listener_counts("l").active, 3);
    assert!(inside[0].works().await);
    // One by one, and never more than three.
    while !waiting.is_empty() {
        inside.remove(0).finish().await;
        assert!(plane.listener_counts("l").active <= 3);
        let next = soon("the next gets in", waiting.join_next()).await;
        inside.push(next.unwrap().unwrap().unwrap());
    }
    assert!(server.open.load(std::sync::atomic::Ordering::SeqCst) <= 3);
    // A higher bound counts at once, and so does none.
    let more = tokio::spawn(Client::connect(front));
    let most = tokio::spawn(Client::connect(front));
    until("one waits", || !more.is_finished()).await;
    plane.update_listener("l", ListenerPatch { max_connections: Some(0), ..patch() }).await;
    for task in [more, most] {
        inside.push(soon("who waited gets in", task).await.unwrap().unwrap());
    }
    for client in inside {
        client.finish().await;
    }
    until("all have left", || plane.listener_counts("l").active == 0).await;
}

#[tokio::test]
async fn a_listener_that_goes_turns_those_away_that_wait() {
    let (mut plane, _server, front) = plane(unchecked()).await;
    plane.update_listener("l", ListenerPatch { max_connections: Some(1), ..patch() }).await;
    let inside = Client::connect(front).await.unwrap();
    let mut outside = Vec::new();
    for _ in 0..8 {
        let stream = TcpStream::connect(front).await.unwrap();
        outside.push(Client { stream, server: String::new() });
    }
    plane.remove_listener("l").await;
    for client in &mut outside {
        assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
    }
    inside.finish().await;
}

#[tokio::test]
async fn a_rate_spreads_connections_and_refuses_none() {
    let (mut plane, _server, front) = plane(unchecked()).await;
    plane.update_listener("l", ListenerPatch { accept_rate: Some(50), ..patch() }).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..50).map(|_| tokio::spawn(Client::connect(front))).collect();
    for task in tasks {
        soon("a connection", task).await.unwrap().unwrap().finish().await;
    }
    // 5 at once, and the others 20 ms apart.
    assert!(start.elapsed() >= Duration::from_millis(45 * 20), "{:?}", start.elapsed());
    assert_eq!(plane.listener_counts("l").connections, 50);
}

#[tokio::test]
async fn clients_that_wait_for_the_rate_hold_up_nobody_else() {
    let server = Server::start("a").await;
    let mut plane = Plane::with(DataPlaneSettings { workers: NonZeroUsize::MIN, ..settings() });
    plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
    let (front, side) = (plane.listener("l", "p").await, plane.listener("side", "p").await);
    plane.update_listener("l", ListenerPatch { accept_rate: Some(1), ..patch() }).await;
    let mut other = Client::connect(side).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(soon("a connection", TcpStream::connect(front)).await.unwrap());
    }
    for _ in 0..20 {
        assert!(other.works().await);
    }
    let let_in = plane.listener_counts("l").connections;
    assert!(let_in < 10, "the other client was served only once all who waited were let in");
    other.finish().await;
}

#[tokio::test]
async fn who_goes_while_the_listener_is_full_takes_nobodys_turn() {
    let (mut plane, server, front) = plane(unchecked()).await;
    plane.update_listener("l", ListenerPatch { max_connections: Some(1), ..patch() }).await;
    let inside = Client::connect(front).await.unwrap();
    for _ in 0..20 {
        let stream = soon("a connection", TcpStream::connect(front)).await.unwrap();
        let mut leaving = Client { stream, server: String::new() };
        leaving.stream.shutdown().await.unwrap();
        assert_eq!(leaving.end().await, Some(ErrorKind::ConnectionReset));
    }
    let next = tokio::spawn(Client::connect(front));
    inside.finish().await;
    soon("the next gets in", next).await.unwrap().unwrap().finish().await;
    assert_eq!(plane.listener_counts("l").connections, 2);
    drop(server);
}

#[tokio::test]
async fn an_address_has_so_many_and_others_are_not_hindered() {
    let (mut plane, _server, front) = plane(unchecked()).await;
    let patch = ListenerPatch { max_connections_per_source: Some(2), ..patch() };
    plane.update_listener("l", patch).await;
    let greedy = ip();
    let first = from(greedy, front).await;
    let _second = from(greedy, front).await;
    until("both are in", || plane.listener_counts("l").active == 2).await;
    assert!(refused(greedy, front).await);
    plane.until_closed("l", CloseReason::SourceLimit, 1).await;
    let _other = from(ip(), front).await;
    until("another is in", || plane.listener_counts("l").active == 3).await;
    first.finish().await;
    until("one has left", || plane.listener_counts("l").active == 2).await;
    from(greedy, front).await.finish().await;
    assert_eq!(plane.listener_counts("l").closed(CloseReason::SourceLimit), 1);
}

#[tokio::test]
async fn an_address_that_is_too_fast_is_turned_away() {
    let (mut plane, _server, front) = plane(unchecked()).await;
    plane.update_listener("l", ListenerPatch { accept_rate_per_source: Some(3), ..patch() }).await;
    let (fast, start, mut turned_away) = (ip(), Instant::now(), 0);
    for _ in 0..20 {
        turned_away += u64::from(refused(fast, front).await);
    }
    let most = 4 + 3 * start.elapsed().as_secs();
    until("all have ended", || plane.listener_counts("l").active == 0).await;
    assert_eq!(plane.listener_counts("l").closed(CloseReason::SourceLimit), turned_away);
    assert!((20_u64.saturating_sub(most)..=17).contains(&turned_away), "{turned_away} of 20 were refused");
    from(ip(), front).await.finish().await;
}

#[tokio::test]
async fn idle_connections_are_reset_and_busy_ones_are_not() {
    let spec = PoolSpec { idle_timeout: Duration::from_secs(2), ..unchecked() };
    let (plane, _server, front) = plane(spec).await;
    let mut idle = Client::connect(front).await.unwrap();
    let mut busy = Client::connect(front).await.unwrap();
    let start = Instant::now();
    while plane.listener_counts("l").closed(CloseReason::IdleTimeout) == 0 {
        assert!(busy.works().await && start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(1_900), "{:?}", start.elapsed());
    assert_eq!(idle.end().await, Some(ErrorKind::ConnectionReset));
    assert!(busy.works().await);
    assert_eq!(plane.backend_counts("p", "a").closed(CloseReason::IdleTimeout), 1);
    assert_eq!(busy.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::IdleTimeout, 2).await;
}

#[tokio::test]
async fn connections_expire_whatever_they_do() {
    let spec = PoolSpec { max_lifetime: Duration::from_secs(1), ..unchecked() };
    let (plane, _server, front) = plane(spec).await;
    let mut client = Client::connect(front).await.unwrap();
    let start = Instant::now();
    while client.works().await {
        assert!(start.elapsed() < DEADLINE);
    }
    assert!(start.elapsed() >= Duration::from_millis(850), "{:?}", start.elapsed());
    plane.until_closed("l", CloseReason::Expired, 1).await;
}

#[tokio::test]
async fn nothing_leads_back_into_the_cluster() {
    let (mut plane, server, front) = plane(unchecked()).await;
    let elsewhere = free();
    // At a listener's address; at a wildcard's; at a port like a listener's where nobody of ours listens.
    let wild = free().port();
    let spec = PoolSpec { connect_retries: 0, ..unchecked() };
    plane.pool("own", spec.clone(), &[("a", at(front))]).await;
    let own = plane.listener("own", "own").await;
    plane.pool("wild", spec.clone(), &[("a", at((ip(), wild).into()))]).await;
    plane.listener_at("wild", ([0, 0, 0, 0], wild).into(), "wild").await;
    let neighbour = TcpListener::bind((ip(), front.port())).await.unwrap();
    plane.pool("near", spec, &[("a", at(neighbour.local_addr().unwrap()))]).await;
    let near = plane.listener("near", "near").await;
    assert!(turned_away(own).await);
    plane.until_closed("own", CloseReason::Loop, 1).await;
    assert!(turned_away((elsewhere.ip(), wild).into()).await);
    plane.until_closed("wild", CloseReason::Loop, 1).await;
    assert_eq!(plane.listener_counts("l").connections, 0);
    assert_eq!(plane.listener_counts("wild").connections, 1);
    let _client = TcpStream::connect(near).await.unwrap();
    soon("a connection to the neighbour", neighbour.accept()).await.unwrap();
    // Another backend is tried in its place.
    plane.pool("both", unchecked(), &[("a", at(front)), ("b", at(server.address))]).await;
    let both = plane.listener("both", "both").await;
    assert_eq!(servers(both, 4).await, "aaaa");
    let table = plane.plane.table();
    let leads_back = |pool, backend| {
        table.barred(table.pools[&pool_name(pool)].backend(&backend_name(backend)).unwrap()).is_some()
    };
    assert!(leads_back("both", "a") && leads_back("wild", "a"));
    assert!(!leads_back("both", "b") && !leads_back("near", "a"));
    // Once the listener is gone, its address is like any other.
    plane.remove_listener("l").await;
    assert!(turned_away(own).await);
    plane.until_closed("own", CloseReason::ConnectFailed, 1).await;
}

#[tokio::test]
async fn nothing_leads_to_a_members_own_port() {
    // Servers that would answer stand for the admin API at one address, and for HTTP at all of them.
    let (one, all) = (Server::start("a").await, Server::start_at("b", ([0, 0, 0, 0], 0).into()).await);
    let own_ports = vec![one.address, all.address];
    let mut plane = Plane::with(DataPlaneSettings { own_ports, ..settings() });
    let spec = PoolSpec { connect_retries: 0, ..unchecked() };
    let anywhere = SocketAddr::new(ip(), all.address.port());
    for (name, backend) in [("one", one.address), ("all", anywhere)] {
        plane.pool(name, spec.clone(), &[("a", at(backend))]).await;
        let front = plane.listener(name, name).await;
        assert!(turned_away(front).await, "{name}");
        plane.until_closed(name, CloseReason::Loop, 1).await;
    }
    // A backend without a port takes the client's: only the connect tells that it is the member's own.
    let address = BackendAddress::parse(&one.address.ip().to_string()).unwrap();
    plane.pool("portless", spec, &[("a", BackendSpec::at(address))]).await;
    let front = (ip(), one.address.port()).into();
    plane.listener_at("portless", front, "portless").await;
    assert!(turned_away(front).await);
    plane.until_closed("portless", CloseReason::Loop, 1).await;
    // No check asks there either, and at other ports of the same address both go on.
    let server = Server::start_at("c", (one.address.ip(), 0).into()).await;
    plane.pool("checked", checked(), &[("a", at(one.address)), ("b", at(server.address))]).await;
    plane.until_verdict("checked", "b", Verdict::Healthy).await;
    plane.until_verdict("checked", "a", Verdict::Unhealthy).await;
    let (_, why) = plane.verdict("checked", "a");
    assert_eq!(why, "loop: the address is a port of a member of this cluster itself");
    let front = plane.listener("checked", "checked").await;
    assert_eq!(servers(front, 4).await, "cccc");
}

#[tokio::test]
async fn every_port_of_a_range_accepts() {
    let (mut plane, _server, front) = plane(unchecked()).await;
    let first = 20_000;
    let at = ip();
    let bind = |last: u16| Some(vec![Bind::parse(&format!("{at}:{first}-{last}")).unwrap().into()]);
    plane.update_listener("l", ListenerPatch { binds: bind(first + 255), ..patch() }).await;
    let table = plane.plane.table();
    assert_eq!(table.listeners[&listener_name("l")].bound().count(), 256);
    for port in first..=first + 255 {
        Client::connect((at, port).into()).await.unwrap().finish().await;
    }
    assert_eq!(plane.listener_counts("l").connections, 256);
    assert!(TcpStream::connect(front).await.is_err(), "the former address is closed");
    let kept = Client::connect((at, first + 9).into()).await.unwrap();
    plane.update_listener("l", ListenerPatch { binds: bind(first + 9), ..patch() }).await;
    assert!(TcpStream::connect((at, first + 10)).await.is_err());
    kept.finish().await;
    Client::connect((at, first + 9).into()).await.unwrap().finish().await;
}
