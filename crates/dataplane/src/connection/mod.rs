//! The life of one connection: greeting, pick, connect, relay, close.

mod attempt;
mod connect;
pub(crate) mod connection_table;
pub(crate) mod entry;
mod forward;
pub(crate) mod handle;
mod packed_address;
mod preamble;
mod timeouts;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use trestle_engine::access::is_admitted;
use trestle_engine::routes;
use trestle_model::{ListenerSpec, PoolName};

use crate::accept::listener::Listener;
use crate::observe::close_reason::CloseReason;
use crate::relay::socket::Leg;
use crate::table::Table;
use attempt::{Arriving, Attempt};
use connection_table::Roll;
use handle::Handle;
use preamble::{Greeting, Listening};

/// Ends a connection with a reset, so that the peer knows at once and nothing lingers here.
pub(crate) fn reset(stream: Leg) {
    // Fails only when the peer has reset first.
    let _ = stream.set_zero_linger();
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) client: Leg,
    /// Where it comes from.
    pub(crate) source: SocketAddr,
    /// The address of the socket that accepted it.
    pub(crate) address: SocketAddr,
}

/// Takes over a connection.
///
/// # Errors
/// The connection, while its listener may not have one more; see [`begin_entered`].
pub(crate) fn begin(roll: &Arc<Roll>, arrival: Arrival) -> Result<(), Arrival> {
    let table = roll.shared.table.load();
    match table.routes.get(&arrival.address) {
        None => reset(arrival.client),
        Some(listener) if listener.enter() => open(roll, &table, listener.clone(), arrival),
        Some(_) => return Err(arrival),
    }
    Ok(())
}

/// Takes over a connection that its listener has let in after it had waited.
pub(crate) fn begin_entered(roll: &Arc<Roll>, listener: Arc<Listener>, arrival: Arrival) {
    open(roll, &roll.shared.table.load(), listener, arrival);
}

fn open(roll: &Arc<Roll>, table: &Table, listener: Arc<Listener>, arrival: Arrival) {
    let Arrival { client, source, address } = arrival;
    // Behind a wildcard only the socket knows; it fails only when the client has reset.
    let local = if address.ip().is_unspecified() { client.local_addr().unwrap_or(address) } else { address };
    let accepted = Handle::open(roll, source, local, listener.clone());
    let spec = &listener.config.spec;
    let introduced = spec.accept_proxy_from.iter().any(|network| network.contains(source.ip()));
    if !introduced && let Err(reason) = vet(&accepted, source.ip()) {
        return turn_away(accepted, client, reason);
    }
    if introduced || !spec.routes.is_empty() {
        tokio::spawn(greet(accepted, client, introduced, Arriving { source, dialled: address.port() }));
        return;
    }
    let arriving = Arriving { source, dialled: address.port() };
    match arriving.lead(table, &spec.pool, None) {
        Ok(attempt) => {
            accepted.opening(&attempt.pool.config.name);
            tokio::spawn(serve(accepted, client, attempt));
        }
        Err(reason) => turn_away(accepted, client, reason),
    }
}

fn turn_away(accepted: Handle, client: Leg, reason: CloseReason) {
    reset(client);
    accepted.close(reason);
}

/// Whether a client at `ip` may come in, which then counts for that address.
fn vet(accepted: &Handle, ip: IpAddr) -> Result<(), CloseReason> {
    let listener = accepted.listener();
    let spec = &listener.config.spec;
    if !is_admitted(&spec.allow, &spec.deny, ip) {
        return Err(CloseReason::Denied);
    }
    // With this connection, which counts already.
    let free = usize::try_from(listener.counters.free(spec.max_connections)).unwrap_or(usize::MAX);
    let stay =
        listener.gate.let_in(ip, spec, free.saturating_add(1)).map_err(|_| CloseReason::SourceLimit)?;
    stay.into_iter().for_each(|stay| accepted.stays(stay));
    if accepted.counts() { Ok(()) } else { Err(CloseReason::SourceLimit) }
}

/// Listens to a client before it is led anywhere; a task of its own.
async fn greet(accepted: Handle, mut client: Leg, introduced: bool, arriving: Arriving) {
    let greeted = tokio::select! {
        biased;
        reason = poll_fn(|cx| accepted.poll_closing(cx)) => Err(reason),
        greeted = listen(&accepted, &mut client, introduced, arriving) => greeted,
    };
    match greeted {
        Ok(attempt) => {
            accepted.opening(&attempt.pool.config.name);
            tokio::spawn(serve(accepted, client, attempt));
        }
        Err(reason) => turn_away(accepted, client, reason),
    }
}

/// Reads the header of a client that is introduced by one, and its hello where there are routes, and finds its pool.
async fn listen(
    accepted: &Handle,
    client: &mut Leg,
    introduced: bool,
    mut arriving: Arriving,
) -> Result<Attempt, CloseReason> {
    let spec = &accepted.listener().config.spec;
    let mut listening = Listening::new(client);
    let mut greeting = Box::<Greeting>::default();
    if introduced {
        let header = listening.header().await?;
        greeting.tlvs = header.tlvs;
        if let Some(addresses) = header.addresses {
            arriving.source = addresses.source;
            greeting.dialled = Some(addresses.destination);
            accepted.introduced(addresses.source);
        }
        vet(accepted, arriving.source.ip())?;
    }
    let pool =
        if spec.routes.is_empty() { &spec.pool } else { route(accepted, &mut listening, spec).await? };
    greeting.bytes = listening.into_bytes();
    arriving.lead(&accepted.shared().table.load(), pool, Some(greeting))
}

/// The pool that the client's hello leads to.
async fn route<'a>(
    accepted: &Handle,
    listening: &mut Listening<'_>,
    spec: &'a ListenerSpec,
) -> Result<&'a PoolName, CloseReason> {
    let Some(hello) = listening.hello().await? else { return Ok(&spec.pool) };
    if let Some(name) = hello.server_name.as_ref().or(hello.odd_name.as_ref()) {
        accepted.asked_for(name);
    }
    let chosen = routes::choose(&spec.routes, &hello).and_then(|position| spec.routes.get(position));
    Ok(chosen.map_or(&spec.pool, |route| &route.pool))
}

/// Connects to a backend, in a task that ends there.
async fn serve(accepted: Handle, client: Leg, attempt: Attempt) {
    let connected = tokio::select! {
        biased;
        reason = poll_fn(|cx| accepted.poll_closing(cx)) => Err(reason),
        connected = connect::connect(&accepted, &client, attempt) => connected,
    };
    match connected {
        Ok(connected) => forward::begin(accepted, client, connected),
        Err(reason) => turn_away(accepted, client, reason),
    }
}
