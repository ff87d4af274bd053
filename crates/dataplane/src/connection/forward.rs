//! Forwarding: from when both sides are connected to the end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use crate::connection::handle::ConnectionHandle;
use crate::observe::close_reason::CloseReason;
use crate::relay::socket::Socket;
use crate::relay::{Relay, RelayedBytes};
use crate::upstream::pool::Pool;
use crate::upstream::slot::ConnectionSlot;

/// A connection whose backend has accepted it.
pub(super) struct Connected {
    pub(super) backend: Socket,
    pub(super) slot: ConnectionSlot,
    /// Where the backend is.
    pub(super) address: SocketAddr,
    pub(super) pool: Arc<Pool>,
    /// What the backend is sent before anything else.
    pub(super) first: Vec<u8>,
    /// How much of that is not the client's, in bytes.
    pub(super) header: u16,
}

/// Begins to relay, in a task of its own: a task keeps the memory of its largest state, and connecting takes more than
/// relaying.
pub(super) fn begin(connection: ConnectionHandle, client: Socket, connected: Connected) {
    let Connected { backend, slot, address, pool, first, header } = connected;
    connection.set_relaying(&slot.runtime, address);
    connection.set_timeouts(&pool.config.spec);
    slot.runtime.counters.record_connection();
    for socket in [&client, &backend] {
        socket.set_dead_peer_timeout(pool.config.spec.dead_peer_timeout);
    }
    tokio::spawn(relay(connection, slot, Relay::new(client, backend, first), header));
}

/// Relays until either side or this member ends it. Of what goes to the backend, the first `header` bytes do not count.
///
/// Not an `async fn`, which would keep its arguments twice: once as they came and once as they are used.
#[allow(clippy::manual_async_fn)]
fn relay(
    connection: ConnectionHandle,
    slot: ConnectionSlot,
    mut relay: Relay,
    mut header: u16,
) -> impl Future<Output = ()> + Send {
    async move {
        let runtime = &slot.runtime;
        let mut registered = false;
        let reason = poll_fn(|cx| {
            if !registered {
                // Once is enough: the task's waker stays the same. The epoch is read after it, so that no signal is
                // missed.
                let _ = connection.poll_closing(cx);
                registered = true;
            }
            if let Some(reason) = runtime.closed(slot.epoch).or_else(|| connection.closing()) {
                relay.reset();
                return Poll::Ready(reason);
            }
            let mut moved = RelayedBytes::default();
            let ended = relay.poll(cx, &mut moved);
            if header > 0 {
                let own = u16::try_from(moved.up).unwrap_or(u16::MAX).min(header);
                header -= own;
                moved.up -= u64::from(own);
            }
            connection.record_bytes(moved.up, moved.down);
            runtime.counters.record_bytes(moved.up, moved.down);
            ended
        })
        .await;
        drop(relay);
        // The backend accepts and does not serve, which an early check may find sooner.
        if reason == CloseReason::BackendReset && connection.is_unanswered() {
            runtime.request_recheck();
        }
        connection.close(reason);
    }
}
