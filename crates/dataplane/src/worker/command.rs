//! What the reconciler tells a worker.

use std::net::{SocketAddr, TcpListener};

use tokio::sync::{mpsc, oneshot};

/// Dropped by each worker that has done what was asked.
pub(crate) type Done = mpsc::Sender<()>;

/// What the reconciler tells a worker.
#[derive(Debug)]
pub(crate) enum WorkerCommand {
    /// Accept connections here.
    Listen(SocketAddr, TcpListener),
    /// Accept what waits at this address, then close the socket.
    Close(SocketAddr, Done),
    /// Answer, to show that this thread runs.
    Ping(oneshot::Sender<()>),
}
