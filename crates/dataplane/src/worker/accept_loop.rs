//! Accepting connections at one address on one worker.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::accept::acceptor::Acceptor;
use crate::accept::listener::Listener;
use crate::connection::connection_table::ConnectionTable;
use crate::connection::relay_state::RelayState;
use crate::connection::{self, AcceptedConnection};
use crate::machine::budget::Budget;
use crate::machine::shortage::Shortage;
use crate::relay::socket::Socket;

use super::command::Done;

/// First and longest pause when there is no file descriptor for a connection that waits. Short at first, because
/// connections end all the time; bounded, because nothing tells us when a descriptor is free again.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Accepts until told to close; then accepts what waits in the queue, so that no client is reset with which the kernel has
/// already established a connection.
pub(crate) async fn run(
    connections: Arc<ConnectionTable>,
    mut listener: Acceptor,
    address: SocketAddr,
    mut closing: oneshot::Receiver<Done>,
) {
    let mut pause = PAUSE_FIRST;
    loop {
        let accepted = tokio::select! {
            biased;
            done = &mut closing => {
                empty_queue(&connections, listener, address);
                // The socket is closed; the reconciler, which waits for that, goes on.
                drop(done);
                return;
            }
            accepted = accept(&mut listener, &connections.shared.budget) => accepted,
        };
        match accepted {
            Ok((client, from)) => {
                pause = PAUSE_FIRST;
                let accepted = AcceptedConnection { client, source: from, address };
                let Err(accepted) = connection::start(&connections, accepted) else { continue };
                // No other connection is accepted meanwhile: clients that come now wait in the backlog.
                tokio::select! {
                    biased;
                    done = &mut closing => {
                        connection::reset(accepted.client);
                        drop((listener, done));
                        return;
                    }
                    // A client that has gone takes no other client's turn.
                    _ = accepted.client.until_gone(false) => connection::reset(accepted.client),
                    listener = wait_for_admission(&connections.shared, address) => match listener {
                        Some(listener) => connection::start_admitted(&connections, listener, accepted),
                        None => connection::reset(accepted.client),
                    },
                }
            }
            Err(error) if Shortage::of(&error).is_some() => {
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

/// Accepts a connection once there are descriptors for one.
async fn accept(listener: &mut Acceptor, budget: &Budget) -> io::Result<(Socket, SocketAddr)> {
    loop {
        budget.room().await;
        // Asked again whenever a connection is there, since others may have used the room while none was.
        let accepted = poll_fn(|cx| match budget.has_room() {
            true => listener.poll_accept(cx).map(Some),
            false => Poll::Ready(None),
        });
        if let Some(accepted) = accepted.await {
            return accepted;
        }
    }
}

/// Takes what the queue holds from the socket itself, since the runtime may not have heard of it yet.
fn empty_queue(connections: &Arc<ConnectionTable>, listener: Acceptor, address: SocketAddr) {
    loop {
        match listener.try_accept() {
            Ok((client, source)) => {
                // Once the listener has all that it may have, the others go with the socket.
                if let Err(accepted) =
                    connection::start(connections, AcceptedConnection { client, source, address })
                {
                    return connection::reset(accepted.client);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

/// Waits until the listener at `address` may have one more connection, and counts that; `None` when it is gone.
async fn wait_for_admission(shared: &RelayState, address: SocketAddr) -> Option<Arc<Listener>> {
    let current = || shared.table.load().routes.get(&address).cloned();
    loop {
        let admission = current()?.admission.clone();
        let replaced = admission.until_replaced();
        tokio::pin!(replaced);
        replaced.as_mut().enable();
        // Looked up again: from here on the admission tells of what is published.
        let listener = current()?;
        if !Arc::ptr_eq(&admission, &listener.admission) {
            continue;
        }
        tokio::select! {
            biased;
            () = listener.admit() => {}
            () = replaced => continue,
        }
        return Some(listener);
    }
}
