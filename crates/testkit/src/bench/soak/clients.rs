//! Clients for each kind of backend: many that hold on to their connections, so that the member runs out of descriptors,
//! and some that go on and on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::backends::AFTERWARDS;
use super::streams::{Received, Stream, receive, send};

/// How long a client waits for what it is owed; at the limit of descriptors connections wait to be accepted.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients of each kind at a time: more connections than the member has descriptors for.
const KINDS: &[(&str, usize)] = &[
    ("hang", 1500),
    ("trickle", 700),
    ("echo", 60),
    ("bulk", 4),
    ("reset", 30),
    ("finish", 30),
    ("upload", 30),
    ("refuse", 10),
];

/// Where each kind of backend is reached.
#[derive(Debug, Clone)]
pub(super) struct Targets(Vec<(&'static str, SocketAddr)>);

impl Targets {
    pub(super) fn new(targets: Vec<(&'static str, SocketAddr)>) -> Self {
        Self(targets)
    }

    fn of(&self, kind: &str) -> SocketAddr {
        let backend = if kind == "bulk" { "echo" } else { kind };
        self.0.iter().find(|(name, _)| *name == backend).unwrap().1
    }
}

#[derive(Debug, Default)]
struct Counts {
    verified: AtomicU64,
    wrong: AtomicU64,
    short: AtomicU64,
    ended: AtomicU64,
    late: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    fn received(&self, received: Received) -> bool {
        let counter = match received {
            Received::Whole => &self.verified,
            Received::Short => &self.short,
            Received::Wrong => &self.wrong,
        };
        counter.fetch_add(1, Relaxed);
        received == Received::Whole
    }
}

/// Clients that run.
#[derive(Debug)]
pub(super) struct Clients {
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

impl Clients {
    pub(super) fn start(targets: &Targets) -> Self {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for (kind, clients) in KINDS {
            for number in 0..*clients {
                let (counts, target) = (counts.clone(), targets.of(kind));
                tasks.spawn(async move {
                    let mut random = Stream::new(number as u64 ^ (clients << 32) as u64);
                    while !counts.stop.load(Relaxed) {
                        let mut seed = [0; 8];
                        random.fill(&mut seed);
                        let seed = u64::from_le_bytes(seed);
                        if timeout(PATIENCE + LONGEST, once(kind, target, seed, &counts)).await.is_err() {
                            counts.late.fetch_add(1, Relaxed);
                        }
                        counts.ended.fetch_add(1, Relaxed);
                        sleep(Duration::from_millis(20 + seed % 100)).await;
                    }
                });
            }
        }
        Self { counts, tasks }
    }

    /// Ends every client's connection, whatever it is doing.
    pub(super) async fn stop(&mut self) {
        self.counts.stop.store(true, Relaxed);
        self.tasks.shutdown().await;
    }

    /// Streams that were compared and right, and those that were wrong.
    pub(super) fn verified(&self) -> (u64, u64) {
        (self.counts.verified.load(Relaxed), self.counts.wrong.load(Relaxed))
    }

    pub(super) fn summary(&self) -> String {
        let c = &self.counts;
        let [ended, verified, short, late, wrong] =
            [&c.ended, &c.verified, &c.short, &c.late, &c.wrong].map(|c| c.load(Relaxed));
        format!(
            "{ended} connections, {verified} streams right, {short} broken off, {late} late, {wrong} wrong"
        )
    }
}

/// Longest time that a client holds on to a connection for its own sake.
const LONGEST: Duration = Duration::from_secs(50);

/// One connection. What ends it early is counted, and no fault: at the limit connections are refused.
async fn once(kind: &str, target: SocketAddr, seed: u64, counts: &Counts) {
    let Ok(mut stream) = TcpStream::connect(target).await else { return };
    let hold = Duration::from_secs(5 + seed % (LONGEST.as_secs() - 5));
    match kind {
        "hang" => {
            let _ = stream.write_all(&[7; 16]).await;
            sleep(hold).await;
        }
        "trickle" => trickle(&mut stream, hold, counts).await,
        "echo" => echo(stream, seed, 1024 + seed % (256 * 1024), counts).await,
        "bulk" => echo(stream, seed, (8 << 20) + seed % (24 << 20), counts).await,
        "finish" => finish(stream, seed, counts).await,
        "upload" => upload(stream, seed, counts).await,
        _ => {
            // Resets and refusals: whatever comes, it ends.
            let _ = stream.write_all(&[7; 16]).await;
            let mut some = [0; 64];
            while matches!(stream.read(&mut some).await, Ok(1..)) {}
        }
    }
}

async fn trickle(stream: &mut TcpStream, hold: Duration, counts: &Counts) {
    let read = async {
        for expected in 0..=255_u8 {
            match stream.read_u8().await {
                Ok(byte) if byte == expected => {}
                Ok(_) => {
                    counts.received(Received::Wrong);
                    return;
                }
                Err(_) => return,
            }
        }
    };
    let _ = timeout(hold, read).await;
    // Half of them go without a word.
    if hold.as_secs().is_multiple_of(2) {
        let _ = stream.set_zero_linger();
    }
}

async fn echo(stream: TcpStream, seed: u64, length: u64, counts: &Counts) {
    let (mut from, mut to) = stream.into_split();
    let sender = async {
        let sent = send(&mut to, seed, length).await;
        let _ = to.shutdown().await;
        sent
    };
    let receiver = async {
        let received = receive(&mut from, seed, length).await;
        let mut end = [0; 1];
        match (received, from.read(&mut end).await) {
            (Received::Whole, Ok(1..)) => Received::Wrong,
            (received, _) => received,
        }
    };
    let (_, received) = tokio::join!(sender, receiver);
    counts.received(received);
}

async fn finish(mut stream: TcpStream, seed: u64, counts: &Counts) {
    let length = 1024 + seed % (1 << 20);
    if stream.write_u64(seed).await.is_err() || stream.write_u64(length).await.is_err() {
        return;
    }
    if !counts.received(receive(&mut stream, seed, length).await) {
        return;
    }
    let mut end = [0; 1];
    if matches!(stream.read(&mut end).await, Ok(1..)) {
        counts.received(Received::Wrong);
    }
    // The other direction is still open.
    let _ = send(&mut stream, !seed, AFTERWARDS).await;
}

async fn upload(mut stream: TcpStream, seed: u64, counts: &Counts) {
    let length = 1024 + seed % (1 << 20);
    if stream.write_u64(seed).await.is_err() || stream.write_u64(length).await.is_err() {
        return;
    }
    if send(&mut stream, seed, length).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    counts.received(match stream.read_u8().await {
        Ok(1) => Received::Whole,
        Ok(_) => Received::Wrong,
        Err(_) => Received::Short,
    });
}
