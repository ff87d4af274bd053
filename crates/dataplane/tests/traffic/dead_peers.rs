//! Peers that are gone without a word are given up in the time that the pool sets, and those that only do not read never.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trestle_dataplane::CloseReason;
use trestle_model::PoolSpec;

use crate::harness::*;
use crate::relaying::{bytes, connected, fill, read_all};
use crate::vips::{alone, ip_command};

/// The shortest that a pool may have.
const TIMEOUT: Duration = Duration::from_secs(5);

async fn pair() -> (Plane, TcpListener, std::net::SocketAddr) {
    let back = TcpListener::bind((ip(), 0)).await.unwrap();
    let mut plane = Plane::start();
    let spec = PoolSpec { dead_peer_timeout: TIMEOUT, ..unchecked() };
    plane.pool("p", spec, &[("a", at(back.local_addr().unwrap()))]).await;
    let front = plane.listener("l", "p").await;
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
