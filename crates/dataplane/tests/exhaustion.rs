//! A member without file descriptors. In a process of its own, because the limit is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::sync::watch;
use trestle_dataplane::{CloseReason, DataPlane, Settings, Sources};
use trestle_model::{self as model, Bind, ClusterState, ListenerName, ListenerSpec, PoolName, PoolSpec};

const CLIENTS: u64 = 20;

/// Shells that wait for a line before they set this process's limit of descriptors, because there is none left to start
/// one with when it matters.
struct Limit(Child);

impl Limit {
    fn prepared(descriptors: usize) -> Self {
        let script = format!("read _ && prlimit --pid {} --nofile={descriptors}:", std::process::id());
        Self(Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap())
    }

    fn set(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

/// The statistics of the only worker's thread, open from now on; `None` while the thread has not named itself.
fn worker_statistics() -> Option<File> {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|t| t.unwrap().path());
    let named =
        |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|c| c == "trestle-data-0\n");
    Some(File::open(tasks.find(named)?.join("stat")).unwrap())
}

/// Processor time of a thread so far, in ticks of 10 ms.
fn ticks(statistics: &mut File) -> u64 {
    let mut text = String::new();
    statistics.rewind().unwrap();
    statistics.read_to_string(&mut text).unwrap();
    // proc(5): utime and stime are fields 14 and 15; the name in parentheses is field 2.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn without_descriptors_connections_wait_and_nothing_spins() {
    let (target, followed) = watch::channel(Arc::default());
    let workers = NonZeroUsize::MIN;
    let settings = Settings {
        workers,
        data_address: None,
        drift_interval: Duration::from_secs(5),
        check_directory: "/".into(),
        resolv_conf: "/etc/resolv.conf".into(),
        source: Sources::default(),
        descriptors: None,
        own_ports: Vec::new(),
        backend_networks: Vec::new(),
        access_log: None,
        member: None,
    };
    let plane = DataPlane::start(settings, followed).unwrap();
    let front = SocketAddr::from(([127, 9, (std::process::id() % 256) as u8, 255], 7100));
    let (name, pool) = (ListenerName::parse("l").unwrap(), PoolName::parse("p").unwrap());
    let mut state = ClusterState::default();
    state.apply(1, &model::Command::CreatePool { name: pool.clone(), spec: PoolSpec::default() }).unwrap();
    let binds = vec![Bind::parse(&front.to_string()).unwrap()];
    let spec = ListenerSpec::new(binds, pool);
    state.apply(2, &model::Command::CreateListener { name: name.clone(), spec }).unwrap();
    target.send_replace(Arc::new(state));
    plane.in_force().wait_for(|r| *r == 2).await.unwrap();

    let sockets: Vec<_> = (0..CLIENTS).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let start = Instant::now();
    let mut statistics = loop {
        match worker_statistics() {
            Some(found) => break found,
            None => assert!(start.elapsed() < Duration::from_secs(20), "no worker thread"),
        }
    };
    let (none, plenty) = (Limit::prepared(3), Limit::prepared(1024));
    none.set();
    let mut clients = Vec::new();
    for socket in sockets {
        clients.push(socket.connect(front).await.unwrap().into_std().unwrap());
    }
    let before = ticks(&mut statistics);
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(&mut statistics) - before;
    assert!(spent <= 20, "the worker ran for {spent} of 100 ticks while it could do nothing");
    let count = || plane.table().listeners[&name].counters.read().closed(CloseReason::NoBackend);
    assert_eq!(count(), 0);
    plenty.set();
    let start = Instant::now();
    while count() < CLIENTS {
        assert!(start.elapsed() < Duration::from_secs(20), "only {} of {CLIENTS} were accepted", count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for mut client in clients {
        client.set_nonblocking(false).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
