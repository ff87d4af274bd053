//! From an empty directory to a running member, and to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::Raft;
use openraft::errors::{InitializeError, RaftError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use trestle_api::status::Failure;
use trestle_model::{
    Change, ClusterId, Command, Member, MemberId, MemberSpec, Outcome, Proposal, Refusal, Revision,
};

use crate::data_dir::DataDir;
use crate::error::{Error, RaftStartError};
use crate::history::ChangeHistory;
use crate::identity::Identity;
use crate::network::Network;
use crate::propose::DEFAULT_WAIT;
use crate::raft_config::raft_config;
use crate::raft_types::PeerNode;
use crate::recovery::RecoveryId;
use crate::replica::{self, ClusterView, KnownRequests, StatePublisher};
use crate::shared::{ConsensusSettings, Core, PublishedState, RunningRaft};
use crate::status::RaftState;
use crate::storage::Storage;
use crate::store::OpenError;

/// The id of the member that founds a cluster: there is no log yet that could allocate one.
const FOUNDER: MemberId = MemberId(1);

/// Longest wait for the log's files to be closed.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

impl replica::ChangeSink for ChangeHistory {
    fn changed(&mut self, revision: Revision, changes: Vec<Change>, by: &Proposal) {
        self.record(revision, changes, by);
    }

    fn jumped(&mut self, revision: Revision) {
        self.restart_at(revision);
    }
}

impl Core {
    /// Reads what is on disk.
    pub(crate) async fn open(settings: ConsensusSettings, runtime: Handle) -> Result<Self, OpenError> {
        let opened = Instant::now();
        let view = watch::Sender::new(Arc::new(ClusterView::default()));
        let history = ChangeHistory::new();
        let requests = Arc::new(KnownRequests::default());
        let published = StatePublisher {
            view: view.clone(),
            history: Box::new(history.clone()),
            requests: requests.clone(),
        };
        let dir = settings.data_dir.clone();
        let read = move || {
            let dir = Arc::new(DataDir::open(&dir)?);
            let identity = Identity::read(&dir)?;
            let durable = match &identity {
                Some(identity) if !identity.removed => Some(Storage::open(&dir, identity, published)?),
                _ => None,
            };
            Ok((dir, identity, durable))
        };
        let path = settings.data_dir.clone();
        let gone =
            |_| OpenError::io("read", path)(std::io::Error::other("the thread that reads it has ended"));
        let (dir, identity, durable) = runtime.spawn_blocking(read).await.map_err(gone)??;
        let core =
            Self::new(settings, opened, runtime, dir, PublishedState { view, history, requests }, identity);
        core.set_storage(durable);
        Ok(core)
    }

    /// See [`crate::Consensus::start`].
    pub(crate) async fn start(self: Arc<Self>) -> Result<(), RaftStartError> {
        let _step = self.step.lock().await;
        self.compare_address();
        tokio::join!(self.startup_vote_delay(), self.check_disk_with_peers());
        self.run().await
    }

    /// Waits until whatever this member promised before it restarted is no longer in force, as far as its disk knows.
    async fn startup_vote_delay(&self) {
        // A member that never voted and never heard a leader has promised nothing.
        if self.max_synced().is_none_or(|max_synced| max_synced.borrow().vote.is_none()) {
            return;
        }
        let until = self.opened + self.settings.timing.startup_vote_delay();
        tokio::time::sleep_until(until.into()).await;
    }

    /// Runs Raft unless it runs.
    async fn run(self: &Arc<Self>) -> Result<(), RaftStartError> {
        let identity = self.identity().ok_or(Failure::NoCluster)?;
        if identity.removed {
            return Err(Failure::Removed.into());
        }
        if self.stopping() {
            return Err(Failure::ShuttingDown.into());
        }
        if self.raft().is_some() {
            return Ok(());
        }
        let (ended, end) = watch::channel(false);
        let timing = self.settings.timing;
        let config = raft_config(identity.cluster_id.as_str(), &timing)
            .map_err(|e| RaftStartError::Timing(e.to_string()))?;
        let network = Network::new(&identity, self);
        let Storage { log, replica, closed } = self.storage().take().ok_or(Failure::ShuttingDown)?;
        *self.closed() = Some(closed);
        let (reader, probe) = (log.reader(), log.probe());
        let id = identity.member_id.0;
        let raft =
            self.runtime.spawn(async move { Raft::new(id, Arc::new(config), network, log, replica).await });
        let raft = raft
            .await
            .map_err(|_| Failure::ShuttingDown)?
            .map_err(|e| RaftStartError::Raft(e.to_string()))?;
        self.set_raft(Some(RunningRaft { raft: raft.clone(), log: reader, probe, ended: Arc::new(ended) }));
        // Before it can find that it is time to stand.
        raft.runtime_config().elect(!self.abstains());
        self.spawn_watched(
            "standing",
            self.clone().disable_elections_while_abstaining(raft.clone(), end.clone()),
        );
        self.spawn_watched("leadership", self.clone().track_leadership(raft.clone(), end.clone()));
        self.spawn_watched("Raft's news", self.clone().follow(raft.clone(), end.clone()));
        self.spawn_watched("removal", self.clone().watch_removal(raft, end));
        self.look_for_another_recovery(identity.former);
        Ok(())
    }

    /// Creates the storage of an empty member and makes its identity durable.
    async fn become_member(
        &self,
        cluster_id: ClusterId,
        member_id: MemberId,
        recovery: RecoveryId,
    ) -> Result<(), Error> {
        let name = self.settings.name.clone();
        let identity = Identity { cluster_id, member_id, name, removed: false, recovery, former: Vec::new() };
        let published = StatePublisher {
            view: self.view.clone(),
            history: Box::new(self.history.clone()),
            requests: self.requests.clone(),
        };
        let (dir, create) = (self.dir.clone(), identity.clone());
        let create = self.runtime.spawn_blocking(move || Storage::create(&dir, &create, published));
        let durable = create.await.map_err(|_| Failure::ShuttingDown)?.map_err(Error::internal)?;
        self.set_storage(Some(durable));
        self.set_identity(identity);
        self.set_state(RaftState::Starting);
        Ok(())
    }

    /// See [`crate::Consensus::bootstrap`].
    pub(crate) async fn bootstrap(
        self: Arc<Self>,
        cluster: ClusterId,
        spec: MemberSpec,
    ) -> Result<Arc<Member>, Error> {
        let step = self.step.lock().await;
        match self.identity() {
            Some(identity) if identity.removed => return Err(Failure::Removed.into()),
            // An earlier attempt got this far; nothing was founded.
            Some(identity)
                if identity.member_id == FOUNDER && self.view.borrow().state.cluster_id.is_none() => {}
            Some(identity) => return Err(Failure::InCluster(identity.cluster_id.to_string()).into()),
            None => self.become_member(cluster, FOUNDER, RecoveryId::default()).await?,
        }
        self.run().await?;
        let raft = self.running()?;
        let node = PeerNode { peer_address: spec.peer_address.to_string() };
        match raft
            .initialize([(FOUNDER.0, node)].into_iter().collect::<std::collections::BTreeMap<_, _>>())
            .await
        {
            // Not allowed means that an earlier attempt did it.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(Error::internal(error)),
        }
        drop(step);
        let cluster_id = self.identity().map(|identity| identity.cluster_id).ok_or(Failure::NoCluster)?;
        let command = Command::FoundCluster { cluster_id: cluster_id.clone(), member: spec };
        match self.propose(Proposal { origin: None, request: None, command }, DEFAULT_WAIT).await {
            Ok(accepted) => match accepted.outcome {
                Outcome::Founded(member) => Ok(member),
                other => Err(Error::internal(format!("founding was answered with {other:?}"))),
            },
            Err(Error::Refused(Refusal::Founded)) => Err(Failure::InCluster(cluster_id.to_string()).into()),
            Err(error) => Err(error),
        }
    }

    /// See [`crate::Consensus::adopt`].
    pub(crate) async fn adopt(
        self: Arc<Self>,
        cluster_id: ClusterId,
        member_id: MemberId,
        recovery: RecoveryId,
    ) -> Result<(), Error> {
        // A later id in its own cluster: it was removed, and may not have heard of it.
        let later = |identity: &Identity| identity.cluster_id == cluster_id && identity.member_id < member_id;
        if self.identity().is_some_and(|identity| later(&identity) && !identity.removed) {
            self.clone().confirm_removal().await;
        }
        let _step = self.step.lock().await;
        match self.identity() {
            Some(identity) if identity.removed && later(&identity) => {
                self.begin_anew(&identity).await?;
                self.become_member(cluster_id, member_id, recovery).await?;
            }
            Some(identity) if identity.removed => return Err(Failure::Removed.into()),
            Some(identity) if identity.cluster_id == cluster_id && identity.member_id == member_id => {}
            Some(identity) => return Err(Failure::InCluster(identity.cluster_id.to_string()).into()),
            None => self.become_member(cluster_id, member_id, recovery).await?,
        }
        Ok(self.run().await?)
    }

    /// Makes an empty member of one that was removed: moves its data aside and forgets what it was.
    async fn begin_anew(&self, old: &Identity) -> Result<(), Error> {
        let (dir, identity) = (self.dir.clone(), old.clone());
        let moved = self.runtime.spawn_blocking(move || identity.set_aside(&dir));
        let aside = moved
            .await
            .map_err(|_| Failure::ShuttingDown)?
            .map_err(|e| Error::internal(format!("the data of {old} cannot be moved aside: {e}")))?;
        tracing::info!(old = %old, data = %aside.display(), "begins anew as another member; its old data is kept");
        self.clear_identity();
        self.set_state(RaftState::Empty);
        self.view.send_replace(Arc::new(ClusterView::default()));
        self.history.restart_at(0);
        self.quorum.reset();
        self.leader_contact.forget();
        self.removal_reports.clear();
        self.assumed_voters.clear();
        self.clear_rollback();
        Ok(())
    }

    /// Records durably that this member was removed, and ends its part in Raft.
    pub(crate) async fn record_removal(self: Arc<Self>) -> Result<(), Error> {
        let _step = self.step.lock().await;
        let Some(identity) = self.identity().filter(|identity| !identity.removed) else { return Ok(()) };
        let identity = Identity { removed: true, ..identity };
        let (dir, write) = (self.dir.clone(), identity.clone());
        let write = self.runtime.spawn_blocking(move || write.write(&dir));
        write.await.map_err(|_| Failure::ShuttingDown)?.map_err(Error::internal)?;
        self.set_identity(identity);
        self.end_raft(RaftState::Removed).await;
        self.removal_reports.clear();
        Ok(())
    }

    /// Stops Raft for good and closes its files.
    pub(crate) async fn stop(self: Arc<Self>) {
        let _step = self.step.lock().await;
        self.set_stopping();
        self.history.close();
        self.end_raft(RaftState::Stopped).await;
    }

    async fn end_raft(&self, state: RaftState) {
        let unused = self.storage().take().map(|Storage { closed, .. }| closed);
        if let Some(RunningRaft { raft, ended, .. }) = self.set_raft(None) {
            ended.send_replace(true);
            let down = self.runtime.spawn(async move { raft.shutdown().await });
            // A Raft that failed before has ended as well.
            let _ = down.await;
        }
        self.set_state(state);
        let closed = unused.or_else(|| self.closed().take());
        if let Some(closed) = closed
            && tokio::time::timeout(CLOSE_WAIT, closed.wait()).await.is_err()
        {
            tracing::warn!("the log's files are not closed after {CLOSE_WAIT:?}");
        }
    }
}
