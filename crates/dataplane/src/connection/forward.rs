//! From when both legs stand to the end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use crate::connection::handle::Handle;
use crate::observe::close_reason::CloseReason;
use crate::relay::socket::Leg;
use crate::relay::{Moved, Relay};
use crate::upstream::pool::Pool;
use crate::upstream::slot::Place;

/// A connection whose backend has accepted it.
pub(super) struct Connected {
    pub(super) backend: Leg,
    pub(super) place: Place,
    /// Where the backend is.
    pub(super) address: SocketAddr,
    pub(super) pool: Arc<Pool>,
    /// What the backend is sent before anything else.
    pub(super) first: Vec<u8>,
    /// How much of that is not the client's, in bytes.
    pub(super) header: u16,
}

/// Begins to relay. A task of its own, because a task keeps the memory of its largest moment, and connecting takes more
/// than relaying.
pub(super) fn begin(accepted: Handle, client: Leg, connected: Connected) {
    let Connected { backend, place, address, pool, first, header } = connected;
    accepted.relaying(&place.live, address);
    accepted.bound(&pool.config.spec);
    place.live.counters.connected();
    for leg in [&client, &backend] {
        leg.set_dead_peer_timeout(pool.config.spec.dead_peer_timeout);
    }
    tokio::spawn(relay(accepted, place, Relay::new(client, backend, first), header));
}

/// Relays until either side or this member ends it. Of what goes to the backend, the first `header` bytes do not count.
///
/// Not an `async fn`, which would keep its arguments twice: once as they came and once as they are used.
#[allow(clippy::manual_async_fn)]
fn relay(
    accepted: Handle,
    place: Place,
    mut relay: Relay,
    mut header: u16,
) -> impl Future<Output = ()> + Send {
    async move {
        let live = &place.live;
        let mut listening = false;
        let reason = poll_fn(|cx| {
            if !listening {
                // Once is enough: the task's waker stays the same. The epoch is read after it, so that no signal is
                // missed.
                let _ = accepted.poll_closing(cx);
                listening = true;
            }
            if let Some(reason) = live.closed(place.epoch).or_else(|| accepted.closing()) {
                relay.reset();
                return Poll::Ready(reason);
            }
            let mut moved = Moved::default();
            let ended = relay.poll(cx, &mut moved);
            if header > 0 {
                let own = u16::try_from(moved.up).unwrap_or(u16::MAX).min(header);
                header -= own;
                moved.up -= u64::from(own);
            }
            accepted.moved(moved.up, moved.down);
            live.counters.moved(moved.up, moved.down);
            ended
        })
        .await;
        drop(relay);
        // It accepts and does not serve, which its check may see sooner than at its usual time.
        if reason == CloseReason::BackendReset && accepted.unanswered() {
            live.doubt();
        }
        accepted.close(reason);
    }
}
