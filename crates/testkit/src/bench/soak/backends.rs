//! Backends that behave badly, each in its own way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::streams::{Received, receive, send};

/// Longest life of a backend's connection that nobody ends. Short, since the member may take one whose client is gone long
/// after: it had waited to be accepted.
const LIFE: Duration = Duration::from_secs(60);
/// Bytes that a client sends after the backend has finished.
pub(super) const AFTERWARDS: u64 = 4096;

/// Streams that reached a backend wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Arc<AtomicU64>);

impl Faults {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Starts one backend of each kind; answers their names and addresses.
pub(super) async fn start(ip: impl Into<IpAddr>, faults: &Faults) -> Vec<(&'static str, SocketAddr)> {
    let ip = ip.into();
    let mut started = Vec::new();
    for name in ["echo", "hang", "reset", "finish", "upload", "trickle"] {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        started.push((name, listener.local_addr().unwrap()));
        let faults = faults.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let faults = faults.clone();
                tokio::spawn(async move {
                    let _ = timeout(LIFE, serve(name, stream, faults)).await;
                });
            }
        });
    }
    // Nobody listens there.
    let refusing = TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap();
    started.push(("refuse", refusing));
    started
}

async fn serve(name: &str, mut stream: TcpStream, faults: Faults) {
    match name {
        "echo" => {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
        "hang" => sleep(LIFE).await,
        "reset" => {
            let mut some = [0; 64];
            let _ = stream.read(&mut some).await;
            let _ = stream.set_zero_linger();
        }
        "finish" => finish(stream, &faults).await,
        "upload" => upload(stream).await,
        _ => trickle(stream).await,
    }
}

/// Sends what the client asks for, finishes, and goes on reading until the client has finished too.
async fn finish(mut stream: TcpStream, faults: &Faults) {
    let (Ok(seed), Ok(length)) = (stream.read_u64().await, stream.read_u64().await) else { return };
    if send(&mut stream, seed, length).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    if receive(&mut stream, !seed, AFTERWARDS).await == Received::Wrong {
        faults.add();
    }
    let mut end = [0; 1];
    if matches!(stream.read(&mut end).await, Ok(1..)) {
        faults.add();
    }
}

/// Reads until the client has finished, and only then answers: 1 when everything came, 0 when not.
async fn upload(mut stream: TcpStream) {
    let (Ok(seed), Ok(length)) = (stream.read_u64().await, stream.read_u64().await) else { return };
    let whole = receive(&mut stream, seed, length).await == Received::Whole;
    let mut end = [0; 1];
    let ended = matches!(stream.read(&mut end).await, Ok(0));
    let _ = stream.write_u8(u8::from(whole && ended)).await;
}

/// One byte a second.
async fn trickle(mut stream: TcpStream) {
    for second in 0..=255_u8 {
        if stream.write_u8(second).await.is_err() {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}
