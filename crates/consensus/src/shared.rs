//! What the parts of this member share. Each part keeps only what it needs of it.

use std::sync::Arc;

use crate::abstention::Abstentions;
use crate::known_disks::KnownDisks;
use crate::leader_contact::LeaderContact;
use crate::leadership::QuorumTracker;
use crate::member::LocalMember;
use crate::network::Channels;
use crate::outdated_members::OutdatedMembers;
use crate::raft_slot::RaftSlot;
use crate::recovery::Recoveries;
use crate::removal_reports::RemovalReports;
use crate::replica::PublishedState;
use crate::status::RaftState;
use crate::storage::StorageSlot;

/// The owners of what more than one part reads or changes.
pub(crate) struct Shared {
    pub(crate) member: Arc<LocalMember>,
    pub(crate) raft: Arc<RaftSlot>,
    pub(crate) storage: Arc<StorageSlot>,
    pub(crate) published: PublishedState,
    pub(crate) channels: Arc<Channels>,
    /// Whether and how this member leads.
    pub(crate) quorum: Arc<QuorumTracker>,
    pub(crate) contact: Arc<LeaderContact>,
    pub(crate) abstentions: Arc<Abstentions>,
    pub(crate) known_disks: Arc<KnownDisks>,
    pub(crate) outdated: Arc<OutdatedMembers>,
    pub(crate) recoveries: Arc<Recoveries>,
    pub(crate) removal_reports: Arc<RemovalReports>,
}

impl Shared {
    pub(crate) fn new(member: LocalMember, published: PublishedState) -> Self {
        let state = match member.identity() {
            None => RaftState::Empty,
            Some(identity) if identity.removed => RaftState::Removed,
            Some(_) => RaftState::Starting,
        };
        let timing = *member.timing();
        Self {
            raft: Arc::new(RaftSlot::new(state)),
            storage: Arc::default(),
            channels: Arc::new(Channels::new(
                timing,
                member.runtime().clone(),
                member.dir().platform().clone(),
                member.settings().dial.clone(),
            )),
            quorum: Arc::new(QuorumTracker::new()),
            contact: Arc::new(LeaderContact::new(member.opened(), timing)),
            abstentions: Arc::new(Abstentions::new(published.view.clone())),
            known_disks: Arc::default(),
            outdated: Arc::default(),
            recoveries: Arc::default(),
            removal_reports: Arc::default(),
            published,
            member: Arc::new(member),
        }
    }
}
