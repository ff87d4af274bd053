//! Accepting connections at one address on one worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::acceptor::Acceptor;
use crate::connection;
use crate::plane::Shared;
use crate::resources;
use crate::worker::Done;

/// First and longest pause when there is no file descriptor for a connection that waits. Short at first, because
/// connections end all the time; bounded, because nothing tells us when a descriptor is free again.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Accepts until told to close; then accepts what waits in the queue, so that no client is turned away that the kernel
/// has already welcomed.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut listener: Acceptor,
    address: SocketAddr,
    mut closing: oneshot::Receiver<Done>,
) {
    let mut pause = PAUSE_FIRST;
    loop {
        let accepted = tokio::select! {
            biased;
            done = &mut closing => {
                empty_queue(&shared, listener, address);
                // The socket is closed; whoever waits for that goes on.
                drop(done);
                return;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, from)) => {
                pause = PAUSE_FIRST;
                connection::begin(&shared, client, from.ip(), address);
            }
            Err(error) if resources::exhausted(&error) => {
                if pause == PAUSE_FIRST {
                    tracing::warn!(%address, %error, "cannot accept a connection; it waits until one ends");
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            // The client gave up while it waited (ECONNABORTED), or one of the network errors that accept(2) says to
            // treat like it.
            Err(error) => tracing::debug!(%address, %error, "a connection ended before it was accepted"),
        }
    }
}

/// Takes what the queue holds from the socket itself, since the runtime may not have heard of it yet.
fn empty_queue(shared: &Arc<Shared>, listener: Acceptor, address: SocketAddr) {
    loop {
        match listener.try_accept() {
            Ok((client, from)) => connection::begin(shared, client, from.ip(), address),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}
