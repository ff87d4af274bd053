//! What strangers do to a member: tests show that it stays within its bounds, `cargo xtask bench attacks` measures what others notice.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpSocket;

use crate::subnet::Subnet;

/// How long an attacker waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field whose name is in HPACK's static table, not indexed (RFC 7541 §6.2.2).
fn field(index: u8, value: &str) -> Vec<u8> {
    let mut field = if index < 15 { vec![index] } else { vec![0x0f, index - 15] };
    // An integer with a prefix of seven bits.
    match value.len() {
        length @ ..127 => field.push(length as u8),
        length => {
            field.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                field.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            field.push(rest as u8);
        }
    }
    field.extend(value.bytes());
    field
}

/// The head of a gRPC call, without the end of the stream; `padding` is the value of one more field.
fn head(stream: u32, path: &str, padding: &str) -> Vec<u8> {
    // :method POST and :scheme http are entries of the static table.
    let mut block = vec![0x83, 0x86];
    block.extend(field(4, path));
    block.extend(field(1, "trestle"));
    block.extend(field(31, "application/grpc"));
    if !padding.is_empty() {
        block.extend(field(58, padding));
    }
    frame(1, 4, stream, &block)
}

/// An HTTP/2 connection that says what an attacker likes.
#[derive(Debug)]
pub struct Raw(std::net::TcpStream);

impl Raw {
    /// Connects, and says what every client begins with.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn open(target: SocketAddr) -> std::io::Result<Self> {
        let stream = std::net::TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut raw = Self(stream);
        raw.0.write_all(PREFACE)?;
        raw.0.write_all(&frame(4, 0, 0, &[]))?;
        Ok(raw)
    }

    /// Whether the member still takes what is sent.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Its socket.
    pub fn stream(&mut self) -> &mut std::net::TcpStream {
        &mut self.0
    }

    /// The settings with which the member begins, as numbers and values.
    ///
    /// # Panics
    /// When it begins with anything else.
    pub fn settings(&mut self) -> Vec<(u16, u32)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[3], 4, "a server's first frame is SETTINGS (RFC 9113 §3.4)");
        let mut payload = vec![0; usize::from(head[2])];
        self.0.read_exact(&mut payload).unwrap();
        let setting =
            |s: &[u8]| (u16::from_be_bytes([s[0], s[1]]), u32::from_be_bytes([s[2], s[3], s[4], s[5]]));
        payload.chunks(6).map(setting).collect()
    }
}

/// One connection that sends up to 10 000 heads of calls, each of 12 000 bytes; until the member ends it.
///
/// # Errors
/// When it cannot be opened.
pub fn endless_headers(target: SocketAddr) -> std::io::Result<Raw> {
    let mut raw = Raw::open(target)?;
    let padding = "x".repeat(12_000);
    for number in 0..10_000 {
        if !raw.send(&head(2 * number + 1, "/trestle.v1.PoolService/ListPools", &padding)) {
            break;
        }
    }
    Ok(raw)
}

/// So many connections with 200 calls each that have a head and never a body. Those that cannot be opened are left out.
pub fn calls_without_bodies(target: SocketAddr, path: &str, connections: usize) -> Vec<Raw> {
    let open = |_| {
        let mut raw = Raw::open(target).ok()?;
        for number in 0..200 {
            raw.send(&head(2 * number + 1, path, ""));
        }
        Some(raw)
    };
    (0..connections).filter_map(open).collect()
}

/// A connection from an address.
///
/// # Errors
/// Those of the connection.
pub async fn connect_from(from: Ipv4Addr, target: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = tokio::time::timeout(PATIENCE, socket.connect(target)).await??.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// So many connections from a hundred addresses that say these words and no more. Those that are refused are left out.
pub async fn silent_connections(
    subnet: &Subnet,
    target: SocketAddr,
    words: &str,
    count: u32,
) -> Vec<std::net::TcpStream> {
    let mut silent = Vec::new();
    for number in 0..count {
        let from = subnet.ip(30 + (number % 100) as u8);
        let Ok(mut stream) = connect_from(from, target).await else { continue };
        let _ = stream.write_all(words.as_bytes());
        silent.push(stream);
    }
    silent
}

/// So many clients, each from an address of its own, that ask for the metrics and do not read them.
pub async fn scrapers(subnet: &Subnet, http: SocketAddr, count: u8) -> Vec<std::net::TcpStream> {
    let mut scrapes = Vec::new();
    for number in 0..count {
        let Ok(mut stream) = connect_from(subnet.ip(20 + number), http).await else { continue };
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        scrapes.push(stream);
    }
    scrapes
}

/// 60 connections to a peer port from as many addresses, and 80 from where the members themselves come. Those that are refused are left
/// out.
pub async fn peer_flood(subnet: &Subnet, peer: SocketAddr, round: u8) -> Vec<std::net::TcpStream> {
    let mut held = Vec::new();
    for source in 0..60_u8 {
        held.extend(connect_from(subnet.ip(100 + (source + round) % 100), peer).await);
    }
    held.extend((0..80).filter_map(|_| std::net::TcpStream::connect_timeout(&peer, PATIENCE).ok()));
    held
}

/// So many connections of one client to a listener. Those that are refused are left out.
pub async fn hog(from: Ipv4Addr, front: SocketAddr, count: usize) -> Vec<std::net::TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.extend(connect_from(from, front).await);
    }
    held
}
