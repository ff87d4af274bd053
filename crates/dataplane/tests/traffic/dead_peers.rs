//! Peers that are gone without a word are given up in the time that the pool sets, and those that only do not read never.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use trestle_dataplane::CloseReason;
use trestle_model::PoolSpec;

use crate::harness::*;
use crate::relaying::{bytes, connected, fill, read_all};
use crate::vips::{alone, ip_command};

/// The shortest that a pool may have.
const TIMEOUT: Duration = Duration::from_secs(5);

async fn pair() -> (Plane, TcpListener, SocketAddr) {
    pair_at((ip(), 0).into(), free()).await
}

async fn pair_at(backend: SocketAddr, front: SocketAddr) -> (Plane, TcpListener, SocketAddr) {
    let back = TcpListener::bind(backend).await.unwrap();
    let mut plane = Plane::start();
    let spec = PoolSpec { dead_peer_timeout: TIMEOUT, ..unchecked() };
    plane.pool("p", spec, &[("a", at(back.local_addr().unwrap()))]).await;
    plane.listener_at("l", front, "p").await;
    (plane, back, front)
}

/// Fills the connection from `writer`, and then nobody reads for three times the timeout.
async fn pause(writer: TcpStream, mut reader: TcpStream) {
    let total = fill(&writer).await;
    tokio::time::sleep(TIMEOUT * 3).await;
    drop(writer);
    let all = read_all(&mut reader).await;
    let chunk = bytes(4, 64 * 1024);
    assert_eq!(all.len(), total);
    assert!(all.chunks(chunk.len()).all(|c| *c == chunk[..c.len()]), "bytes arrived otherwise");
}

#[tokio::test]
async fn who_does_not_read_is_not_dead() {
    let (plane, back, front) = pair().await;
    let (client, backend) = connected(&back, front).await;
    let (other_client, other_backend) = connected(&back, front).await;
    tokio::join!(pause(client, backend), pause(other_backend, other_client));
    plane.until_closed("l", CloseReason::ClientClosed, 1).await;
    plane.until_closed("l", CloseReason::BackendClosed, 1).await;
}

/// How a connection stands when the network goes.
enum Scene {
    Full,
    Idle,
    HalfClosed,
}

/// Brings a connection there, and takes the network away.
fn is_given_up(scene: Scene) {
    alone(async move {
        let (plane, back, front) = pair().await;
        let (mut client, mut backend) = connected(&back, front).await;
        match scene {
            Scene::Full => {
                fill(&backend).await;
            }
            Scene::Idle => {
                client.write_all(b"x").await.unwrap();
                assert_eq!(backend.read_u8().await.unwrap(), b'x');
            }
            Scene::HalfClosed => {
                // A client that ends before it has said anything may be forgotten while its backend is connected.
                client.write_all(b"x").await.unwrap();
                assert_eq!(backend.read_u8().await.unwrap(), b'x');
                client.shutdown().await.unwrap();
                assert_eq!(backend.read(&mut [0; 1]).await.unwrap(), 0);
            }
        }
        ip_command("link set lo down");
        let lost = || {
            let counts = plane.listener_counts("l");
            counts.closed(CloseReason::ClientLost) + counts.closed(CloseReason::BackendLost)
        };
        until("the connection ends", || plane.listener_counts("l").active == 0).await;
        assert_eq!(lost(), 1, "{:?}", plane.listener_counts("l"));
    });
}

#[test]
fn a_peer_that_vanishes_while_it_does_not_read_is_given_up() {
    is_given_up(Scene::Full);
}

#[test]
fn a_peer_that_vanishes_while_nothing_is_under_way_is_given_up() {
    is_given_up(Scene::Idle);
}

#[test]
fn a_peer_that_vanishes_after_its_end_is_given_up() {
    is_given_up(Scene::HalfClosed);
}

/// What the side that vanishes is owed. Only while that is nothing does Linux send keepalive probes.
#[derive(Debug, Clone, Copy)]
enum Owed {
    Nothing,
    /// Bytes that were sent when it was gone.
    Sent,
    /// Bytes for which its window has no room.
    Held,
}

/// Of documentation (RFC 5737): the client's, the backend's and the listener's.
const ADDRESSES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];

/// Takes one side away while the other one stays and answers: what is sent to that side goes where nobody is.
async fn one_vanishes(owed: Owed, vanishes: CloseReason) {
    ip_command("link add gone type veth peer name nowhere");
    ip_command("link set gone arp off up");
    ip_command("link set nowhere up");
    ADDRESSES.iter().for_each(|ip| ip_command(&format!("addr add {ip}/32 dev lo")));
    let [near, far, front] = ADDRESSES;
    let (plane, back, front) = pair_at((far, 0).into(), (front, 7000).into()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((near, 0).into()).unwrap();
    let client = soon("a connection", socket.connect(front)).await.unwrap();
    let (backend, _) = soon("a backend connection", back.accept()).await.unwrap();
    let (mut gone, mut stays, ip) = match vanishes {
        CloseReason::ClientLost => (client, backend, near),
        _ => (backend, client, far),
    };
    stays.write_all(b"x").await.unwrap();
    assert_eq!(gone.read_u8().await.unwrap(), b'x');
    if let Owed::Held = owed {
        fill(&stays).await;
    }
    ip_command(&format!("route add {ip}/32 dev gone"));
    ip_command(&format!("addr del {ip}/32 dev lo"));
    let since = Instant::now();
    if let Owed::Sent = owed {
        stays.write_all(b"y").await.unwrap();
    }
    plane.until_closed("l", vanishes, 1).await;
    // Without a bound of ours the kernel gives up after 15 attempts (tcp_retries2), here after some 18 s. Keepalive is set to the
    // pool's timeout when a connection is up to 10 s old.
    let limit = if let Owed::Nothing = owed { DEADLINE } else { TIMEOUT * 2 };
    assert!(since.elapsed() < limit, "{owed:?}, {vanishes}: {:?}", since.elapsed());
}

#[test]
fn one_side_that_vanishes_alone_is_given_up_whatever_it_is_owed() {
    std::thread::scope(|scope| {
        for owed in [Owed::Nothing, Owed::Sent, Owed::Held] {
            for vanishes in [CloseReason::ClientLost, CloseReason::BackendLost] {
                scope.spawn(move || alone(one_vanishes(owed, vanishes)));
            }
        }
    });
}
