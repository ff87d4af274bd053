//! A data plane under test, servers behind it, clients in front of it; all on addresses of this process's own.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trestle_dataplane::{CloseReason, DataPlane, DataPlaneSettings, TrafficCounts, Verdict};
use trestle_model::{
    AdminState, BackendAddress, BackendName, BackendSpec, Bind, CheckKind, ClusterState, Command,
    HealthCheck, ListenerName, ListenerSpec, PoolName, PoolSpec,
};

use crate::patch::{BackendPatch, ListenerPatch, PoolPatch};
use crate::plain_settings::plain_settings;

/// Nothing here takes this long unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An address that no other test has: the third part is this process's, the fourth and then the second are counted.
pub(crate) fn ip() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    // 127.8.0.0/15, then 127.16.0.0/12; other files have what is between.
    let second = match next / 254 {
        network @ 0..2 => 8 + network,
        network => 14 + network,
    };
    assert!(second < 32, "one test process has 4572 addresses; use another range");
    Ipv4Addr::new(127, second as u8, (std::process::id() % 256) as u8, (next % 254) as u8 + 1).into()
}

/// An address and port that nobody uses now.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind((ip(), 0)).unwrap().local_addr().unwrap()
}

/// Waits until `condition` holds, and fails with `what` when it does not in time.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Awaits `future`, and fails with `what` when it takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in {DEADLINE:?}: {what}"))
}

pub(crate) fn pool_name(name: &str) -> PoolName {
    PoolName::parse(name).unwrap()
}

pub(crate) fn backend_name(name: &str) -> BackendName {
    BackendName::parse(name).unwrap()
}

pub(crate) fn listener_name(name: &str) -> ListenerName {
    ListenerName::parse(name).unwrap()
}

pub(crate) fn at(address: SocketAddr) -> BackendSpec {
    BackendSpec::at(BackendAddress::parse(&address.to_string()).unwrap())
}

/// A pool without checks.
pub(crate) fn unchecked() -> PoolSpec {
    PoolSpec {
        health: HealthCheck { kind: CheckKind::None, ..HealthCheck::default() },
        ..PoolSpec::default()
    }
}

/// A pool that is checked often, so that tests need not wait.
pub(crate) fn checked() -> PoolSpec {
    let often = Duration::from_millis(50);
    PoolSpec {
        health: HealthCheck { interval: often, fast_interval: often, ..HealthCheck::default() },
        ..PoolSpec::default()
    }
}

pub(crate) fn settings() -> DataPlaneSettings {
    DataPlaneSettings {
        workers: NonZeroUsize::new(2).unwrap(),
        drift_interval: Duration::from_millis(100),
        ..plain_settings()
    }
}

/// A data plane and the configuration that it follows.
pub(crate) struct Plane {
    pub(crate) plane: DataPlane,
    pub(crate) state: ClusterState,
    target: watch::Sender<Arc<ClusterState>>,
    index: u64,
}

impl Plane {
    pub(crate) fn start() -> Self {
        Self::with(settings())
    }

    pub(crate) fn with(settings: DataPlaneSettings) -> Self {
        let (target, followed) = watch::channel(Arc::default());
        let plane = DataPlane::start(settings, followed).unwrap();
        Self { plane, state: ClusterState::default(), target, index: 0 }
    }

    /// Applies a command to the configuration without telling the data plane.
    pub(crate) fn prepare(&mut self, command: Command) {
        self.index += 1;
        self.state.apply(self.index, &command).unwrap();
    }

    /// Tells the data plane of the configuration.
    pub(crate) fn publish_only(&self) {
        self.target.send_replace(Arc::new(self.state.clone()));
    }

    /// Tells the data plane of the configuration and waits until it is in force.
    pub(crate) async fn publish(&mut self) {
        let revision = self.state.revision;
        self.publish_only();
        let mut in_force = self.plane.in_force();
        soon("in force", in_force.wait_for(|r| *r >= revision)).await.unwrap();
    }

    pub(crate) async fn apply(&mut self, command: Command) {
        self.prepare(command);
        self.publish().await;
    }

    pub(crate) fn prepare_pool(&mut self, name: &str, spec: PoolSpec, backends: &[(&str, BackendSpec)]) {
        self.prepare(Command::create((pool_name(name), spec)));
        for (backend, spec) in backends {
            let (pool, name) = (pool_name(name), backend_name(backend));
            self.prepare(Command::create((pool, name, spec.clone())));
        }
    }

    pub(crate) async fn pool(&mut self, name: &str, spec: PoolSpec, backends: &[(&str, BackendSpec)]) {
        self.prepare_pool(name, spec, backends);
        self.publish().await;
    }

    pub(crate) async fn update_pool(&mut self, name: &str, patch: PoolPatch) {
        let name = pool_name(name);
        let mut spec = self.state.pools[&name].pool.spec.clone();
        patch.apply(&mut spec);
        self.apply(Command::put((name, spec))).await;
    }

    pub(crate) async fn update_backend(&mut self, pool: &str, name: &str, patch: BackendPatch) {
        let (pool, name) = (pool_name(pool), backend_name(name));
        let mut spec = self.state.backend(&pool, &name).unwrap().spec.clone();
        patch.apply(&mut spec);
        self.apply(Command::put((pool, name, spec))).await;
    }

    pub(crate) async fn admin(&mut self, pool: &str, name: &str, admin_state: AdminState) {
        self.apply(Command::put((pool_name(pool), backend_name(name), admin_state))).await;
    }

    pub(crate) async fn remove_backend(&mut self, pool: &str, name: &str) {
        let (pool, name) = (pool_name(pool), backend_name(name));
        self.apply(Command::delete((pool, name))).await;
    }

    pub(crate) fn prepare_listener(&mut self, name: &str, address: SocketAddr, pool: &str) {
        let binds = vec![Bind::parse(&address.to_string()).unwrap()];
        let spec = ListenerSpec::new(binds, pool_name(pool));
        self.prepare(Command::create((listener_name(name), spec)));
    }

    /// Adds a listener at an address of its own.
    pub(crate) async fn listener(&mut self, name: &str, pool: &str) -> SocketAddr {
        let address = free();
        self.listener_at(name, address, pool).await;
        address
    }

    pub(crate) async fn listener_at(&mut self, name: &str, address: SocketAddr, pool: &str) {
        self.prepare_listener(name, address, pool);
        self.publish().await;
    }

    pub(crate) async fn update_listener(&mut self, name: &str, patch: ListenerPatch) {
        let name = listener_name(name);
        let mut spec = self.state.listeners[&name].spec.clone();
        patch.apply(&mut spec);
        self.apply(Command::put((name, spec))).await;
    }

    pub(crate) async fn remove_listener(&mut self, name: &str) {
        self.apply(Command::delete(listener_name(name))).await;
    }

    pub(crate) fn backend_counts(&self, pool: &str, name: &str) -> TrafficCounts {
        let table = self.plane.table();
        self.plane.backend_counts(table.pools[&pool_name(pool)].backend(&backend_name(name)).unwrap())
    }

    pub(crate) fn listener_counts(&self, name: &str) -> TrafficCounts {
        self.plane.listener_counts(&self.plane.table().listeners[&listener_name(name)])
    }

    pub(crate) fn verdict(&self, pool: &str, name: &str) -> (Verdict, String) {
        let table = self.plane.table();
        let backend = table.pools[&pool_name(pool)].backend(&backend_name(name)).unwrap();
        (backend.verdict, backend.reason.to_string())
    }

    pub(crate) async fn until_verdict(&self, pool: &str, name: &str, verdict: Verdict) {
        until(&format!("{pool}/{name} is {verdict}"), || self.verdict(pool, name).0 == verdict).await;
    }

    /// Waits until the listener has counted `count` connections that ended for `reason`.
    pub(crate) async fn until_closed(&self, listener: &str, reason: CloseReason, count: u64) {
        until(&format!("{count} connections of {listener} end: {reason}"), || {
            self.listener_counts(listener).closed(reason) == count
        })
        .await;
    }

    pub(crate) fn errors(&self, listener: &str) -> Vec<String> {
        let table = self.plane.table();
        table.listeners[&listener_name(listener)].errors()
    }
}

/// A server that says its name, then echoes, then finishes when the client has.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_at(name, (ip(), 0).into()).await
    }

    pub(crate) async fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let socket = TcpListener::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = open.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                let open = counted.clone();
                open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    // A test may end a connection in any way it likes.
                    if writer.write_all(name.as_bytes()).await.is_ok() {
                        let _ = tokio::io::copy(&mut reader, &mut writer).await;
                        let _ = writer.shutdown().await;
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, accepting }
    }

    /// Stops listening; what is open goes on.
    pub(crate) async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

/// A client and the name of the server that it was led to.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) server: String,
}

impl Client {
    /// Connects and reads a name of one letter.
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        soon("a connection", async {
            let mut stream = TcpStream::connect(address).await?;
            let mut name = [0];
            stream.read_exact(&mut name).await?;
            Ok(Self { stream, server: char::from(name[0]).to_string() })
        })
        .await
    }

    /// Whether bytes still go there and back.
    pub(crate) async fn works(&mut self) -> bool {
        let mut back = [0; 4];
        soon("an echo", async {
            self.stream.write_all(b"ping").await.is_ok() && self.stream.read_exact(&mut back).await.is_ok()
        })
        .await
            && &back == b"ping"
    }

    /// How the connection ends when the client says nothing more: `None` properly, `Some` with an error.
    pub(crate) async fn end(&mut self) -> Option<std::io::ErrorKind> {
        let mut rest = Vec::new();
        soon("the end of a connection", self.stream.read_to_end(&mut rest)).await.err().map(|e| e.kind())
    }

    pub(crate) async fn finish(mut self) {
        self.stream.shutdown().await.unwrap();
        assert_eq!(self.end().await, None);
    }
}

/// The servers that connections are led to, one after another, as one word.
pub(crate) async fn servers(address: SocketAddr, count: usize) -> String {
    let mut word = String::new();
    for _ in 0..count {
        let client = Client::connect(address).await.unwrap();
        word.push_str(&client.server);
        client.finish().await;
    }
    word
}

/// Whether a connection is reset before anything is said, perhaps already as the client learns that it is connected.
pub(crate) async fn turned_away(address: SocketAddr) -> bool {
    let end = match soon("a connection", TcpStream::connect(address)).await {
        Ok(stream) => Client { stream, server: String::new() }.end().await,
        Err(error) => Some(error.kind()),
    };
    end == Some(std::io::ErrorKind::ConnectionReset)
}

/// How often `letter` is in `word`.
pub(crate) fn count(word: &str, letter: char) -> usize {
    word.chars().filter(|c| *c == letter).count()
}
