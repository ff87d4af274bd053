//! Streams through the virtual IP and through members' own addresses, checked byte by byte in both directions, and how they end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use trestle_testkit::lab::{Lab, Trestle, VIP};

use crate::findings::{Findings, Invariant};
use crate::registers::block_on;

/// Streams through the virtual IP at once; there is one more through each member's own address.
const CLIENTS: usize = 2;
/// The port of the virtual IP, and of the backends.
const PORT: u16 = 9000;
/// The port of the members' own addresses.
const OWN_PORT: u16 = 9001;
/// Bytes that are sent at once.
const CHUNK: usize = 1024;
/// Time between two of them.
const PACE: Duration = Duration::from_millis(20);
/// Range of a stream's length, in chunks: from a moment to half a minute.
const CHUNKS: std::ops::Range<u64> = 10..1500;
/// How long an echo may take. Whoever waits longer gives the stream up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What both ends have seen.
#[derive(Debug, Default)]
struct StreamRecord {
    whole: usize,
    broken: usize,
    broken_beside: usize,
    chunks: usize,
    /// Bytes that were not those that were sent, in words.
    wrong: Vec<String>,
    /// Clean ends that the sender had not made, with their times.
    false_ends: Vec<(Instant, String)>,
}

/// Clients and backends at work.
#[derive(Debug)]
pub(crate) struct Streams {
    record: Arc<Mutex<StreamRecord>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of all streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamSummary {
    pub(crate) whole: usize,
    pub(crate) broken: usize,
    /// Of those, streams to a member's own address.
    pub(crate) broken_beside: usize,
    pub(crate) chunks: usize,
}

impl Streams {
    /// Adds a listener with backends that send everything back, and starts clients.
    pub(crate) fn start(lab: &Lab, product: &Trestle, seed: u64) -> Self {
        let (record, stop) =
            (Arc::new(Mutex::new(StreamRecord::default())), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        product.run(lab, &["pool", "create", "echo", "--health", "tcp"]);
        for (number, host) in lab.servers().iter().enumerate() {
            let address = SocketAddr::from((host.ip, PORT));
            let listener = host.run(|| std::net::TcpListener::bind(address).unwrap());
            listener.set_nonblocking(true).unwrap();
            let (record, stop) = (record.clone(), stop.clone());
            threads.push(host.thread(move || block_on(serve(listener, &record, &stop))));
            product.run(lab, &["backend", "add", &format!("echo/b{number}"), &address.to_string()]);
        }
        let binds = format!("front:{PORT},0.0.0.0:{OWN_PORT}");
        product.run(lab, &["listener", "create", "echo", "--bind", &binds, "--pool", "echo"]);
        let own = lab.members.iter().map(|host| SocketAddr::from((host.ip, OWN_PORT)));
        let targets = (0..CLIENTS).map(|_| SocketAddr::from((VIP, PORT))).chain(own);
        for (number, target) in (0..).zip(targets) {
            let (record, stop) = (record.clone(), stop.clone());
            let random = fastrand::Rng::with_seed(seed ^ number << 32);
            threads.push(lab.client.thread(move || block_on(client(target, random, &record, &stop))));
        }
        Self { record, stop, threads }
    }

    /// Ends all of them and judges. A process that is killed has its kernel end its streams, which is no end of its own: around these
    /// moments clean ends do not count.
    pub(crate) fn finish(self, kills: &[Instant], findings: &mut Findings) -> StreamSummary {
        self.stop.store(true, Ordering::Release);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let record = self.record.lock().unwrap();
        record.wrong.iter().for_each(|what| findings.add(Invariant::StreamsExact, what));
        for (at, what) in &record.false_ends {
            // Where the segment was lost it is sent again for a while.
            let near = |kill: &Instant| *at >= *kill && *at - *kill < PATIENCE;
            if !kills.iter().any(near) {
                findings.add(Invariant::NoFalseEnd, what);
            }
        }
        StreamSummary {
            whole: record.whole,
            broken: record.broken,
            broken_beside: record.broken_beside,
            chunks: record.chunks,
        }
    }
}

/// Opens one stream after the other.
async fn client(
    target: SocketAddr,
    mut random: fastrand::Rng,
    record: &Mutex<StreamRecord>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Acquire) {
        let (seed, chunks) = (random.u64(..), random.u64(CHUNKS));
        let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect(target)).await else {
            sleep(PACE).await;
            continue;
        };
        // What is given up is reset, so that its end says so.
        let _ = stream.set_zero_linger();
        match converse(stream, seed, chunks, record, stop).await {
            Ok(true) => record.lock().unwrap().whole += 1,
            Ok(false) => {}
            Err(_) => {
                let mut record = record.lock().unwrap();
                record.broken += 1;
                record.broken_beside += usize::from(target.port() == OWN_PORT);
            }
        }
    }
}

/// Sends a stream and reads it back; answers whether it was whole, and not ended because all do.
async fn converse(
    mut stream: TcpStream,
    seed: u64,
    chunks: u64,
    record: &Mutex<StreamRecord>,
    stop: &AtomicBool,
) -> std::io::Result<bool> {
    let mut bytes = fastrand::Rng::with_seed(seed);
    let (mut sent, mut received) = ([0; CHUNK], [0; CHUNK]);
    stream.write_u64(chunks * CHUNK as u64).await?;
    for number in 0..chunks {
        if stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        bytes.fill(&mut sent);
        stream.write_all(&sent).await?;
        let mut length = 0;
        while length < CHUNK {
            let read = timeout(PATIENCE, stream.read(&mut received[length..])).await;
            match read.map_err(std::io::Error::from)?? {
                // All end at once.
                0 if stop.load(Ordering::Acquire) => return Ok(false),
                0 => {
                    let what = format!("a client's stream ended after {number} of {chunks} chunks");
                    record.lock().unwrap().false_ends.push((Instant::now(), what));
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                count => length += count,
            }
        }
        record.lock().unwrap().chunks += 1;
        if sent != received {
            let what = format!("chunk {number} of the stream of {seed} came back otherwise");
            record.lock().unwrap().wrong.push(what);
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        sleep(PACE).await;
    }
    stream.shutdown().await?;
    let rest = timeout(PATIENCE, stream.read(&mut received)).await.map_err(std::io::Error::from)??;
    if rest > 0 {
        record.lock().unwrap().wrong.push(format!("{rest} bytes too many in the stream of {seed}"));
    }
    Ok(true)
}

async fn serve(listener: std::net::TcpListener, record: &Arc<Mutex<StreamRecord>>, stop: &AtomicBool) {
    let listener = TcpListener::from_std(listener).unwrap();
    while !stop.load(Ordering::Acquire) {
        if let Ok(Ok((stream, _))) = timeout(PACE, listener.accept()).await {
            let record = record.clone();
            tokio::spawn(async move { send_back(stream, &record).await });
        }
    }
}

/// Sends everything back, and notices a clean end before all has come that was announced. Checks announce nothing.
async fn send_back(mut stream: TcpStream, record: &Mutex<StreamRecord>) {
    let Ok(announced) = stream.read_u64().await else { return };
    let (mut buffer, mut came) = ([0; CHUNK], 0);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) if came < announced => {
                let what = format!("a backend's stream ended after {came} of {announced} bytes");
                record.lock().unwrap().false_ends.push((Instant::now(), what));
                return;
            }
            Ok(0) | Err(_) => return,
            Ok(count) => {
                came += count as u64;
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
