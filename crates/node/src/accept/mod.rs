//! Accepting connections at this member's own ports: admin API, peers, HTTP.
//!
//! Whoever reaches a port may open connections and calls before anybody knows who it is, so that what is *held* for them is
//! bounded here, for all ports in the same way: connections (of which those that wait for their clients give way), requests
//! that are on their way, calls that are worked on, answers that nobody fetches, and bytes. One address has a share of each.
//! What is over a bound is refused at once; nothing queues.
//!
//! A connection passes through [`MonitoredIo`], which notes its progress, and then through the [`ServerTransport`] to what
//! serves it.

mod admission;
mod calls;
mod connection;
mod grpc;
mod http;
mod listener;
mod peer_groups;
mod plain_callers;
mod refusal_log;
mod session;
mod transport;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use admission::{AdmittedConnections, NotAdmitted};
use calls::CallLimiter;
use connection::PortConnection;
pub(crate) use connection::{MonitoredIo, PortDeadlines};
pub(crate) use grpc::{Client, Grpc, Guard, Http2};
pub(crate) use http::Http1;
pub(crate) use listener::{ClientSource, ConnectionOrigin, ListeningSocket, UnixCredentials};
pub(crate) use plain_callers::{PlainCallerSeen, PlainCallers};
pub(crate) use refusal_log::RefusalLog;
use session::AfterEnd;
pub(crate) use session::{CallingUser, Door, OpensTo, Proof};
pub(crate) use transport::{EstablishedIo, ServerTransport};

/// How often deadlines are looked at.
const DEADLINE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause when this process has no file descriptor for a connection that waits. Nothing tells when there is one again, and to
/// try at once would keep a thread busy.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How long open calls may go on after the stop; idle HTTP/2 connections would otherwise hold it up for ever (hyper #4170).
const STOP_GRACE: Duration = Duration::from_secs(1);

/// How many connections a port holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortLimits {
    /// Altogether, but for `own` and lanes.
    pub(crate) connections: usize,
    /// From one address.
    pub(crate) per_source: usize,
    /// The last of `connections`, which only an address gets that has none.
    pub(crate) newcomers: usize,
    /// From members' addresses or local root, beside all others.
    pub(crate) own: usize,
    /// Connections that carry Raft, beside all others.
    pub(crate) lanes: usize,
}

impl PortLimits {
    /// A quarter for one address, and a sixteenth for those that have none.
    pub(crate) fn of(connections: usize) -> Self {
        Self {
            connections,
            per_source: (connections / 4).max(16).min(connections),
            newcomers: connections / 16,
            own: 0,
            lanes: 0,
        }
    }

    /// A quarter as many again, and half as many lanes, for members.
    pub(crate) fn with_members(self) -> Self {
        Self { own: self.connections / 4, lanes: self.connections / 2, ..self }
    }

    /// A quarter as many again for local root.
    pub(crate) fn with_local_root(self) -> Self {
        Self { own: self.connections / 4, ..self }
    }

    /// Most file descriptors that the port takes.
    pub(crate) fn descriptors(self) -> usize {
        self.connections + self.own + self.lanes
    }
}

/// What a port has counted since the start.
#[derive(Debug, Default)]
pub(crate) struct PortCounters {
    /// Connections that were refused, or gave way to others.
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Connections that were closed because a deadline had passed.
    pub(crate) expired: AtomicU64,
    /// Calls that were refused because too many were held.
    pub(crate) calls_refused: AtomicU64,
}

/// Answers whether connections of a source have places of their own: a member of the cluster is known to be at that address,
/// or the user may do everything on this machine anyway.
pub(crate) type IsOwn = Arc<dyn Fn(ClientSource) -> bool + Send + Sync>;

/// One own port.
pub(crate) struct ServicePort {
    /// As metrics and log name it.
    pub(crate) name: &'static str,
    deadlines: PortDeadlines,
    is_own: IsOwn,
    admission: Mutex<AdmittedConnections>,
    calls: Arc<CallLimiter>,
    pub(crate) counters: PortCounters,
    refusal_log: RefusalLog,
    transport: ServerTransport,
}

/// Serves the connections of one port.
pub(crate) trait Serve<Io>: Send + Sync + 'static {
    /// Serves one until it ends; in the words of the log, what its peer did wrong, if it did.
    fn serve(
        &self,
        port: Arc<ServicePort>,
        connection: Arc<PortConnection>,
        io: EstablishedIo<Io>,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), &'static str>> + Send;
}

/// A connection's place, given back when this is dropped.
struct ConnectionPermit(Arc<ServicePort>, Arc<PortConnection>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.admission().remove(self.1.number);
    }
}

impl ServicePort {
    pub(crate) fn new(
        name: &'static str,
        limits: PortLimits,
        deadlines: PortDeadlines,
        is_own: IsOwn,
    ) -> Self {
        Self {
            name,
            deadlines,
            is_own,
            admission: Mutex::new(AdmittedConnections::new(limits)),
            calls: Arc::default(),
            counters: PortCounters::default(),
            refusal_log: RefusalLog::default(),
            transport: ServerTransport::Plain,
        }
    }

    /// The same port, where users or members are let in by TLS too.
    pub(crate) fn with_tls(self, door: Door) -> Self {
        Self { transport: ServerTransport::PlainOrTls(Arc::new(door)), ..self }
    }

    fn admission(&self) -> MutexGuard<'_, AdmittedConnections> {
        // Whole between any two statements that can panic.
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.admission().len()
    }

    fn admit(self: &Arc<Self>, number: u64, origin: ConnectionOrigin) -> Option<ConnectionPermit> {
        let now = Instant::now();
        let connection = Arc::new(PortConnection::new(number, origin, now));
        let source = connection.source;
        let own = (self.is_own)(source);
        let admitted = self.admission().admit(connection.clone(), own, now);
        match admitted {
            Ok(evicted) => {
                if let Some(evicted) = evicted {
                    self.counters.evicted.fetch_add(1, Relaxed);
                    self.refusal_log.tell(
                        self.name,
                        evicted.source,
                        "it waited, and another needed its place",
                    );
                }
                Some(ConnectionPermit(self.clone(), connection))
            }
            Err(refused) => {
                self.counters.refused.fetch_add(1, Relaxed);
                let what = match refused {
                    NotAdmitted::Share => "its address has all the connections that one may have here",
                    NotAdmitted::Full => "this port has all the connections that it may have",
                };
                self.refusal_log.tell(self.name, source, what);
                None
            }
        }
    }

    /// Looks at all deadlines.
    fn enforce_deadlines(&self) {
        let now = Instant::now();
        let over: Vec<_> = self
            .admission()
            .each()
            .filter_map(|connection| Some((connection.source, connection.check(&self.deadlines, now)?)))
            .collect();
        for (source, why) in over {
            self.counters.expired.fetch_add(1, Relaxed);
            self.refusal_log.tell(self.name, source, why);
        }
    }

    fn shortage(&self, error: &io::Error) {
        let made = self.admission().make_room(Instant::now());
        self.refusal_log.tell(
            self.name,
            ClientSource::Local,
            "file descriptors or memory ran out on this machine",
        );
        tracing::debug!(port = self.name, %error, made, "cannot accept");
    }
}

/// Whether an error says that file descriptors or memory ran out here (accept(2)).
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::NFILE, Errno::MFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|known| errno == Some(known.raw_os_error()))
}

/// Serves one connection until it ends, its member is one no more, or `abort`.
async fn serve_connection<Io, S>(
    place: ConnectionPermit,
    io: Io,
    serve: Arc<S>,
    stop: CancellationToken,
    abort: CancellationToken,
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Serve<Io>,
{
    let (port, connection) = (place.0.clone(), place.1.clone());
    let watched = MonitoredIo::new(io, connection.clone(), port.calls.clone());
    let serving = async {
        let io = match port.transport.establish(watched, &connection).await {
            Ok(io) => io,
            Err(refused) => {
                port.counters.refused.fetch_add(1, Relaxed);
                port.refusal_log.tell_more(port.name, connection.source, refused.what, &refused.detail);
                return Ok(());
            }
        };
        let serving = serve.serve(port.clone(), connection.clone(), io, stop);
        let Some(session) = connection.session() else { return serving.await };
        let closed = async {
            match session.follow().await {
                AfterEnd::Closed => return,
                AfterEnd::Left => connection.leave(),
                AfterEnd::Open => {}
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = serving => ended,
            () = closed => Ok(()),
        }
    };
    let ended = tokio::select! {
        biased;
        () = connection.aborted() => return,
        () = abort.cancelled() => return,
        ended = serving => ended,
    };
    if let Err(what) = ended {
        port.refusal_log.tell(port.name, connection.source, what);
    }
}

/// Accepts and serves until the stop, and a little longer for calls that are under way.
pub(crate) async fn run<L, S>(listener: L, port: Arc<ServicePort>, serve: S, stop: CancellationToken)
where
    L: ListeningSocket,
    S: Serve<L::Io>,
    L::Io: AsyncRead + AsyncWrite,
{
    let (serve, tasks, abort) = (Arc::new(serve), TaskTracker::new(), CancellationToken::new());
    let mut ticks = interval(DEADLINE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {
                port.enforce_deadlines();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (io, origin) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_shortage(&error) => {
                port.shortage(&error);
                sleep(SHORTAGE_PAUSE).await;
                continue;
            }
            // The client gave up while it waited, or one of the network errors that accept(2) says to treat like it.
            Err(error) => {
                tracing::debug!(port = port.name, %error, "a connection ended before it was accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        number += 1;
        let Some(place) = port.admit(number, origin) else {
            L::refuse(io);
            continue;
        };
        tasks.spawn(serve_connection(place, io, serve.clone(), stop.clone(), abort.clone()));
    }
    drop(listener);
    tasks.close();
    if timeout(STOP_GRACE, tasks.wait()).await.is_err() {
        abort.cancel();
        if timeout(STOP_GRACE, tasks.wait()).await.is_err() {
            error!(port = port.name, "connections do not end");
        }
    }
}

#[cfg(test)]
mod tests;
