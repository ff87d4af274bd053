//! Connecting to a backend, and to others when that fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::proxy::{Tlvs, format_v1, format_v2};
use trestle_model::SendProxy;

use super::attempt::{ConnectAttempt, SelectedBackend};
use super::forward::Connected;
use super::handle::ConnectionHandle;
use crate::machine::shortage::Shortage;
use crate::observe::close_reason::CloseReason;
use crate::relay::socket::{PeerGone, Socket};
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::dial::dial;
use crate::upstream::loop_guard::Barred;
use crate::upstream::pool::Pool;
use crate::upstream::slot::ConnectionSlot;
use crate::upstream::source::ConnectError;

/// Connects to the backend of the attempt, and on failure to others or at other addresses, each once, as often as the pool
/// allows.
pub(super) async fn connect(
    connection: &ConnectionHandle,
    client: &Socket,
    mut attempt: ConnectAttempt,
) -> Result<Connected, CloseReason> {
    let mut tried: Vec<Arc<BackendRuntime>> = Vec::new();
    let mut dialled: Vec<SocketAddr> = Vec::new();
    loop {
        let (slot, address) = match attempt.target.take() {
            Some(target) => target,
            None => {
                connection.set_waiting(&attempt.pool.config.name);
                let got = while_present(client, &attempt, queue(&attempt, &tried)).await??;
                connection.set_opening(&attempt.pool.config.name);
                got
            }
        };
        let spec = &attempt.pool.config.spec;
        let barred = connection.shared().table.load().loop_guard.bars(address);
        let failure = if let Some(barred) = barred {
            match barred {
                Barred::Listener | Barred::OwnPort => CloseReason::Loop,
                Barred::Network => CloseReason::BackendDenied,
            }
        } else {
            let shared = connection.shared();
            let lacks = |shortage: &Shortage| shared.shortages.note(shortage, Duration::ZERO, Instant::now());
            let dialling = dial(address, spec.connect_timeout, &shared.source, lacks);
            match while_present(client, &attempt, dialling).await? {
                Ok(backend) => {
                    let (first, header) = first_bytes(connection, &mut attempt);
                    let pool = attempt.pool;
                    return Ok(Connected { backend, slot, address, pool, first, header });
                }
                Err(ConnectError::Own(shortage)) => {
                    tracing::debug!(backend = %address, %shortage, "not connected");
                    lacks(&shortage);
                    CloseReason::NoResources
                }
                Err(ConnectError::Peer(error)) => {
                    tracing::debug!(backend = %address, %error, "connect failed");
                    CloseReason::ConnectFailed
                }
            }
        };
        let runtime = slot.runtime.clone();
        let counters = [&runtime.counters, &connection.listener().counters];
        // What this member lacks towards one backend it may have towards another, and it is no failure of the backend.
        if failure != CloseReason::NoResources {
            counters.iter().for_each(|c| c.record_connect_failure());
            runtime.record_connect_failure(address.ip());
        }
        if dialled.len() >= spec.connect_retries as usize {
            return Err(failure);
        }
        dialled.push(address);
        attempt.target = select_next(connection, &mut attempt, slot, &mut tried, &dialled).ok_or(failure)?;
        counters.iter().for_each(|c| c.record_retry());
        connection.record_retry();
    }
}

/// Selects where to connect next, after the connect for `slot` that is the last of those `dialled`: another address of that
/// backend, or else another backend, and more addresses only where there is none. The table may have changed during the
/// connect.
fn select_next(
    connection: &ConnectionHandle,
    attempt: &mut ConnectAttempt,
    slot: ConnectionSlot,
    tried: &mut Vec<Arc<BackendRuntime>>,
    dialled: &[SocketAddr],
) -> Option<SelectedBackend> {
    let table = connection.shared().table.load();
    let pool = table.pools.get(&attempt.pool.config.name)?;
    let address = other_address(pool, &slot, attempt.endpoint.dialled, dialled);
    let is_first = tried.last().is_none_or(|last| !Arc::ptr_eq(last, &slot.runtime));
    attempt.pool = pool.clone();
    if let (Some(address), true) = (address, is_first) {
        tried.push(slot.runtime.clone());
        return Some(Some((slot, address)));
    }
    if is_first {
        tried.push(slot.runtime.clone());
    }
    attempt.endpoint.select_backend(pool, tried).or_else(|| Some(Some((slot, address?))))
}

/// Another address of the backend that has a place, which was not dialled yet.
fn other_address(
    pool: &Pool,
    slot: &ConnectionSlot,
    port: u16,
    dialled: &[SocketAddr],
) -> Option<SocketAddr> {
    let backend =
        pool.backend(&slot.runtime.name).filter(|backend| Arc::ptr_eq(&backend.runtime, &slot.runtime))?;
    let port = backend.config.spec.address.port_for(port);
    let all =
        backend.ip.filter(|_| !backend.addresses.is_empty()).into_iter().chain(backend.other_addresses());
    all.map(|ip| SocketAddr::new(ip, port)).find(|address| !dialled.contains(address))
}

impl From<PeerGone> for CloseReason {
    fn from(departure: PeerGone) -> Self {
        match departure {
            PeerGone::Closed => Self::ClientClosed,
            PeerGone::Reset => Self::ClientReset,
        }
    }
}

/// Runs `task` as long as the client is present.
///
/// # Errors
/// How the client went away. A server that is connected to for a client that has gone sees a connection that says nothing, and
/// some refuse clients with many of those (MariaDB's `max_connect_errors`).
async fn while_present<T>(
    client: &Socket,
    attempt: &ConnectAttempt,
    task: impl Future<Output = T>,
) -> Result<T, CloseReason> {
    let has_sent = attempt.preamble.as_ref().is_some_and(|preamble| !preamble.bytes.is_empty());
    tokio::select! {
        biased;
        departure = client.until_gone(has_sent) => Err(departure.into()),
        done = task => Ok(done),
    }
}

/// Waits for a slot at a backend that is not among `tried`, and returns it with the backend's address.
async fn queue(
    attempt: &ConnectAttempt,
    tried: &[Arc<BackendRuntime>],
) -> Result<(ConnectionSlot, SocketAddr), CloseReason> {
    let (pool, endpoint) = (&attempt.pool, attempt.endpoint);
    let (slot, backend) = pool.queue.wait(endpoint.source, tried.to_vec(), &pool.config.spec).await?;
    Ok((slot, backend.address(endpoint.dialled).ok_or(CloseReason::NoBackend)?))
}

/// What the backend is sent first: the header that its pool wants, and what was read of the client; with the length of
/// the header.
fn first_bytes(connection: &ConnectionHandle, attempt: &mut ConnectAttempt) -> (Vec<u8>, u16) {
    let preamble = attempt.preamble.take();
    let source = attempt.endpoint.source;
    let dialled = || preamble.as_ref().and_then(|g| g.dialled).unwrap_or_else(|| connection.local());
    let mut first = match attempt.pool.config.spec.send_proxy {
        SendProxy::Off => return (preamble.map(|g| g.bytes).unwrap_or_default(), 0),
        SendProxy::V1 => format_v1(source, dialled()),
        SendProxy::V2 => {
            let tlvs = preamble.as_ref().map(|g| &g.tlvs);
            format_v2(source, dialled(), tlvs.unwrap_or(&Tlvs::default()))
        }
    };
    // A header has 4096 bytes at most.
    let header = u16::try_from(first.len()).unwrap_or(u16::MAX);
    first.extend(preamble.into_iter().flat_map(|g| g.bytes));
    (first, header)
}
