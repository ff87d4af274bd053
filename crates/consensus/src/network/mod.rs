//! How this member calls the others.

mod append;
mod channel;
mod peer;
mod snapshot;

use std::sync::Arc;

use openraft::RaftNetworkFactory;
use tokio::sync::watch;
use tonic::transport::Channel;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_model::{ClusterId, MemberId};

pub use channel::WINDOW;
pub(crate) use channel::{Channels, Lane};

use crate::heard::Heard;
use crate::hearsay::Hearsay;
use crate::identity::Identity;
use crate::office::Registry;
use crate::raft_types::{PeerNode, TypeConfig};
use crate::replica::View;
use crate::shared::Core;
use crate::timing::Timing;

/// Makes the clients that Raft uses.
pub(crate) struct Network {
    me: MemberId,
    cluster: ClusterId,
    channels: Arc<Channels>,
    timing: Timing,
    hearsay: Arc<Hearsay>,
    view: watch::Sender<Arc<View>>,
    heard: Arc<Heard>,
    registry: Arc<Registry>,
}

impl Network {
    pub(crate) fn new(me: &Identity, core: &Core) -> Self {
        Self {
            me: me.member_id,
            cluster: me.cluster_id.clone(),
            channels: core.channels.clone(),
            timing: core.settings.timing,
            hearsay: core.hearsay.clone(),
            view: core.view.clone(),
            heard: core.heard.clone(),
            registry: core.registry.clone(),
        }
    }

    fn client(&self, target: u64, node: &PeerNode, lane: Lane) -> Peer {
        Peer {
            me: self.me.0,
            target,
            to: proto::Destination {
                cluster_id: self.cluster.to_string(),
                member_id: target,
                promise_ms: self.timing.promise_ms(),
            },
            address: node.peer_address.clone(),
            lane,
            channels: self.channels.clone(),
            timing: self.timing,
            hearsay: self.hearsay.clone(),
            view: self.view.clone(),
            heard: self.heard.clone(),
            registry: self.registry.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.client(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.client(target, node, Lane::Pulse)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.client(target, node, Lane::Bulk)
    }
}

/// Raft's client for one member.
pub(crate) struct Peer {
    me: u64,
    target: u64,
    to: proto::Destination,
    address: String,
    lane: Lane,
    channels: Arc<Channels>,
    timing: Timing,
    hearsay: Arc<Hearsay>,
    /// What this member has applied.
    view: watch::Sender<Arc<View>>,
    heard: Arc<Heard>,
    registry: Arc<Registry>,
}

impl Peer {
    fn service(&self, lane: Lane) -> Result<RaftServiceClient<Channel>, tonic::Status> {
        let channel = self.channels.to(&self.address, lane)?;
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX))
    }
}

/// Most bytes of one message between members: an append of [`crate::raft_config::APPEND_ENTRIES_MAX`] entries of the
/// largest size, with room to spare.
pub(crate) const MESSAGE_MAX: usize = 16 << 20;
