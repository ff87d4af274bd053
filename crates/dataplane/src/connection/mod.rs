//! One connection: preamble, backend selection, connect, forwarding, end.

mod attempt;
mod connect;
pub(crate) mod connection_table;
pub(crate) mod entry;
mod forward;
pub(crate) mod handle;
mod packed_address;
mod preamble;
pub(crate) mod relay_state;
mod timeouts;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use trestle_engine::access::is_admitted;
use trestle_engine::routes;
use trestle_model::{ListenerSpec, PoolName};

use crate::accept::listener::Listener;
use crate::observe::close_reason::CloseReason;
use crate::relay::socket::Socket;
use crate::table::Table;
use attempt::{ClientEndpoint, ConnectAttempt};
use connection_table::ConnectionTable;
use handle::ConnectionHandle;
use preamble::{Preamble, PreambleReader};

/// Ends a connection with a reset, so that the peer learns of it at once and no state is left here.
pub(crate) fn reset(stream: Socket) {
    // Fails only when the peer has reset first.
    let _ = stream.set_zero_linger();
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct AcceptedConnection {
    pub(crate) client: Socket,
    /// Where it comes from.
    pub(crate) source: SocketAddr,
    /// The address of the socket that accepted it.
    pub(crate) address: SocketAddr,
}

/// Takes over an accepted connection.
///
/// # Errors
/// The connection itself, while its listener may not have one more; see [`start_admitted`].
pub(crate) fn start(
    connections: &Arc<ConnectionTable>,
    accepted: AcceptedConnection,
) -> Result<(), AcceptedConnection> {
    let table = connections.shared.table.load();
    match table.routes.get(&accepted.address) {
        None => reset(accepted.client),
        Some(listener) if listener.try_admit() => begin(connections, &table, listener.clone(), accepted),
        Some(_) => return Err(accepted),
    }
    Ok(())
}

/// Takes over a connection that its listener has admitted after a wait.
pub(crate) fn start_admitted(
    connections: &Arc<ConnectionTable>,
    listener: Arc<Listener>,
    accepted: AcceptedConnection,
) {
    begin(connections, &connections.shared.table.load(), listener, accepted);
}

fn begin(
    connections: &Arc<ConnectionTable>,
    table: &Table,
    listener: Arc<Listener>,
    accepted: AcceptedConnection,
) {
    let AcceptedConnection { client, source, address } = accepted;
    // Behind a wildcard only the socket knows; it fails only when the client has reset.
    let local = if address.ip().is_unspecified() { client.local_addr().unwrap_or(address) } else { address };
    let connection = ConnectionHandle::open(connections, source, local, listener.clone());
    let spec = &listener.config.spec;
    let behind_proxy = spec.accept_proxy_from.iter().any(|network| network.contains(source.ip()));
    if !behind_proxy && let Err(reason) = authorize(&connection, source.ip()) {
        return reject(connection, client, reason);
    }
    if behind_proxy || !spec.routes.is_empty() {
        tokio::spawn(start_with_preamble(
            connection,
            client,
            behind_proxy,
            ClientEndpoint { source, dialled: address.port() },
        ));
        return;
    }
    let endpoint = ClientEndpoint { source, dialled: address.port() };
    match endpoint.dispatch(table, &spec.pool, None) {
        Ok(attempt) => {
            connection.set_opening(&attempt.pool.config.name);
            tokio::spawn(connect_and_forward(connection, client, attempt));
        }
        Err(reason) => reject(connection, client, reason),
    }
}

fn reject(connection: ConnectionHandle, client: Socket, reason: CloseReason) {
    reset(client);
    connection.close(reason);
}

/// Whether the listener serves a client at `ip`; if it does, the connection counts for that address.
fn authorize(connection: &ConnectionHandle, ip: IpAddr) -> Result<(), CloseReason> {
    let listener = connection.listener();
    let spec = &listener.config.spec;
    if !is_admitted(&spec.allow, &spec.deny, ip) {
        return Err(CloseReason::Denied);
    }
    // This connection counts already.
    let free = usize::try_from(listener.counters.free(spec.max_connections)).unwrap_or(usize::MAX);
    let permit = listener
        .admission
        .admit_source(ip, spec, free.saturating_add(1))
        .map_err(|_| CloseReason::SourceLimit)?;
    permit.into_iter().for_each(|permit| connection.set_permit(permit));
    if connection.try_count_client() { Ok(()) } else { Err(CloseReason::SourceLimit) }
}

/// Reads what must come first on a connection, and goes on with it; a task of its own.
async fn start_with_preamble(
    connection: ConnectionHandle,
    mut client: Socket,
    behind_proxy: bool,
    endpoint: ClientEndpoint,
) {
    let selected = tokio::select! {
        biased;
        reason = poll_fn(|cx| connection.poll_closing(cx)) => Err(reason),
        selected = read_preamble(&connection, &mut client, behind_proxy, endpoint) => selected,
    };
    match selected {
        Ok(attempt) => {
            connection.set_opening(&attempt.pool.config.name);
            tokio::spawn(connect_and_forward(connection, client, attempt));
        }
        Err(reason) => reject(connection, client, reason),
    }
}

/// Reads the PROXY header of a client behind a proxy, and its ClientHello where there are routes, and selects its pool.
async fn read_preamble(
    connection: &ConnectionHandle,
    client: &mut Socket,
    behind_proxy: bool,
    mut endpoint: ClientEndpoint,
) -> Result<ConnectAttempt, CloseReason> {
    let spec = &connection.listener().config.spec;
    let mut reader = PreambleReader::new(client, spec);
    let mut preamble = Box::<Preamble>::default();
    if behind_proxy {
        let header = reader.header().await?;
        preamble.tlvs = header.tlvs;
        if let Some(addresses) = header.addresses {
            endpoint.source = addresses.source;
            preamble.dialled = Some(addresses.destination);
            connection.set_client(addresses.source);
        }
        authorize(connection, endpoint.source.ip())?;
    }
    let pool = if spec.routes.is_empty() { &spec.pool } else { route(connection, &mut reader, spec).await? };
    preamble.bytes = reader.into_bytes();
    endpoint.dispatch(&connection.shared().table.load(), pool, Some(preamble))
}

/// The pool that the client's ClientHello is routed to.
async fn route<'a>(
    connection: &ConnectionHandle,
    reader: &mut PreambleReader<'_>,
    spec: &'a ListenerSpec,
) -> Result<&'a PoolName, CloseReason> {
    let Some(hello) = reader.hello().await? else { return Ok(&spec.pool) };
    if let Some(name) = hello.server_name.as_ref().or(hello.odd_name.as_ref()) {
        connection.set_server_name(name);
    }
    let chosen = routes::choose(&spec.routes, &hello).and_then(|position| spec.routes.get(position));
    Ok(chosen.map_or(&spec.pool, |route| &route.pool))
}

/// Connects to a backend; the task ends when forwarding begins.
async fn connect_and_forward(connection: ConnectionHandle, client: Socket, attempt: ConnectAttempt) {
    let connected = tokio::select! {
        biased;
        reason = poll_fn(|cx| connection.poll_closing(cx)) => Err(reason),
        connected = connect::connect(&connection, &client, attempt) => connected,
    };
    match connected {
        Ok(connected) => forward::begin(connection, client, connected),
        Err(reason) => reject(connection, client, reason),
    }
}
