//! The pipes of bulk: that they are used, come back, and can be done without. In a process of its own, because the
//! descriptors are the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use trestle_dataplane::DataPlane;
use trestle_model::{
    BackendAddress, BackendName, BackendSpec, Bind, CheckKind, ClusterState, Command, ListenerName,
    ListenerSpec, PoolName, PoolSpec,
};

#[path = "traffic/plain_settings.rs"]
mod plain_settings;

use plain_settings::plain_settings;

const MIB: usize = 1 << 20;

/// Descriptors of this process that are pipes.
fn pipes() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

/// One worker that leads `front` to `back`.
async fn plane(front: SocketAddr, back: SocketAddr) -> DataPlane {
    let (target, followed) = watch::channel(Arc::default());
    let plane = DataPlane::start(plain_settings(), followed).unwrap();
    let (pool, name) = (PoolName::parse("p").unwrap(), BackendName::parse("b").unwrap());
    let mut spec = PoolSpec::default();
    spec.health.kind = CheckKind::None;
    let mut state = ClusterState::default();
    let backend = BackendSpec::at(BackendAddress::parse(&back.to_string()).unwrap());
    let binds = vec![Bind::parse(&front.to_string()).unwrap()];
    for (index, command) in (1..).zip([
        Command::create((pool.clone(), spec)),
        Command::create((pool.clone(), name, backend)),
        Command::create((ListenerName::parse("l").unwrap(), ListenerSpec::new(binds, pool))),
    ]) {
        state.apply(index, &command).unwrap();
    }
    target.send_replace(Arc::new(state));
    plane.in_force().wait_for(|r| *r == 3).await.unwrap();
    plane
}

/// Sends 64 MiB over a connection, then a byte back; both must arrive. Answers how many pipes there were meanwhile.
fn bulk(client: TcpStream, mut backend: TcpStream) -> usize {
    let (chunk, mut seen) = (vec![7; MIB], 0);
    let reading = std::thread::spawn(move || {
        let (mut client, mut received, mut buffer) = (client, 0, vec![0; MIB]);
        while received < 64 * MIB {
            let read = client.read(&mut buffer).unwrap();
            assert!(read > 0 && buffer[..read].iter().all(|byte| *byte == 7));
            received += read;
        }
        client.write_all(b"x").unwrap();
        client
    });
    for _ in 0..64 {
        backend.write_all(&chunk).unwrap();
        seen = seen.max(pipes());
    }
    backend.read_exact(&mut [0]).unwrap();
    drop(reading.join().unwrap());
    seen
}

#[tokio::test]
async fn pipes_are_shared_and_can_be_done_without() {
    let ip = [127, 9, (std::process::id() % 256) as u8, 254];
    let listener = TcpListener::bind(SocketAddr::from((ip, 0))).unwrap();
    let front = SocketAddr::from((ip, 7100));
    let plane = plane(front, listener.local_addr().unwrap()).await;
    let connect = || {
        let client = TcpStream::connect(front).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let before = pipes();

    // With no descriptor to be had, bulk is copied. Those that are open stay so.
    let (client, backend) = connect();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    let moving = std::thread::spawn(move || {
        let (mut backend, chunk) = (backend, vec![7; MIB]);
        (0..64).for_each(|_| backend.write_all(&chunk).unwrap());
        backend
    });
    let (mut client, mut buffer, mut received) = (client, vec![0; MIB], 0);
    while received < 64 * MIB {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0 && buffer[..read].iter().all(|byte| *byte == 7));
        received += read;
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    drop((moving.join().unwrap(), client));

    let mut most = 0;
    for _ in 0..10 {
        let (client, backend) = connect();
        most = most.max(bulk(client, backend));
    }
    assert!(most > before, "no pipe was used");
    let start = Instant::now();
    while plane.open_connections() > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "connections stay open");
        std::thread::sleep(Duration::from_millis(2));
    }
    // One for each direction at most, since there was one connection at a time.
    assert!(pipes() <= before + 4, "{} descriptors of pipes, {before} before", pipes());
}
