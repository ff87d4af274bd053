//! A connection as it was at one moment, for lists and logs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_model::{BackendName, ListenerName, PoolName};

/// A connection as it was at one moment.
#[derive(Debug, Clone)]
pub struct ConnectionSnapshot {
    /// The connection's number. Numbers count from 1 on this member, and each is used once in the member's life.
    pub id: u64,
    /// The client's address; where the listener accepts PROXY headers, the one that the header names.
    pub client: SocketAddr,
    /// The listener that accepted it.
    pub listener: ListenerName,
    /// The address that the client dialled.
    pub local: SocketAddr,
    /// The pool that the connection goes to; `None` while that is not known.
    pub pool: Option<PoolName>,
    /// The backend, once the connection to it is established.
    pub backend: Option<BackendName>,
    /// The backend's address.
    pub backend_address: Option<SocketAddr>,
    /// The server name in the client's TLS ClientHello, where the listener has routes.
    pub server_name: Option<Arc<str>>,
    /// How far the connection has come.
    pub state: ConnectionState,
    /// When the connection was accepted.
    pub opened: Instant,
    /// The time from then until the backend was connected, including waiting in the queue and failed connects.
    pub connect_time: Option<Duration>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionState {
    /// This member reads what comes first, selects a backend, or connects to it.
    Opening,
    /// The connection waits for a slot at a backend.
    Waiting,
    /// The client's and the backend's socket are connected.
    Relaying,
}
