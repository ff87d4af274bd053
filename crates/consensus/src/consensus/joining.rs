//! What a member that joins by a token does to itself, and what the leader does for it.

use std::sync::Arc;

use tokio::sync::mpsc;
use trestle_model::{ClusterId, Member, MemberId};

use super::Consensus;
use crate::error::Error;
use crate::identity::RecoveryId;
use crate::membership::MembershipProgress;

impl Consensus {
    /// Gives this empty member its identity, durably, and starts nothing: the next process of it begins with that. Does nothing when
    /// it has that identity.
    ///
    /// # Errors
    /// When the member belongs to another cluster or has another id, or the disk fails.
    pub async fn take_identity(
        &self,
        cluster_id: ClusterId,
        member_id: MemberId,
        recovery: RecoveryId,
    ) -> Result<(), Error> {
        self.core.clone().take_identity(cluster_id, member_id, recovery).await
    }

    /// Makes an empty member of one that was removed, whose data is moved aside; does nothing to another.
    ///
    /// # Errors
    /// When the data cannot be moved.
    pub async fn set_aside_removed(&self) -> Result<(), Error> {
        self.core.clone().set_aside_removed().await
    }

    /// Makes a member that has a record and an identity already a learner, and waits until it has caught up; on the leader only.
    /// Does nothing for a voter. Stops when the receiver of `progress` is gone.
    ///
    /// # Errors
    /// When this member does not lead, there is no such member, or it does not catch up.
    pub async fn take_in(
        &self,
        id: MemberId,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<Arc<Member>, Error> {
        self.core.memberships.take_in(id, progress).await
    }
}
