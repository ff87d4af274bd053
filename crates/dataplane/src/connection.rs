//! The life of one connection: pick, connect, relay, close.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use crate::counters::Counters;
use crate::dial::dial;
use crate::leg::Leg;
use crate::live::Live;
use crate::plane::Shared;
use crate::reason::CloseReason;
use crate::relay::{Moved, Relay};
use crate::resources;
use crate::table::{Backend, Pool};

/// An accepted connection, counted as open for as long as this lives.
struct Accepted {
    shared: Arc<Shared>,
    listener: Arc<Counters>,
}

impl Accepted {
    fn new(shared: Arc<Shared>, listener: Arc<Counters>) -> Self {
        shared.opened();
        listener.connected();
        listener.opened();
        Self { shared, listener }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.listener.ended();
        self.shared.ended();
    }
}

/// A place taken at a backend, counted there for as long as this lives.
struct Place {
    live: Arc<Live>,
    epoch: u32,
}

impl Place {
    fn take(backend: &Backend) -> Self {
        backend.live.counters.opened();
        Self { live: backend.live.clone(), epoch: backend.epoch }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.counters.ended();
    }
}

/// Ends a connection with a reset, so that the peer knows at once and nothing lingers here.
pub(crate) fn reset(stream: Leg) {
    // Fails only when the peer has reset first.
    let _ = stream.set_zero_linger();
}

/// Takes over a connection from `source` that was accepted at `address`.
pub(crate) fn begin(shared: &Arc<Shared>, client: Leg, source: IpAddr, address: SocketAddr) {
    let table = shared.table.load();
    let Some(listener) = table.routes.get(&address) else {
        return reset(client);
    };
    let accepted = Accepted::new(shared.clone(), listener.counters.clone());
    let pool = table.pools.get(&listener.config.spec.pool);
    let Some((pool, backend)) = pool.and_then(|p| Some((p, p.pick(source, &[])?))) else {
        accepted.listener.closed(CloseReason::NoBackend);
        return reset(client);
    };
    let attempt = Attempt {
        source,
        place: Place::take(backend),
        address: backend.config.spec.address.to_socket(address.port()),
        dialled: address.port(),
        pool: pool.clone(),
    };
    drop(table);
    tokio::spawn(serve(accepted, client, attempt));
}

/// A connection on its way to a backend.
struct Attempt {
    /// The client's address.
    source: IpAddr,
    place: Place,
    address: SocketAddr,
    /// The port that the client dialled.
    dialled: u16,
    pool: Arc<Pool>,
}

async fn serve(accepted: Accepted, client: Leg, attempt: Attempt) {
    match connect(&accepted, attempt).await {
        Ok((backend, place)) => {
            place.live.counters.connected();
            // A task of its own, because a task keeps the memory of its largest moment, and connecting takes more than
            // relaying.
            tokio::spawn(relay(accepted, place, Relay::new(client, backend, Vec::new())));
        }
        Err(reason) => {
            accepted.listener.closed(reason);
            reset(client);
        }
    }
}

/// Relays until either side or this member ends it.
///
/// Not an `async fn`, which would keep its arguments twice: once as they came and once as they are used.
#[allow(clippy::manual_async_fn)]
fn relay(accepted: Accepted, place: Place, mut relay: Relay) -> impl Future<Output = ()> + Send {
    async move {
        let live = &place.live;
        // Pinned where it is made: moved there, it would be kept twice.
        tokio::pin! {
            let signal = live.changed.notified();
        }
        let mut listening = false;
        let reason = poll_fn(|cx| {
            if !listening {
                // Once is enough: the task's waker stays the same. The epoch is read after it, so that no signal is
                // missed.
                let _ = signal.as_mut().poll(cx);
                listening = true;
            }
            if let Some(reason) = live.closed(place.epoch) {
                relay.reset();
                return Poll::Ready(reason);
            }
            let mut moved = Moved::default();
            let ended = relay.poll(cx, &mut moved);
            for counters in [&*accepted.listener, &live.counters] {
                counters.moved(moved.up, moved.down);
            }
            ended
        })
        .await;
        accepted.listener.closed(reason);
        live.counters.closed(reason);
    }
}

/// Connects to the backend of the attempt, and on failure to others, each once, as often as the pool allows.
async fn connect(accepted: &Accepted, attempt: Attempt) -> Result<(Leg, Place), CloseReason> {
    let Attempt { source, mut place, mut address, dialled, mut pool } = attempt;
    let mut tried: Vec<Arc<Live>> = Vec::new();
    loop {
        match dial(address, pool.config.spec.connect_timeout).await {
            Ok(stream) => return Ok((stream, place)),
            Err(error) if resources::exhausted(&error) => return Err(CloseReason::NoResources),
            Err(error) => tracing::debug!(backend = %address, %error, "connect failed"),
        }
        let counters = [&place.live.counters, &*accepted.listener];
        counters.iter().for_each(|c| c.connect_failed());
        place.live.doubted.notify_one();
        if tried.len() >= pool.config.spec.connect_retries as usize {
            return Err(CloseReason::ConnectFailed);
        }
        tried.push(place.live.clone());
        // The table may have moved on while the connect was under way.
        let table = accepted.shared.table.load();
        let current = table.pools.get(&pool.config.name).and_then(|p| Some((p, p.pick(source, &tried)?)));
        let Some((current, backend)) = current else {
            return Err(CloseReason::ConnectFailed);
        };
        counters.iter().for_each(|c| c.retried());
        place = Place::take(backend);
        address = backend.config.spec.address.to_socket(dialled);
        pool = current.clone();
    }
}
