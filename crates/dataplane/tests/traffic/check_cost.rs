//! What checks cost. Prints; run alone and optimised:
//! `cargo test --release -p trestle-dataplane --test traffic -- --ignored --nocapture what_checks_cost`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;
use trestle_dataplane::Verdict;
use trestle_model::{CheckKind, HttpCheck, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};

const BACKENDS: usize = 1_000;

/// Time on the CPU of every prober in this process.
fn spent() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let probers = tasks.filter(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "trestle-probe\n")
    });
    let nanoseconds = probers.map(|task| {
        let statistics = std::fs::read_to_string(task.join("schedstat")).unwrap();
        statistics.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Listens on every loopback address, with room for everybody at once.
fn everywhere() -> (TcpListener, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    let listener = socket.listen(4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Prints what `checks` checks cost once every backend is known, at [`BACKENDS`] checks in each `interval`. Returns the
/// data plane, for what it has spent counts only as long as it is there.
async fn measure(what: &str, kind: CheckKind, port: u16, interval: Duration, checks: u64) -> Plane {
    let mut plane = Plane::start();
    let names: Vec<String> = (0..BACKENDS).map(|b| format!("b{b}")).collect();
    let address =
        |b: usize| SocketAddr::new(IpAddr::from([127, 11, (b / 250) as u8, (b % 250) as u8 + 1]), port);
    let backends: Vec<_> =
        names.iter().enumerate().map(|(b, name)| (name.as_str(), at(address(b)))).collect();
    let mut spec = checked_by(kind, PATIENT);
    (spec.health.interval, spec.health.fast_interval) = (interval, interval);
    plane.pool("p", spec, &backends).await;
    until("every backend is healthy", || {
        let table = plane.plane.table();
        let pool = &table.pools[&pool_name("p")];
        pool.backends.iter().filter(|b| b.verdict == Verdict::Healthy).count() == BACKENDS
    })
    .await;
    let done = || {
        let table = plane.plane.table();
        let pool = &table.pools[&pool_name("p")];
        pool.backends
            .iter()
            .map(|b| plane.plane.backend_counts(b))
            .map(|c| c.checks_ok + c.checks_failed)
            .sum::<u64>()
    };
    // From the second check on they are spread over the interval.
    until("a few checks each", || done() >= 3 * BACKENDS as u64).await;
    let (before, first, start) = (spent(), done(), Instant::now());
    while done() < first + checks {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (cost, checks, time) = (spent() - before, done() - first, start.elapsed());
    let each = cost.as_secs_f64() * 1e6 / checks as f64;
    eprintln!("{what}: {each:.1} us of CPU for each of {checks} checks in {time:.1?}");
    // Quiet from now on.
    let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    plane
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure, of which none is asserted"]
async fn what_checks_cost() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (plain, plain_port) = everywhere();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            tokio::spawn(async move {
                if stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(ANSWER).await;
                }
            });
        }
    });
    let (secure, secure_port) = everywhere();
    let config = Arc::new(self_signed(30));
    tokio::spawn(async move {
        while let Ok((stream, _)) = secure.accept().await {
            let accepting = TlsAcceptor::from(config.clone()).accept(stream);
            tokio::spawn(async move {
                let Ok(mut stream) = accepting.await else { return };
                if stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(ANSWER).await;
                }
            });
        }
    });
    let (at_most, seldom) = (Duration::from_millis(100), Duration::from_millis(500));
    let _kept = [
        measure("TCP", CheckKind::Tcp, plain_port, at_most, 50_000).await,
        measure("HTTP", CheckKind::Http(HttpCheck::default()), plain_port, seldom, 10_000).await,
        measure("TLS", CheckKind::Tls(TlsCheck::default()), secure_port, seldom, 10_000).await,
        measure("HTTPS", CheckKind::Http(over_tls(TlsCheck::default())), secure_port, seldom, 10_000).await,
    ];
}
