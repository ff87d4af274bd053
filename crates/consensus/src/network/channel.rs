//! Connections to other members: made when first used, probed while idle, and made anew after a failure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::{BoxFuture, Either, ErrInto};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tonic::transport::Channel;
use tonic::transport::channel::ResponseFuture;
use trestle_api::transport::{ChannelOptions, Dialer, KeepAlive, PeerDial, Transport};

use crate::platform::{Platform, SimulatedPlatform};
use crate::timing::Timing;

/// What a connection carries. Each kind has its own, so that a heartbeat never waits behind a large append, nor an
/// append behind a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Entries, and the calls of the peer service.
    Log,
    /// Heartbeats, votes, transfers.
    Heartbeat,
    /// Snapshots.
    Bulk,
}

/// The window that HTTP/2 starts with, 64 KiB, would stop a stream of appends at every round trip.
pub const WINDOW: u32 = 1 << 20;

/// What carries calls to a member.
#[derive(Clone)]
pub(crate) enum PeerChannel {
    /// HTTP/2 over TCP.
    Connected(Channel),
    /// A simulation, to this address.
    Simulated(Arc<dyn SimulatedPlatform>, Arc<str>, Lane),
}

type Answered = Result<http::Response<Body>, StdError>;

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Either<ErrInto<ResponseFuture, StdError>, BoxFuture<'static, Answered>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            PeerChannel::Connected(channel) => channel.poll_ready(context).map_err(Into::into),
            PeerChannel::Simulated(..) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            PeerChannel::Connected(channel) => Either::Left(channel.call(request).err_into()),
            PeerChannel::Simulated(platform, address, lane) => {
                Either::Right(platform.call(address, *lane, request))
            }
        }
    }
}

/// A connection, and whether it was to be made by TLS.
struct OpenChannel {
    channel: PeerChannel,
    secure: bool,
}

/// The connections of this member, by address and kind.
pub(crate) struct Channels {
    timing: Timing,
    /// Raft's runtime. All connections live on it, also when they are first used from another one.
    runtime: Handle,
    platform: Platform,
    /// Decides what lies between TCP and HTTP/2.
    dial: Arc<dyn PeerDial>,
    open: Mutex<BTreeMap<(String, Lane), OpenChannel>>,
    /// Tests put a proxy that they can cut between any two members.
    #[cfg(test)]
    pub(crate) detours: Mutex<BTreeMap<String, String>>,
}

impl Channels {
    pub(crate) fn new(timing: Timing, runtime: Handle, platform: Platform, dial: Arc<dyn PeerDial>) -> Self {
        Self {
            timing,
            runtime,
            platform,
            dial,
            open: Mutex::default(),
            #[cfg(test)]
            detours: Mutex::default(),
        }
    }

    /// The connection to a member's peer address, `HOST:PORT`. Does not wait.
    ///
    /// # Errors
    /// `INTERNAL` when the address is none; the model does not let such an address in.
    pub(crate) fn to(&self, address: &str, lane: Lane) -> Result<PeerChannel, Status> {
        if let Platform::Simulated(simulated) = &self.platform {
            return Ok(PeerChannel::Simulated(simulated.clone(), address.into(), lane));
        }
        let key = (address.to_owned(), lane);
        let secure = self.dial.is_secure(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&key).filter(|known| known.secure == secure) {
            return Ok(known.channel.clone());
        }
        let dialer = self.dialer(address)?;
        let _on_raft_runtime = self.runtime.enter();
        let channel = PeerChannel::Connected(dialer.connect_lazy());
        open.insert(key, OpenChannel { channel: channel.clone(), secure });
        Ok(channel)
    }

    /// Whether whoever is at an address is reached by TLS now.
    pub(crate) fn is_secure(&self, address: &str) -> bool {
        self.dial.is_secure(address)
    }

    /// Forgets the connections to members that are not among `addresses`.
    pub(crate) fn keep_only(&self, addresses: &[String]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(address, _), _| addresses.contains(address));
    }

    fn dialer(&self, address: &str) -> Result<Dialer, Status> {
        let timing = &self.timing;
        #[cfg(test)]
        let detour = self.detours.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        #[cfg(test)]
        let address = detour.as_deref().unwrap_or(address);
        let options = ChannelOptions {
            connect_timeout: Some(timing.connect_timeout()),
            keep_alive: Some(KeepAlive {
                interval: timing.keep_alive_interval(),
                timeout: timing.keep_alive_timeout(),
                while_idle: true,
            }),
            window: Some(WINDOW),
        };
        Transport::member(self.dial.clone())
            .dialer(address, &options)
            .map_err(|e| Status::internal(format!("peer address \"{address}\" cannot be dialled: {e}")))
    }
}
