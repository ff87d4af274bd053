//! Bytes, ends and resets pass through as they are.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trestle_dataplane::CloseReason;

use crate::harness::*;

pub(crate) const MIB: usize = 1 << 20;

/// Bytes that do not repeat in any period that a mistake could have.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed;
    let next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A listener in front of one socket that the test itself accepts on.
pub(crate) async fn pair() -> (Plane, TcpListener, std::net::SocketAddr) {
    let back = TcpListener::bind((ip(), 0)).await.unwrap();
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(back.local_addr().unwrap()))]).await;
    let front = plane.listener("l", "p").await;
    (plane, back, front)
}

pub(crate) async fn connected(back: &TcpListener, front: std::net::SocketAddr) -> (TcpStream, TcpStream) {
    let client = soon("a connection", TcpStream::connect(front)).await.unwrap();
    let (backend, _) = soon("a backend connection", back.accept()).await.unwrap();
    (client, backend)
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon("everything and the end", stream.read_to_end(&mut all)).await.unwrap();
    all
}

pub(crate) async fn idle(plane: &Plane) {
    until("every connection is gone", || plane.plane.open_connections() == 0).await;
}

/// Sends 4 MiB and finishes; only then the other side sends 4 MiB and finishes.
async fn one_after_the_other(first: TcpStream, second: TcpStream) {
    let (there, back) = (bytes(1, 4 * MIB), bytes(2, 4 * MIB));
    let (sent, returned) = (there.clone(), back.clone());
    let answering = tokio::spawn(async move {
        let mut second = second;
        assert!(read_all(&mut second).await == sent, "what was sent first arrived otherwise");
        second.write_all(&returned).await.unwrap();
        second.shutdown().await.unwrap();
    });
    let mut first = first;
    soon("sending", first.write_all(&there)).await.unwrap();
    first.shutdown().await.unwrap();
    assert!(read_all(&mut first).await == back, "what was sent back arrived otherwise");
    soon("the other side", answering).await.unwrap();
}

#[tokio::test]
async fn a_client_that_finishes_first_still_gets_its_answer() {
    let (plane, back, front) = pair().await;
    let (client, backend) = connected(&back, front).await;
    one_after_the_other(client, backend).await;
    plane.until_closed("l", CloseReason::ClientClosed, 1).await;
    idle(&plane).await;
    for counts in [plane.listener_counts("l"), plane.backend_counts("p", "a")] {
        assert_eq!((counts.bytes_in, counts.bytes_out), (4 * MIB as u64, 4 * MIB as u64));
        assert_eq!((counts.connections, counts.active), (1, 0));
    }
}

#[tokio::test]
async fn a_backend_that_finishes_first_still_gets_the_rest() {
    let (plane, back, front) = pair().await;
    let (client, backend) = connected(&back, front).await;
    one_after_the_other(backend, client).await;
    plane.until_closed("l", CloseReason::BackendClosed, 1).await;
    idle(&plane).await;
}

#[tokio::test]
async fn both_directions_run_at_once() {
    let (plane, back, front) = pair().await;
    let mut tasks = Vec::new();
    for i in 0..8u64 {
        let (client, backend) = connected(&back, front).await;
        for (stream, mine, theirs) in [(client, i, i + 100), (backend, i + 100, i)] {
            tasks.push(tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let writing = tokio::spawn(async move {
                    writer.write_all(&bytes(mine, 3 * MIB)).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
                let mut all = Vec::new();
                reader.read_to_end(&mut all).await.unwrap();
                assert!(all == bytes(theirs, 3 * MIB), "connection {i} arrived otherwise");
                writing.await.unwrap();
            }));
        }
    }
    for task in tasks {
        soon("a transfer", task).await.unwrap();
    }
    idle(&plane).await;
}

#[tokio::test]
async fn a_clients_reset_reaches_the_backend() {
    let (plane, back, front) = pair().await;
    let (mut client, mut backend) = connected(&back, front).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon("a byte", backend.read_u8()).await.unwrap(), b'x');
    client.set_zero_linger().unwrap();
    drop(client);
    let end = soon("an end", backend.read_u8()).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    plane.until_closed("l", CloseReason::ClientReset, 1).await;
    assert_eq!(plane.backend_counts("p", "a").closed(CloseReason::ClientReset), 1);
}

#[tokio::test]
async fn a_backends_reset_reaches_the_client() {
    let (plane, back, front) = pair().await;
    let (mut client, mut backend) = connected(&back, front).await;
    backend.write_all(b"x").await.unwrap();
    assert_eq!(soon("a byte", client.read_u8()).await.unwrap(), b'x');
    backend.set_zero_linger().unwrap();
    drop(backend);
    let end = soon("an end", client.read_u8()).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    plane.until_closed("l", CloseReason::BackendReset, 1).await;
}

#[tokio::test]
async fn an_early_answer_arrives_although_a_reset_follows_it() {
    let (plane, back, front) = pair().await;
    let upload = Arc::new(bytes(3, 8 * MIB));
    // Whether the relay first meets the answer or the reset is a matter of microseconds.
    for round in 0..50 {
        let (client, mut backend) = connected(&back, front).await;
        let (mut reader, mut writer) = client.into_split();
        let upload = upload.clone();
        let uploading = tokio::spawn(async move {
            // Ends with an error once the backend is gone.
            let _ = writer.write_all(&upload).await;
            writer
        });
        soon("a byte", backend.read_u8()).await.unwrap();
        backend.write_all(b"too much").await.unwrap();
        // Closes with unread bytes, and so with a reset.
        drop(backend);
        drop(soon("the upload", uploading).await.unwrap());
        let mut answer = [0; 8];
        let read = soon("the answer", reader.read_exact(&mut answer)).await;
        assert!(read.is_ok() && &answer == b"too much", "round {round}: {read:?}");
    }
    idle(&plane).await;
}

/// Writes until nothing has moved for a while; returns how much was taken.
pub(crate) async fn fill(stream: &TcpStream) -> usize {
    let chunk = bytes(4, 64 * 1024);
    let mut total = 0;
    while tokio::time::timeout(std::time::Duration::from_millis(500), stream.writable()).await.is_ok() {
        match stream.try_write(&chunk[total % chunk.len()..]) {
            Ok(n) => total += n,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        // The kernel's buffers on both legs hold 10 MiB each way at most (net.ipv4.tcp_rmem and tcp_wmem).
        assert!(total < 64 * MIB, "a reader that reads nothing does not hold the writer up");
    }
    total
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_up_and_loses_nothing() {
    let (_plane, back, front) = pair().await;
    let (mut client, backend) = connected(&back, front).await;
    let total = fill(&backend).await;
    drop(backend);
    let all = read_all(&mut client).await;
    let chunk = bytes(4, 64 * 1024);
    assert_eq!(all.len(), total);
    assert!(all.chunks(chunk.len()).all(|c| *c == chunk[..c.len()]), "bytes arrived otherwise");
}

#[tokio::test]
async fn a_reset_is_noticed_although_the_other_side_takes_nothing() {
    let (plane, back, front) = pair().await;
    let (client, backend) = connected(&back, front).await;
    fill(&client).await;
    client.set_zero_linger().unwrap();
    drop(client);
    plane.until_closed("l", CloseReason::ClientReset, 1).await;
    idle(&plane).await;
    drop(backend);
}

#[tokio::test]
async fn a_connection_that_moves_bulk_does_not_hold_up_the_others() {
    let mut one_worker = settings();
    one_worker.workers = std::num::NonZeroUsize::MIN;
    let echo = Server::start("e").await;
    let back = TcpListener::bind((ip(), 0)).await.unwrap();
    let mut plane = Plane::with(one_worker);
    plane.pool("bulk", unchecked(), &[("a", at(back.local_addr().unwrap()))]).await;
    plane.pool("echo", unchecked(), &[("e", at(echo.address))]).await;
    let bulk = plane.listener("bulk", "bulk").await;
    let small = plane.listener("echo", "echo").await;
    let (client, backend) = connected(&back, bulk).await;
    let moved = Arc::new(AtomicU64::new(0));
    let counted = moved.clone();
    let pump = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut source, mut sink) = (backend.into_std().unwrap(), client.into_std().unwrap());
        source.set_nonblocking(false).unwrap();
        sink.set_nonblocking(false).unwrap();
        let writing = std::thread::spawn(move || while source.write_all(&[7; 256 * 1024]).is_ok() {});
        let mut buffer = vec![0; 256 * 1024];
        while counted.load(Ordering::Relaxed) < 1 << 30 {
            let n = sink.read(&mut buffer).unwrap();
            counted.fetch_add(n as u64, Ordering::Relaxed);
        }
        drop(sink);
        writing.join().unwrap();
    });
    let mut echoed = 0;
    let mut client = Client::connect(small).await.unwrap();
    while moved.load(Ordering::Relaxed) < 1 << 30 {
        assert!(client.works().await);
        echoed += 1;
    }
    pump.join().unwrap();
    assert!(echoed >= 10, "only {echoed} echoes while 1 GiB moved");
}

/// Sees the end of what `stream` receives, and finishes nothing itself.
async fn sees_the_end(stream: &mut TcpStream) {
    assert_eq!(soon("the end", stream.read(&mut [0; 8])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_after_the_end_reaches_the_other_side_both_ways() {
    for client_first in [true, false] {
        let (plane, back, front) = pair().await;
        let (client, backend) = connected(&back, front).await;
        let (mut first, mut second) = if client_first { (client, backend) } else { (backend, client) };
        first.write_all(b"x").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(soon("a byte", second.read_u8()).await.unwrap(), b'x');
        sees_the_end(&mut second).await;
        first.set_zero_linger().unwrap();
        drop(first);
        // Nobody sends anything any more: only a reset ends it now.
        let reason = if client_first { CloseReason::ClientReset } else { CloseReason::BackendReset };
        plane.until_closed("l", reason, 1).await;
        let written = || async { second.writable().await.and_then(|()| second.try_write(b"y")) };
        until("the reset", || second.take_error().unwrap().is_some()).await;
        assert!(soon("an error", written()).await.is_err());
        idle(&plane).await;
    }
}

#[tokio::test]
async fn who_is_owed_an_answer_gets_it_although_a_reset_followed_its_end() {
    for client_first in [true, false] {
        let (plane, back, front) = pair().await;
        let (client, backend) = connected(&back, front).await;
        let (mut first, mut second) = if client_first { (client, backend) } else { (backend, client) };
        // More than the reader's buffer takes, so that some of it waits in the relay's socket.
        let all = bytes(9, 8 * MIB);
        let sending = all.clone();
        let sent = tokio::spawn(async move {
            first.write_all(&sending).await.unwrap();
            first.shutdown().await.unwrap();
            first
        });
        let mut received = vec![0; MIB];
        soon("the beginning", second.read_exact(&mut received)).await.unwrap();
        // Reading on bit by bit, until the relay has passed everything on.
        let passed = || {
            let counts = plane.listener_counts("l");
            counts.bytes_in.max(counts.bytes_out)
        };
        while passed() < all.len() as u64 {
            let mut more = vec![0; 64 * 1024];
            let read = soon("more", second.read(&mut more)).await.unwrap();
            received.extend(&more[..read]);
        }
        let first = sent.await.unwrap();
        first.set_zero_linger().unwrap();
        drop(first);
        received.extend(read_all(&mut second).await);
        assert!(received == all, "{} of {} bytes arrived", received.len(), all.len());
        idle(&plane).await;
    }
}
