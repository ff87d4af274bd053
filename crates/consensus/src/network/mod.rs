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

use crate::abstention::Abstention;
use crate::disk_rollback::KnownDisks;
use crate::identity::Identity;
use crate::leader_contact::LeaderContact;
use crate::leadership::QuorumTracker;
use crate::raft_types::{LogId, PeerNode, TypeConfig};
use crate::recovery::{Recoveries, RecoveryId};
use crate::removal_reports::RemovalReports;
use crate::replica::ClusterView;
use crate::shared::Core;
use crate::status::RaftRole;
use crate::store::SyncedIndex;
use crate::timing::Timing;
use crate::wire;

/// Makes the clients that Raft uses.
pub(crate) struct Network {
    me: MemberId,
    cluster: ClusterId,
    recovery: RecoveryId,
    recoveries: Arc<Recoveries>,
    channels: Arc<Channels>,
    timing: Timing,
    removal_reports: Arc<RemovalReports>,
    view: watch::Sender<Arc<ClusterView>>,
    leader_contact: Arc<LeaderContact>,
    quorum: Arc<QuorumTracker>,
    known_disks: Arc<KnownDisks>,
    max_synced: Option<watch::Receiver<SyncedIndex>>,
    abstention: watch::Receiver<Abstention>,
    role: watch::Receiver<RaftRole>,
}

impl Network {
    pub(crate) fn new(me: &Identity, core: &Core) -> Self {
        Self {
            me: me.member_id,
            cluster: me.cluster_id.clone(),
            recovery: me.recovery,
            recoveries: core.recoveries.clone(),
            channels: core.channels.clone(),
            timing: core.settings.timing,
            removal_reports: core.removal_reports.clone(),
            view: core.view.clone(),
            leader_contact: core.leader_contact.clone(),
            quorum: core.quorum.clone(),
            known_disks: core.known_disks.clone(),
            max_synced: core.max_synced(),
            abstention: core.abstention.subscribe(),
            role: core.role.subscribe(),
        }
    }

    fn client(&self, target: u64, node: &PeerNode, lane: Lane) -> Peer {
        Peer {
            me: self.me.0,
            target,
            to: Addressee {
                to: proto::Destination {
                    cluster_id: self.cluster.to_string(),
                    member_id: target,
                    vote_refusal_ms: self.timing.vote_refusal_ms(),
                    known: None,
                    own: None,
                    recovery: self.recovery.number,
                    recovery_draw: self.recovery.draw,
                },
                known_disks: self.known_disks.clone(),
                max_synced: self.max_synced.clone(),
            },
            recoveries: self.recoveries.clone(),
            address: node.peer_address.clone(),
            lane,
            channels: self.channels.clone(),
            timing: self.timing,
            removal_reports: self.removal_reports.clone(),
            view: self.view.clone(),
            leader_contact: self.leader_contact.clone(),
            quorum: self.quorum.clone(),
            abstention: self.abstention.clone(),
            role: self.role.clone(),
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
    recoveries: Arc<Recoveries>,
    address: String,
    lane: Lane,
    channels: Arc<Channels>,
    timing: Timing,
    removal_reports: Arc<RemovalReports>,
    /// What this member has applied.
    view: watch::Sender<Arc<ClusterView>>,
    leader_contact: Arc<LeaderContact>,
    quorum: Arc<QuorumTracker>,
    abstention: watch::Receiver<Abstention>,
    role: watch::Receiver<RaftRole>,
}

impl Peer {
    fn service(&self, lane: Lane) -> Result<RaftServiceClient<Channel>, tonic::Status> {
        // The member may have moved since Raft made this client.
        let address = self.role.borrow().address_of(MemberId(self.target)).map(str::to_owned);
        let channel = self.channels.to(address.as_ref().unwrap_or(&self.address), lane)?;
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX))
    }
}

/// Most bytes of one message between members: an append of [`crate::raft_config::APPEND_ENTRIES_MAX`] entries of the
/// largest size, with room to spare.
pub(crate) const MESSAGE_MAX: usize = 16 << 20;
