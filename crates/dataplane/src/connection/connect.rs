//! Connecting to a backend, and to others when that fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::proxy::{Tlvs, format_v1, format_v2};
use trestle_model::SendProxy;

use super::attempt::{Attempt, Target};
use super::forward::Connected;
use super::handle::Handle;
use crate::machine::shortage::Shortage;
use crate::observe::close_reason::CloseReason;
use crate::relay::socket::{Departure, Leg};
use crate::upstream::backend_runtime::Live;
use crate::upstream::dial::dial;
use crate::upstream::loop_guard::Barred;
use crate::upstream::pool::Pool;
use crate::upstream::slot::Place;
use crate::upstream::source::ConnectError;

/// Connects to the backend of the attempt, and on failure to others or at other addresses, each once, as often as the pool
/// allows.
pub(super) async fn connect(
    accepted: &Handle,
    client: &Leg,
    mut attempt: Attempt,
) -> Result<Connected, CloseReason> {
    let mut tried: Vec<Arc<Live>> = Vec::new();
    let mut dialled: Vec<SocketAddr> = Vec::new();
    loop {
        let (place, address) = match attempt.target.take() {
            Some(target) => target,
            None => {
                accepted.waiting(&attempt.pool.config.name);
                let got = served(client, &attempt, queue(&attempt, &tried)).await??;
                accepted.opening(&attempt.pool.config.name);
                got
            }
        };
        let spec = &attempt.pool.config.spec;
        let barred = accepted.shared().table.load().guard.bars(address);
        let failure = if let Some(barred) = barred {
            match barred {
                Barred::Listener | Barred::OwnPort => CloseReason::Loop,
                Barred::Network => CloseReason::BackendDenied,
            }
        } else {
            let shared = accepted.shared();
            let lacks = |shortage: &Shortage| shared.shortages.note(shortage, Duration::ZERO, Instant::now());
            let dialling = dial(address, spec.connect_timeout, &shared.source, lacks);
            match served(client, &attempt, dialling).await? {
                Ok(backend) => {
                    let (first, header) = first(accepted, &mut attempt);
                    let pool = attempt.pool;
                    return Ok(Connected { backend, place, address, pool, first, header });
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
        let live = place.live.clone();
        let counters = [&live.counters, &accepted.listener().counters];
        // What this member lacks towards one backend it may have towards another, and is no failure of the first.
        if failure != CloseReason::NoResources {
            counters.iter().for_each(|c| c.connect_failed());
            live.connect_failed(address.ip());
        }
        if dialled.len() >= spec.connect_retries as usize {
            return Err(failure);
        }
        dialled.push(address);
        attempt.target = again(accepted, &mut attempt, place, &mut tried, &dialled).ok_or(failure)?;
        counters.iter().for_each(|c| c.retried());
        accepted.retried();
    }
}

/// Where to try next, after the connect for `place` that is the last of those `dialled`: another address of that backend, or
/// else another backend, and more addresses only where there is none. The table may have moved on while the connect was under
/// way.
fn again(
    accepted: &Handle,
    attempt: &mut Attempt,
    place: Place,
    tried: &mut Vec<Arc<Live>>,
    dialled: &[SocketAddr],
) -> Option<Target> {
    let table = accepted.shared().table.load();
    let pool = table.pools.get(&attempt.pool.config.name)?;
    let address = elsewhere(pool, &place, attempt.arriving.dialled, dialled);
    let is_first = tried.last().is_none_or(|last| !Arc::ptr_eq(last, &place.live));
    attempt.pool = pool.clone();
    if let (Some(address), true) = (address, is_first) {
        tried.push(place.live.clone());
        return Some(Some((place, address)));
    }
    if is_first {
        tried.push(place.live.clone());
    }
    attempt.arriving.aim(pool, tried).or_else(|| Some(Some((place, address?))))
}

/// Another address of the backend that has a place, which was not dialled yet.
fn elsewhere(pool: &Pool, place: &Place, port: u16, dialled: &[SocketAddr]) -> Option<SocketAddr> {
    let backend = pool.backend(&place.live.name).filter(|backend| Arc::ptr_eq(&backend.live, &place.live))?;
    let port = backend.config.spec.address.port_for(port);
    let all =
        backend.ip.filter(|_| !backend.addresses.is_empty()).into_iter().chain(backend.other_addresses());
    all.map(|ip| SocketAddr::new(ip, port)).find(|address| !dialled.contains(address))
}

impl From<Departure> for CloseReason {
    fn from(departure: Departure) -> Self {
        match departure {
            Departure::Closed => Self::ClientClosed,
            Departure::Reset => Self::ClientReset,
        }
    }
}

/// Does what is to be done for a client, as long as it is there.
///
/// # Errors
/// How it went away. A server that is led to one that has gone sees a connection that says nothing, and some refuse whoever
/// comes with many of those (MariaDB's `max_connect_errors`).
async fn served<T>(client: &Leg, attempt: &Attempt, task: impl Future<Output = T>) -> Result<T, CloseReason> {
    let has_sent = attempt.greeting.as_ref().is_some_and(|greeting| !greeting.bytes.is_empty());
    tokio::select! {
        biased;
        departure = client.gone(has_sent) => Err(departure.into()),
        done = task => Ok(done),
    }
}

/// Waits for a place at a backend that is not among `tried`, and says where it is.
async fn queue(attempt: &Attempt, tried: &[Arc<Live>]) -> Result<(Place, SocketAddr), CloseReason> {
    let (pool, arriving) = (&attempt.pool, attempt.arriving);
    let (place, backend) = pool.queue.wait(arriving.source, tried.to_vec(), &pool.config.spec).await?;
    Ok((place, backend.address(arriving.dialled).ok_or(CloseReason::NoBackend)?))
}

/// What the backend is sent first: the header that its pool wants, and what was read of the client; with the length of
/// the header.
fn first(accepted: &Handle, attempt: &mut Attempt) -> (Vec<u8>, u16) {
    let greeting = attempt.greeting.take();
    let source = attempt.arriving.source;
    let dialled = || greeting.as_ref().and_then(|g| g.dialled).unwrap_or_else(|| accepted.local());
    let mut first = match attempt.pool.config.spec.send_proxy {
        SendProxy::Off => return (greeting.map(|g| g.bytes).unwrap_or_default(), 0),
        SendProxy::V1 => format_v1(source, dialled()),
        SendProxy::V2 => {
            let tlvs = greeting.as_ref().map(|g| &g.tlvs);
            format_v2(source, dialled(), tlvs.unwrap_or(&Tlvs::default()))
        }
    };
    // A header has 4096 bytes at most.
    let header = u16::try_from(first.len()).unwrap_or(u16::MAX);
    first.extend(greeting.into_iter().flat_map(|g| g.bytes));
    (first, header)
}
