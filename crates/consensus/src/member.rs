//! Who this member is, and what it runs with.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::task::JoinError;
use trestle_api::transport::PeerDial;
use trestle_model::{HostPort, MemberId, MemberName};

use crate::data_dir::DataDir;
use crate::identity::{Identity, RecoveryId};
use crate::timing::Timing;
use crate::vote_guard::VoteGuard;

/// What this member needs to know of itself.
#[derive(Clone)]
pub struct ConsensusSettings {
    /// Where log, snapshots and identity are; made if it does not exist.
    pub data_dir: PathBuf,
    /// The member's name, from its configuration.
    pub name: MemberName,
    /// Where other members are to reach this one.
    pub peer_address: HostPort,
    /// A number that no other process of this member has: drawn at random when the process starts, and not 0.
    pub start: u64,
    /// Raft's clock; the same on all members.
    pub timing: Timing,
    /// The highest feature level that this program knows: what needs a higher one is not taken.
    pub feature_level_max: u32,
    /// Says whether this member may vote.
    pub vote_guard: Arc<dyn VoteGuard>,
    /// Says how the other members are reached.
    pub dial: Arc<dyn PeerDial>,
}

/// This member, whether Raft runs or not.
pub(crate) struct LocalMember {
    settings: ConsensusSettings,
    opened: Instant,
    runtime: Handle,
    dir: Arc<DataDir>,
    identity: RwLock<Option<Identity>>,
    stopping: AtomicBool,
}

impl LocalMember {
    pub(crate) fn new(
        settings: ConsensusSettings,
        opened: Instant,
        runtime: Handle,
        dir: Arc<DataDir>,
        identity: Option<Identity>,
    ) -> Self {
        let identity = RwLock::new(identity);
        Self { settings, opened, runtime, dir, identity, stopping: AtomicBool::new(false) }
    }

    pub(crate) fn settings(&self) -> &ConsensusSettings {
        &self.settings
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.settings.timing
    }

    /// When the process had certainly started; the member has promised nothing since.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// Raft's runtime.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs what blocks off the threads of the runtime.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.dir.platform().blocking(&self.runtime, run).await
    }

    pub(crate) fn dir(&self) -> &Arc<DataDir> {
        &self.dir
    }

    /// Who it is; `None` while it is empty.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_identity(&self, identity: Option<Identity>) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    pub(crate) fn id(&self) -> Option<MemberId> {
        self.identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|identity| identity.member_id)
    }

    /// Of which recovery of its cluster it is.
    pub(crate) fn recovery(&self) -> RecoveryId {
        self.identity().map(|identity| identity.recovery).unwrap_or_default()
    }

    /// Whether it was removed from its cluster, durably.
    pub(crate) fn was_removed(&self) -> bool {
        self.identity().is_some_and(|identity| identity.removed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}
