//! The parts of this member, put together.

use std::sync::Arc;

use crate::caller_check::CallerCheck;
use crate::disk_rollback::RollbackCheck;
use crate::identity::Identity;
use crate::membership::Memberships;
use crate::network::{Network, NetworkParts};
use crate::peer_calls::PeerCalls;
use crate::propose::Proposals;
use crate::read::Reads;
use crate::recovery::RecoveryCheck;
use crate::removal::RemovalCheck;
use crate::role::RoleFollower;
use crate::shared::Shared;
use crate::status::RaftStatus;

/// This member's part in the cluster: used by the handle, the services and what follows Raft.
pub(crate) struct Core {
    pub(crate) shared: Shared,
    pub(crate) rollback: Arc<RollbackCheck>,
    pub(crate) recovery: RecoveryCheck,
    pub(crate) reads: Arc<Reads>,
    pub(crate) proposals: Arc<Proposals>,
    pub(crate) memberships: Arc<Memberships>,
    pub(crate) removal: Arc<RemovalCheck>,
    pub(crate) callers: Arc<CallerCheck>,
    /// Held while the member is founded, adopted, started, removed or stopped.
    pub(crate) step: tokio::sync::Mutex<()>,
    /// Held while a removal notice is checked with the leader.
    pub(crate) removal_check: tokio::sync::Mutex<()>,
    /// Held while a snapshot is received: each may take much memory.
    pub(crate) receiving: tokio::sync::Mutex<()>,
}

impl Core {
    pub(crate) fn new(shared: Shared) -> Self {
        let peers = Arc::new(PeerCalls::new(&shared));
        let reads = Arc::new(Reads::new(&shared, peers.clone()));
        let proposals = Arc::new(Proposals::new(&shared, reads.clone(), peers.clone()));
        let removal = Arc::new(RemovalCheck::new(&shared, reads.clone(), peers.clone()));
        Self {
            rollback: Arc::new(RollbackCheck::new(&shared, peers.clone())),
            recovery: RecoveryCheck::new(
                shared.member.clone(),
                shared.published.view.clone(),
                shared.recoveries.clone(),
            ),
            memberships: Arc::new(Memberships::new(&shared, proposals.clone(), reads.clone(), peers.clone())),
            callers: Arc::new(CallerCheck::new(&shared, peers, removal.clone())),
            reads,
            proposals,
            removal,
            shared,
            step: tokio::sync::Mutex::default(),
            removal_check: tokio::sync::Mutex::default(),
            receiving: tokio::sync::Mutex::default(),
        }
    }

    /// How Raft calls the other members.
    pub(crate) fn network(&self, identity: &Identity) -> Network {
        let shared = &self.shared;
        Network::new(
            identity,
            NetworkParts {
                timing: *shared.member.timing(),
                channels: shared.channels.clone(),
                recoveries: shared.recoveries.clone(),
                removal_reports: shared.removal_reports.clone(),
                view: shared.published.view.clone(),
                contact: shared.contact.clone(),
                quorum: shared.quorum.clone(),
                known_disks: shared.known_disks.clone(),
                outdated: shared.outdated.clone(),
                max_synced: shared.storage.max_synced(),
                abstention: shared.abstentions.subscribe(),
                role: shared.raft.watch_role(),
            },
        )
    }

    /// What publishes the role while Raft runs.
    pub(crate) fn role_follower(&self) -> RoleFollower {
        RoleFollower::new(&self.shared, self.memberships.clone())
    }

    /// The status now; the phases before and after Raft runs have a state and what was applied.
    pub(crate) fn status(&self) -> RaftStatus {
        let shared = &self.shared;
        let mut status = shared.raft.status();
        status.applied = status.applied.max(shared.published.view.borrow().applied);
        let me = shared.member.id();
        status.leader = status.leader.filter(|id| Some(*id) == me || shared.contact.is_recent());
        status
    }
}
