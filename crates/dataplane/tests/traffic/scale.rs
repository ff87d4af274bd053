//! Thousands of listeners and backends.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use trestle_dataplane::Verdict;
use trestle_model::PoolSpec;

use crate::harness::*;
use crate::patch::BackendPatch;

const LISTENERS: usize = 1_000;
const POOLS: usize = 100;
const BACKENDS: usize = 100;

/// Accepts on every loopback address, and says one letter. Has a thread of its own and a long queue, because ten
/// thousand backends that are one are checked at once.
fn everywhere() -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Fails when it was a check, which has reset it by now.
            let _ = stream.and_then(|mut s| s.write_all(b"x"));
        }
    });
    port
}

/// Prepares pools `p0` to `p99` of backends `b0` to `b99`, and listeners `l0` to `l999`; returns where those listen.
fn prepare(plane: &mut Plane, port: u16) -> Vec<SocketAddr> {
    let mut spec = PoolSpec::default();
    spec.health.interval = Duration::from_secs(10);
    for p in 0..POOLS {
        let address = |b: usize| SocketAddr::new(IpAddr::from([127, 10, p as u8, b as u8 + 1]), port);
        let names: Vec<String> = (0..BACKENDS).map(|b| format!("b{b}")).collect();
        let backends: Vec<_> =
            names.iter().enumerate().map(|(b, name)| (name.as_str(), at(address(b)))).collect();
        plane.prepare_pool(&format!("p{p}"), spec.clone(), &backends);
    }
    let ip = ip();
    let fronts: Vec<_> = (0..LISTENERS).map(|l| SocketAddr::new(ip, 20_000 + l as u16)).collect();
    for (l, front) in fronts.iter().enumerate() {
        plane.prepare_listener(&format!("l{l}"), *front, &format!("p{}", l % POOLS));
    }
    fronts
}

#[tokio::test]
async fn a_thousand_listeners_and_ten_thousand_backends() {
    let port = everywhere();
    let mut plane = Plane::start();
    let fronts = prepare(&mut plane, port);
    let start = Instant::now();
    plane.publish().await;
    let loaded = start.elapsed();
    let table = plane.plane.table();
    assert_eq!(table.listeners.values().filter(|l| l.bound().count() == 1).count(), LISTENERS);
    let healthy = || {
        let table = plane.plane.table();
        let backends = table.pools.values().flat_map(|p| &p.backends);
        backends.filter(|b| b.verdict == Verdict::Healthy).count()
    };
    until("every backend is healthy", || healthy() == POOLS * BACKENDS).await;
    let checked = start.elapsed();
    for front in &fronts {
        assert_eq!(Client::connect(*front).await.unwrap().server, "x");
    }

    let before = plane.plane.table();
    let start = Instant::now();
    const CHANGES: u32 = 20;
    for weight in 1..=CHANGES {
        let patch = BackendPatch { weight: Some(weight as u16 + 1), ..BackendPatch::default() };
        plane.update_backend("p7", "b7", patch).await;
    }
    let change = start.elapsed() / CHANGES;
    let after = plane.plane.table();
    let kept = before.pools.values().zip(after.pools.values()).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!(kept.count(), POOLS - 1, "pools that did not change were built anew");
    assert!(
        Arc::ptr_eq(&before.listeners, &after.listeners),
        "listeners that did not change were built anew"
    );
    plane.remove_listener("l0").await;
    assert!(std::net::TcpStream::connect(fronts[0]).is_err());
    eprintln!("loaded in {loaded:?}, all checked after {checked:?}, one change in {change:?}");
}
