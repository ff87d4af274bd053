//! As `relaying.rs`, with enough bytes that they are spliced.

use std::io::ErrorKind;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use trestle_dataplane::CloseReason;

use crate::harness::*;
use crate::relaying::{MIB, bytes, connected, fill, idle, pair, read_all};

/// Writes `total` bytes that begin anew only after an odd number of them.
async fn pour(writer: &mut (impl AsyncWrite + Unpin), seed: u64, total: usize) {
    let pattern = bytes(seed, 1_000_003);
    let mut sent = 0;
    while sent < total {
        let at = sent % pattern.len();
        let rest = &pattern[at..pattern.len().min(at + total - sent)];
        soon("sending", writer.write_all(rest)).await.unwrap();
        sent += rest.len();
    }
}

/// Reads `total` bytes, and fails unless they are those that [`pour`] writes.
async fn drink(reader: &mut (impl AsyncRead + Unpin), seed: u64, total: usize) {
    let pattern = bytes(seed, 1_000_003);
    let (mut received, mut buffer) = (0, vec![0; 300_000]);
    while received < total {
        let room = buffer.len().min(total - received);
        let read = soon("receiving", reader.read(&mut buffer[..room])).await.unwrap();
        assert!(read > 0, "the end after {received} of {total} bytes");
        for part in buffer[..read].chunks(1024) {
            let at = received % pattern.len();
            let same = part.iter().zip(pattern[at..].iter().chain(&pattern)).all(|(a, b)| a == b);
            assert!(same, "something else arrived after {received} bytes");
            received += part.len();
        }
    }
}

/// Pours `total` bytes into one stream and drinks as many from it at once; the halves are left as they are.
async fn both(stream: TcpStream, mine: u64, theirs: u64, total: usize) -> (OwnedReadHalf, OwnedWriteHalf) {
    let (mut reader, mut writer) = stream.into_split();
    let pouring = tokio::spawn(async move {
        pour(&mut writer, mine, total).await;
        writer
    });
    drink(&mut reader, theirs, total).await;
    (reader, soon("sending", pouring).await.unwrap())
}

#[tokio::test]
async fn both_directions_move_bulk_at_once_and_small_messages_after_it() {
    let (plane, back, front) = pair().await;
    let (client, backend) = connected(&back, front).await;
    let total = 96 * MIB;
    let other = tokio::spawn(both(backend, 2, 1, total));
    let (mut reader, mut writer) = both(client, 1, 2, total).await;
    let (mut other_reader, mut other_writer) = soon("the other side", other).await.unwrap();
    for round in 0..100 {
        let mut small = [0; 4];
        writer.write_all(b"ping").await.unwrap();
        soon("a ping", other_reader.read_exact(&mut small)).await.unwrap();
        assert_eq!(&small, b"ping", "round {round}");
        other_writer.write_all(b"pong").await.unwrap();
        soon("a pong", reader.read_exact(&mut small)).await.unwrap();
        assert_eq!(&small, b"pong", "round {round}");
    }
    // And bulk again, on the same connection.
    let client = reader.reunite(writer).unwrap();
    let backend = other_reader.reunite(other_writer).unwrap();
    let other = tokio::spawn(both(backend, 4, 3, 8 * MIB));
    let client = both(client, 3, 4, 8 * MIB).await;
    let backend = soon("the other side", other).await.unwrap();
    drop((client, backend));
    idle(&plane).await;
    let counts = plane.listener_counts("l");
    let each = (total + 8 * MIB + 400) as u64;
    assert_eq!((counts.bytes_in, counts.bytes_out), (each, each));
}

#[tokio::test]
async fn one_side_finishes_in_the_middle_of_bulk_and_the_other_goes_on() {
    for client_first in [true, false] {
        let (plane, back, front) = pair().await;
        let (client, backend) = connected(&back, front).await;
        let (first, second) = if client_first { (client, backend) } else { (backend, client) };
        let other = tokio::spawn(both(second, 2, 1, 16 * MIB));
        let (mut reader, mut writer) = both(first, 1, 2, 16 * MIB).await;
        let (mut other_reader, mut other_writer) = soon("the other side", other).await.unwrap();
        let going_on = tokio::spawn(async move {
            pour(&mut other_writer, 5, 64 * MIB).await;
            other_writer.shutdown().await.unwrap();
        });
        writer.shutdown().await.unwrap();
        assert_eq!(soon("the end", other_reader.read(&mut [0; 8])).await.unwrap(), 0);
        drink(&mut reader, 5, 64 * MIB).await;
        assert_eq!(soon("the other end", reader.read(&mut [0; 8])).await.unwrap(), 0);
        going_on.await.unwrap();
        let reason = if client_first { CloseReason::ClientClosed } else { CloseReason::BackendClosed };
        plane.until_closed("l", reason, 1).await;
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_bulk_reaches_the_other_side() {
    for client_resets in [true, false] {
        let (plane, back, front) = pair().await;
        let (client, backend) = connected(&back, front).await;
        let (leaver, stays) = if client_resets { (client, backend) } else { (backend, client) };
        let (mut reader, mut writer) = stays.into_split();
        let pouring = tokio::spawn(async move {
            let chunk = bytes(1, MIB);
            loop {
                if let Err(error) = writer.write_all(&chunk).await {
                    return error.kind();
                }
            }
        });
        let mut leaver = leaver;
        let mut buffer = vec![0; MIB];
        for _ in 0..64 {
            soon("bulk", leaver.read_exact(&mut buffer)).await.unwrap();
        }
        leaver.set_zero_linger().unwrap();
        drop(leaver);
        let end = soon("the end of sending", pouring).await.unwrap();
        assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end}");
        // The error was told to the writer, so that a reader sees the end only.
        let _ = soon("the end of reading", reader.read(&mut [0; 8])).await;
        let reason = if client_resets { CloseReason::ClientReset } else { CloseReason::BackendReset };
        plane.until_closed("l", reason, 1).await;
        idle(&plane).await;
    }
}

#[tokio::test]
async fn a_reader_that_stops_in_the_middle_of_bulk_loses_nothing() {
    let (_plane, back, front) = pair().await;
    let (mut client, mut backend) = connected(&back, front).await;
    let pouring = tokio::spawn(async move {
        pour(&mut backend, 1, 16 * MIB).await;
        backend
    });
    drink(&mut client, 1, 16 * MIB).await;
    let backend = soon("sending", pouring).await.unwrap();
    // Bounded: fails when the relay takes more than the kernel's buffers and a pipe hold.
    let total = fill(&backend).await;
    drop(backend);
    let (all, chunk) = (read_all(&mut client).await, bytes(4, 64 * 1024));
    assert_eq!(all.len(), total);
    assert!(all.chunks(chunk.len()).all(|c| *c == chunk[..c.len()]), "bytes arrived otherwise");
}

/// Sends one byte as urgent data (tcp(7)), which a reader that does not ask for it never sees.
async fn send_urgent(stream: &TcpStream) {
    let send = || stream.try_io(Interest::WRITABLE, || SockRef::from(stream).send_out_of_band(b"!"));
    loop {
        soon("room for a byte", stream.writable()).await.unwrap();
        match send() {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// Sends `before` bytes, an urgent one, and `after` more, and finishes at once; all of them arrive, and then the end.
async fn an_urgent_byte_amid(
    writer: TcpStream,
    mut reader: TcpStream,
    before: usize,
    after: usize,
    pause: bool,
) {
    let sending = tokio::spawn(async move {
        let mut writer = writer;
        pour(&mut writer, 1, before).await;
        if pause {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        send_urgent(&writer).await;
        pour(&mut writer, 2, after).await;
        writer.shutdown().await.unwrap();
        writer
    });
    drink(&mut reader, 1, before).await;
    drink(&mut reader, 2, after).await;
    let read = soon("the end", reader.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read, 0, "{before} bytes before and {after} after it");
    soon("sending", sending).await.unwrap();
}

#[tokio::test]
async fn an_urgent_byte_amid_bulk_neither_ends_nor_stops_it() {
    let (plane, back, front) = pair().await;
    for before in [300_000, MIB + 1] {
        for after in [0, 1, 1000, 200_000, MIB] {
            for (up, pause) in [(true, false), (true, true), (false, false), (false, true)] {
                let (client, backend) = connected(&back, front).await;
                let (writer, reader) = if up { (client, backend) } else { (backend, client) };
                an_urgent_byte_amid(writer, reader, before, after, pause).await;
            }
        }
    }
    idle(&plane).await;
}

#[tokio::test]
async fn bulk_goes_on_behind_every_one_of_many_urgent_bytes() {
    for up in [true, false] {
        let (plane, back, front) = pair().await;
        let (client, backend) = connected(&back, front).await;
        let (mut writer, mut reader) = if up { (client, backend) } else { (backend, client) };
        for round in 0..20 {
            let (mine, total) = (round, 300_000 + round as usize * 1001);
            let pouring = tokio::spawn(async move {
                pour(&mut writer, mine, total).await;
                send_urgent(&writer).await;
                pour(&mut writer, mine, 1).await;
                writer
            });
            drink(&mut reader, mine, total).await;
            // Once that came which is behind the urgent byte, it is no longer one of two.
            drink(&mut reader, mine, 1).await;
            writer = soon("sending", pouring).await.unwrap();
        }
        drop((writer, reader));
        idle(&plane).await;
    }
}
