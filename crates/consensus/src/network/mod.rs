//! How this member calls the others.

mod append;
mod channel;
mod peer;
mod snapshot;

use std::sync::Arc;

use openraft::RaftNetworkFactory;
use tokio::sync::watch;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_model::{ClusterId, MemberId};

pub(crate) use channel::{Channels, PeerChannel};
pub use channel::{Lane, WINDOW};

use crate::abstention::Abstention;
use crate::identity::{Identity, RecoveryId};
use crate::known_disks::KnownDisks;
use crate::leader_contact::LeaderContact;
use crate::leadership::QuorumTracker;
use crate::outdated_members::OutdatedMembers;
use crate::raft_types::{LogId, PeerNode, TypeConfig};
use crate::recovery::Recoveries;
use crate::removal_reports::RemovalReports;
use crate::replica::ClusterView;
use crate::status::RaftRole;
use crate::store::SyncedIndex;
use crate::timing::Timing;
use crate::wire;

/// Makes the clients that Raft uses.
pub(crate) struct Network {
    me: MemberId,
    cluster: ClusterId,
    recovery: RecoveryId,
    parts: NetworkParts,
}

/// What the clients need of this member.
#[derive(Clone)]
pub(crate) struct NetworkParts {
    pub(crate) timing: Timing,
    pub(crate) channels: Arc<Channels>,
    pub(crate) recoveries: Arc<Recoveries>,
    pub(crate) removal_reports: Arc<RemovalReports>,
    /// What this member has applied.
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    pub(crate) contact: Arc<LeaderContact>,
    pub(crate) quorum: Arc<QuorumTracker>,
    pub(crate) known_disks: Arc<KnownDisks>,
    pub(crate) outdated: Arc<OutdatedMembers>,
    pub(crate) max_synced: Option<watch::Receiver<SyncedIndex>>,
    pub(crate) abstention: watch::Receiver<Abstention>,
    pub(crate) role: watch::Receiver<RaftRole>,
}

impl Network {
    pub(crate) fn new(me: &Identity, parts: NetworkParts) -> Self {
        Self { me: me.member_id, cluster: me.cluster_id.clone(), recovery: me.recovery, parts }
    }

    fn client(&self, target: u64, node: &PeerNode, lane: Lane) -> Peer {
        let to = proto::Destination {
            cluster_id: self.cluster.to_string(),
            member_id: target,
            vote_refusal_ms: self.parts.timing.vote_refusal_ms(),
            known: None,
            own: None,
            recovery: self.recovery.number,
            recovery_draw: self.recovery.draw,
        };
        let (known_disks, max_synced) = (self.parts.known_disks.clone(), self.parts.max_synced.clone());
        Peer {
            me: self.me.0,
            target,
            to: Addressee { to, known_disks, max_synced },
            address: node.peer_address.clone(),
            lane,
            parts: self.parts.clone(),
        }
    }
}

/// How a call says for whom it is, and what is known of that member's disk and of this one's.
#[derive(Clone)]
struct Addressee {
    to: proto::Destination,
    known_disks: Arc<KnownDisks>,
    max_synced: Option<watch::Receiver<SyncedIndex>>,
}

impl Addressee {
    /// The address of a call that leaves now.
    fn now(&self) -> proto::Destination {
        let own = self.max_synced.as_ref().map(|max_synced| wire::synced_index_message(&max_synced.borrow()));
        let known = Some(wire::synced_index_message(&self.known_disks.of(self.to.member_id)));
        proto::Destination { known, own, ..self.to.clone() }
    }

    /// Notes that the member has these entries on its disk.
    fn has_stored(&self, last: Option<LogId>) {
        self.known_disks.note(self.to.member_id, SyncedIndex { last, vote: None });
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.client(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.client(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.client(target, node, Lane::Bulk)
    }
}

/// Raft's client for one member.
pub(crate) struct Peer {
    me: u64,
    target: u64,
    to: Addressee,
    address: String,
    lane: Lane,
    parts: NetworkParts,
}

impl Peer {
    /// Where the member is now: it may have moved since Raft made this client.
    fn current_address(&self) -> String {
        let known = self.parts.role.borrow().address_of(MemberId(self.target)).map(str::to_owned);
        known.unwrap_or_else(|| self.address.clone())
    }

    /// Whether that is there.
    fn is_at(&self, address: &str) -> bool {
        self.parts.role.borrow().address_of(MemberId(self.target)).unwrap_or(&self.address) == address
    }

    fn service(&self, lane: Lane) -> Result<RaftServiceClient<PeerChannel>, tonic::Status> {
        let channel = self.parts.channels.to(&self.current_address(), lane)?;
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX))
    }
}

/// Most bytes of one message between members: an append of 2 MiB of entries (see [`crate::store`]), or one entry of the largest
/// size, with room to spare.
pub(crate) const MESSAGE_MAX: usize = 4 << 20;
