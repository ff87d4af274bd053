#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::AtomicUsize;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::UnixListener;
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc;

use super::*;

const DEADLINES: PortDeadlines = PortDeadlines {
    preface: (1, Duration::from_secs(1)),
    head: Some(Duration::from_secs(1)),
    idle: Duration::from_secs(60),
    answer: Duration::from_secs(60),
    write: Duration::from_secs(60),
};

fn port(connections: usize) -> Arc<ServicePort> {
    Arc::new(ServicePort::new("test", PortLimits::of(connections), DEADLINES, Arc::new(|_| false)))
}

fn router() -> axum::Router {
    axum::Router::new().route("/", get(async || "hello\n"))
}

/// A socket whose connections are what a test sends; or each accept fails for want of descriptors.
struct Fake {
    accepts: Arc<AtomicUsize>,
    connections: Option<AsyncMutex<mpsc::UnboundedReceiver<DuplexStream>>>,
}

impl ListeningSocket for Fake {
    type Io = DuplexStream;

    async fn accept(&self) -> io::Result<(DuplexStream, ConnectionOrigin)> {
        self.accepts.fetch_add(1, Relaxed);
        let Some(connections) = &self.connections else {
            return Err(rustix::io::Errno::MFILE.into());
        };
        match connections.lock().await.recv().await {
            Some(stream) => Ok((stream, ConnectionOrigin::Unix(None))),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn without_descriptors_it_waits_and_does_not_spin() {
    let (stop, accepts) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let fake = Fake { accepts: accepts.clone(), connections: None };
    let running = tokio::spawn(run(fake, port(16), Http1(router()), stop.clone()));
    let start = Instant::now();
    while accepts.load(Relaxed) < 5 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(start.elapsed() >= SHORTAGE_PAUSE * 4, "{:?}", start.elapsed());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_oldest_that_waits_gives_way_and_all_ends_with_the_stop() {
    let stop = CancellationToken::new();
    let (sender, connections) = mpsc::unbounded_channel();
    let fake = Fake { accepts: Arc::default(), connections: Some(AsyncMutex::new(connections)) };
    let port = port(16);
    let running = tokio::spawn(run(fake, port.clone(), Http1(router()), stop.clone()));
    let mut clients = Vec::new();
    for _ in 0..40 {
        let (mut client, server) = duplex(1024);
        sender.send(server).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        clients.push(client);
    }
    // The last place is for somebody who has none.
    assert_eq!(port.open(), 15);
    assert_eq!(port.counters.evicted.load(Relaxed), 25);
    let mut rest = Vec::new();
    clients[0].read_to_end(&mut rest).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(port.open(), 0);
}

#[tokio::test]
async fn a_unix_socket_is_served_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let stop = CancellationToken::new();
    let listener = UnixListener::bind(&path).unwrap();
    let port = port(16);
    tokio::spawn(run(listener, port.clone(), Http1(router()), stop.clone()));
    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello\n"), "{answer}");
    // One that says nothing is ended, and one that does not finish its head.
    for words in ["", "GET / HT"] {
        let mut slow = tokio::net::UnixStream::connect(&path).await.unwrap();
        slow.write_all(words.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(20), slow.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{words:?}");
    }
    assert_eq!(port.counters.expired.load(Relaxed), 2);
    stop.cancel();
}
