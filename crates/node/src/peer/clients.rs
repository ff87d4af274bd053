//! Connections to other members for questions that are not Raft's.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_model::HostPort;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence after which a connection is probed, and how long the probe may take: a connection that lived through a
/// partition would stay dead without.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A report on 20 000 backends with their histories stays below this; gRPC's own bound is 4 MiB.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// One connection for each peer address, opened when it is first used and again when it broke.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<BTreeMap<HostPort, Channel>>);

impl Clients {
    /// A channel to a peer address.
    ///
    /// # Errors
    /// When the address is no URI authority; addresses that were parsed are.
    pub(crate) fn channel(&self, address: &HostPort) -> Result<Channel, tonic::Status> {
        // Nothing between lock and unlock can leave the map half changed.
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| tonic::Status::internal(format!("peer address {address}: {error}")))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect_lazy();
        channels.insert(address.clone(), channel.clone());
        Ok(channel)
    }

    /// A client for a peer address.
    ///
    /// # Errors
    /// As [`Clients::channel`].
    pub(crate) fn peer(&self, address: &HostPort) -> Result<PeerServiceClient<Channel>, tonic::Status> {
        Ok(PeerServiceClient::new(self.channel(address)?).max_decoding_message_size(ANSWER_MAX))
    }

    /// Drops connections to addresses that no member has any longer.
    pub(crate) fn keep(&self, wanted: impl Fn(&HostPort) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| wanted(address));
    }
}
