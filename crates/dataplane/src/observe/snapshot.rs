//! A connection as it was at one moment, for lists and logs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_model::{BackendName, ListenerName, PoolName};

/// A connection as it was at one moment.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its number: counted from 1 on this member, and used once in the member's life.
    pub id: u64,
    /// The client's address; as the proxy before this one says, if the listener goes by that.
    pub client: SocketAddr,
    /// The listener that accepted it.
    pub listener: ListenerName,
    /// The address that the client dialled.
    pub local: SocketAddr,
    /// The pool that it goes to; `None` while that is not known.
    pub pool: Option<PoolName>,
    /// The backend, once it is connected to one.
    pub backend: Option<BackendName>,
    /// Where that is.
    pub backend_address: Option<SocketAddr>,
    /// The server name in the client's TLS hello, where the listener's routes go by it.
    pub server_name: Option<Arc<str>>,
    /// What it is doing.
    pub state: ConnectionState,
    /// When it was accepted.
    pub opened: Instant,
    /// How long it took from then until the backend was connected; with the time that it waited and was tried elsewhere.
    pub connect_time: Option<Duration>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionState {
    /// It is on its way to a backend.
    Opening,
    /// It waits for a place at a backend.
    Waiting,
    /// Its two legs are connected.
    Relaying,
}
