//! What the parts of this crate share: the running Raft and what is known without it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use openraft::Raft;
use tokio::runtime::Handle;
use tokio::sync::watch;
use trestle_api::status::Failure;
use trestle_model::{HostPort, MemberId, MemberName};

use crate::abstention::Abstention;
use crate::caller_check::AssumedVoters;
use crate::data_dir::DataDir;
use crate::disk_rollback::KnownDisks;
use crate::error::Error;
use crate::history::ChangeHistory;
use crate::identity::Identity;
use crate::leader_contact::LeaderContact;
use crate::leadership::QuorumTracker;
use crate::network::Channels;
use crate::raft_types::TypeConfig;
use crate::recovery::Recoveries;
use crate::removal_reports::RemovalReports;
use crate::replica::{ClusterView, KnownRequests, Replica};
use crate::status::{RaftRole, RaftState};
use crate::storage::Storage;
use crate::store::{LogClosed, LogProbe, LogReader, SyncedIndex};
use crate::timing::Timing;
use crate::vote_guard::VoteGuard;

pub(crate) type RaftHandle = Raft<TypeConfig, Replica>;

/// Raft while it runs.
#[derive(Clone)]
pub(crate) struct RunningRaft {
    pub(crate) raft: RaftHandle,
    /// The log that it writes.
    pub(crate) log: LogReader,
    /// Asks the thread that writes it for a sign of life.
    pub(crate) probe: LogProbe,
    /// Set before it is stopped, so that its end is nobody's surprise.
    pub(crate) ended: Arc<watch::Sender<bool>>,
}

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
    /// Says whether this member may vote.
    pub vote_guard: Arc<dyn VoteGuard>,
}

/// What the state machine shows, and outlives it.
pub(crate) struct PublishedState {
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    pub(crate) history: ChangeHistory,
    pub(crate) requests: Arc<KnownRequests>,
}

/// The state of this member, shared by the handle, the services and Raft's followers.
pub(crate) struct Core {
    pub(crate) settings: ConsensusSettings,
    /// When the process had certainly started; the member has promised nothing since.
    pub(crate) opened: Instant,
    pub(crate) runtime: Handle,
    pub(crate) channels: Arc<Channels>,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) history: ChangeHistory,
    /// The state machine publishes here; kept as well, so that the receivers outlive Raft.
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    /// Requests that the state machine has answered.
    pub(crate) requests: Arc<KnownRequests>,
    pub(crate) role: watch::Sender<RaftRole>,
    /// Whether and how this member leads.
    pub(crate) quorum: Arc<QuorumTracker>,
    pub(crate) failure: watch::Sender<Option<String>>,
    /// Held while the member is founded, adopted, started, removed or stopped.
    pub(crate) step: tokio::sync::Mutex<()>,
    /// Who says that this member was removed.
    pub(crate) removal_reports: Arc<RemovalReports>,
    /// Held while a removal notice is checked with the leader.
    pub(crate) removal_check: tokio::sync::Mutex<()>,
    /// Held while a snapshot is received: each may take much memory.
    pub(crate) receiving: tokio::sync::Mutex<()>,
    /// Whom this member takes for voters on the word of others.
    pub(crate) assumed_voters: AssumedVoters,
    identity: RwLock<Option<Identity>>,
    raft: RwLock<Option<RunningRaft>>,
    storage: Mutex<Option<Storage>>,
    closed: Mutex<Option<LogClosed>>,
    stopping: AtomicBool,
    /// The last wrong timing of a caller that the log tells of.
    pub(crate) last_mismatch_ms: AtomicU32,
    pub(crate) leader_contact: Arc<LeaderContact>,
    /// What this member knows of the others' disks.
    pub(crate) known_disks: Arc<KnownDisks>,
    /// The most that was ever durable here.
    pub(crate) max_synced: RwLock<Option<watch::Receiver<SyncedIndex>>>,
    /// What those members had stored who were asked at the start.
    pub(crate) reported_disks: Mutex<BTreeMap<u64, SyncedIndex>>,
    /// Why this member abstains.
    pub(crate) abstention: watch::Sender<Abstention>,
    pub(crate) recoveries: Arc<Recoveries>,
}

impl Core {
    pub(crate) fn new(
        settings: ConsensusSettings,
        opened: Instant,
        runtime: Handle,
        dir: Arc<DataDir>,
        shown: PublishedState,
        identity: Option<Identity>,
    ) -> Self {
        let state = match &identity {
            None => RaftState::Empty,
            Some(identity) if identity.removed => RaftState::Removed,
            Some(_) => RaftState::Starting,
        };
        let PublishedState { view, history, requests } = shown;
        let last_mismatch_ms = AtomicU32::new(settings.timing.vote_refusal_ms());
        Self {
            channels: Arc::new(Channels::new(settings.timing, runtime.clone())),
            leader_contact: Arc::new(LeaderContact::new(opened, settings.timing)),
            settings,
            opened,
            runtime,
            dir,
            history,
            view,
            requests,
            role: watch::Sender::new(RaftRole { state, ..RaftRole::default() }),
            quorum: Arc::new(QuorumTracker::new()),
            failure: watch::Sender::new(None),
            step: tokio::sync::Mutex::new(()),
            removal_reports: Arc::default(),
            removal_check: tokio::sync::Mutex::default(),
            receiving: tokio::sync::Mutex::default(),
            assumed_voters: AssumedVoters::default(),
            identity: RwLock::new(identity),
            raft: RwLock::new(None),
            storage: Mutex::new(None),
            closed: Mutex::new(None),
            stopping: AtomicBool::new(false),
            last_mismatch_ms,
            known_disks: Arc::default(),
            max_synced: RwLock::new(None),
            reported_disks: Mutex::default(),
            abstention: watch::Sender::default(),
            recoveries: Arc::default(),
        }
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this member was removed from its cluster, durably.
    pub(crate) fn was_removed(&self) -> bool {
        self.identity().is_some_and(|identity| identity.removed)
    }

    pub(crate) fn clear_identity(&self) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    pub(crate) fn raft(&self) -> Option<RaftHandle> {
        self.raft.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.raft.clone())
    }

    /// The log of the running Raft.
    pub(crate) fn log_reader(&self) -> Option<LogReader> {
        self.raft.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.log.clone())
    }

    /// What asks the running Raft's writer for a sign of life.
    pub(crate) fn log_probe(&self) -> Option<LogProbe> {
        self.raft.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.probe.clone())
    }

    pub(crate) fn set_raft(&self, raft: Option<RunningRaft>) -> Option<RunningRaft> {
        std::mem::replace(&mut *self.raft.write().unwrap_or_else(PoisonError::into_inner), raft)
    }

    /// The disk's side of Raft, until Raft takes it.
    pub(crate) fn storage(&self) -> MutexGuard<'_, Option<Storage>> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the disk's side of Raft until Raft takes it.
    pub(crate) fn set_storage(&self, durable: Option<Storage>) {
        if let Some(durable) = &durable {
            *self.max_synced.write().unwrap_or_else(PoisonError::into_inner) = Some(durable.log.max_synced());
        }
        *self.storage() = durable;
    }

    /// What tells that the files are closed, once Raft has them.
    pub(crate) fn closed(&self) -> MutexGuard<'_, Option<LogClosed>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_state(&self, state: RaftState) {
        self.role.send_modify(|role| *role = RaftRole { state, term: role.term, ..RaftRole::default() });
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn me(&self) -> Option<MemberId> {
        self.identity().map(|identity| identity.member_id)
    }

    /// The running Raft, or why there is none.
    pub(crate) fn running(&self) -> Result<RaftHandle, Error> {
        self.raft().ok_or_else(|| {
            let state = self.role.borrow().state;
            Error::Failed(match state {
                RaftState::Empty => Failure::NoCluster,
                RaftState::Removed => Failure::Removed,
                RaftState::Stopped => Failure::ShuttingDown,
                _ => Failure::NoLeader("this member has just started and does not take part yet".to_owned()),
            })
        })
    }
}
