//! A member without file descriptors. In a process of its own, because the limit is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpSocket;
use tokio::sync::{Mutex, watch};
use trestle_dataplane::{CheckResult, CloseReason, DataPlane, ShortageKind, Verdict};
use trestle_model::{
    self as model, BackendAddress, BackendName, BackendSpec, Bind, CheckKind, ClientIdentity, ClusterState,
    HttpCheck, ListenerName, ListenerSpec, PoolName, PoolSpec, TlsCheck,
};

#[path = "traffic/plain_settings.rs"]
mod plain_settings;

use plain_settings::plain_settings;

const CLIENTS: u64 = 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// The limit is the process's, so that only one test at a time may run.
static ALONE: Mutex<()> = Mutex::const_new(());

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

/// An address that no other test has; the third part is this process's.
fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 9, (std::process::id() % 256) as u8, last], 7100))
}

#[tokio::test]
async fn without_descriptors_connections_wait_and_nothing_spins() {
    let _alone = ALONE.lock().await;
    let (target, followed) = watch::channel(Arc::default());
    let plane = DataPlane::start(plain_settings(), followed).unwrap();
    let front = address(255);
    let (name, pool) = (ListenerName::parse("l").unwrap(), PoolName::parse("p").unwrap());
    let mut state = ClusterState::default();
    state.apply(1, &model::Command::create((pool.clone(), PoolSpec::default()))).unwrap();
    let binds = vec![Bind::parse(&front.to_string()).unwrap()];
    let spec = ListenerSpec::new(binds, pool);
    state.apply(2, &model::Command::create((name.clone(), spec))).unwrap();
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
    let count = || plane.listener_counts(&plane.table().listeners[&name]).closed(CloseReason::NoBackend);
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

/// The descriptors that are open, which are the lowest numbers: what is free between them is filled.
fn filled() -> (Vec<File>, usize) {
    let mut fillers = Vec::new();
    loop {
        let filler = File::open("/dev/null").unwrap();
        let highest = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
        // The one of the listing itself is the highest but one, or the highest.
        let (number, highest) = (filler.as_raw_fd(), highest.max().unwrap());
        fillers.push(filler);
        if number + 1 >= highest {
            return (fillers, number as usize + 1);
        }
    }
}

/// A backend takes the connection of a check, which needs one descriptor more for a file.
#[tokio::test]
async fn a_check_that_lacks_a_descriptor_for_its_files_says_nothing_of_the_backend() {
    let _alone = ALONE.lock().await;
    // The kernel takes the connections; nobody answers.
    let backend = std::net::TcpListener::bind((address(254).ip(), 0)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| -> Arc<str> {
        let path = directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().into()
    };
    let token_file = Some(file("token", "abc"));
    let identity = ClientIdentity { certificate_file: file("cert", "none"), key_file: file("key", "none") };
    let tls = TlsCheck { identity: Some(identity), ..TlsCheck::default() };
    let kinds = [CheckKind::Http(HttpCheck { token_file, ..HttpCheck::default() }), CheckKind::Tls(tls)];
    for kind in kinds {
        let (target, followed) = watch::channel(Arc::default());
        let plane = DataPlane::start(plain_settings(), followed).unwrap();
        let (pool, name) = (PoolName::parse("p").unwrap(), BackendName::parse("b").unwrap());
        let mut spec = PoolSpec::default();
        spec.health.kind = kind.clone();
        spec.health.interval = Duration::from_millis(50);
        spec.health.fast_interval = Duration::from_millis(50);
        spec.health.timeout = Duration::from_millis(50);
        let at = BackendSpec::at(BackendAddress::from(backend.local_addr().unwrap()));
        let mut state = ClusterState::default();
        state.apply(1, &model::Command::create((pool.clone(), spec))).unwrap();
        let create = model::Command::create((pool.clone(), name.clone(), at));
        state.apply(2, &create).unwrap();
        let (fillers, used) = filled();
        // One more than there are: the check's connection. Set from within, as nothing can be started any more.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(used as u64 + 1), ..limit }).unwrap();
        target.send_replace(Arc::new(state));
        let seen = |what: &str, condition: &dyn Fn(&trestle_dataplane::Backend, u64) -> bool| {
            let start = Instant::now();
            loop {
                let table = plane.table();
                let backend = table.pools.get(&pool).and_then(|pool| pool.backend(&name)).cloned();
                let lacks = plane.shortage_counts().find(|(kind, _)| *kind == ShortageKind::Descriptors);
                if backend.as_ref().is_some_and(|backend| condition(backend, lacks.unwrap().1)) {
                    return;
                }
                assert!(start.elapsed() < DEADLINE, "{what}: {backend:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        seen("checks lack a descriptor", &|_, lacks| lacks >= 5);
        seen("nothing is said of the backend", &|backend, _| {
            let counts = plane.backend_counts(backend);
            assert_eq!(
                (backend.verdict, counts.checks_failed),
                (Verdict::Unknown, 0),
                "{kind:?}: {backend:?}"
            );
            backend.grounds().contains("not checked: this process has no file descriptor left")
        });
        setrlimit(Resource::Nofile, limit).unwrap();
        drop(fillers);
        // Read again, the files are there; what is wrong then is wrong with the backend or with them.
        seen("checks are made again", &|backend, _| {
            matches!(backend.reason, CheckResult::Wrong(_)) && backend.verdict == Verdict::Unhealthy
        });
        plane.finish(Duration::ZERO).await;
    }
}
