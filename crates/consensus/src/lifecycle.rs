//! From an empty directory to a running member, and to its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use openraft::Raft;
use openraft::errors::{InitializeError, RaftError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use trestle_api::status::Failure;
use trestle_model::{
    ClusterId, Command, FoundingIdentities, Member, MemberId, MemberSpec, Outcome, Proposal, Refusal,
};

use crate::abstention::disable_elections_while_abstaining;
use crate::data_dir::DataDir;
use crate::error::{Error, RaftStartError};
use crate::identity::{FormerVoter, Identity, RecoveryId};
use crate::leadership::track_leadership;
use crate::log_size::bound_log_size;
use crate::member::{ConsensusSettings, LocalMember};
use crate::membership_state::RemovalVerdict;
use crate::parts::Core;
use crate::platform::Platform;
use crate::propose::DEFAULT_WAIT;
use crate::raft_config::raft_config;
use crate::raft_slot::RunningRaft;
use crate::raft_types::PeerNode;
use crate::removal::CONFIRMED;
use crate::replica::{ClusterView, PublishedState, RaftHandle};
use crate::shared::Shared;
use crate::status::RaftState;
use crate::storage::Storage;
use crate::store::{LogReader, OpenError};

/// Makes the identities of a cluster that is founded, whose keys are on disk when this returns; `None` for a cluster without any. The
/// error is in words.
pub type MakeIdentities = Box<dyn FnOnce(&ClusterId) -> Result<Option<FoundingIdentities>, String> + Send>;

/// Longest wait for the log's files to be closed.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

impl Core {
    /// Reads what is on disk.
    pub(crate) async fn open(
        settings: ConsensusSettings,
        runtime: Handle,
        platform: Platform,
    ) -> Result<Self, OpenError> {
        let opened = Instant::now();
        let published = PublishedState::default();
        let (path, publisher) = (settings.data_dir.clone(), published.publisher());
        let level = settings.feature_level_max;
        let on = platform.clone();
        let read = move || {
            let dir = Arc::new(DataDir::open_on(&path, on)?);
            let identity = Identity::read(&dir)?;
            let storage = match &identity {
                Some(identity) if !identity.removed => Some(Storage::open(&dir, identity, publisher, level)?),
                _ => None,
            };
            Ok((dir, identity, storage))
        };
        let path = settings.data_dir.clone();
        let gone =
            |_| OpenError::io("read", path)(std::io::Error::other("the thread that reads it has ended"));
        let (dir, identity, storage) = platform.blocking(&runtime, read).await.map_err(gone)??;
        let member = LocalMember::new(settings, opened, runtime, dir, identity);
        let shared = Shared::new(member, published);
        if let Some(storage) = storage {
            shared.storage.put(storage);
        }
        Ok(Self::new(shared))
    }

    /// See [`crate::Consensus::start`].
    pub(crate) async fn start(self: Arc<Self>) -> Result<(), RaftStartError> {
        let _step = self.step.lock().await;
        self.compare_address();
        tokio::join!(self.startup_vote_delay(), self.rollback.ask_all_peers());
        self.run().await
    }

    /// Abstains from the first moment when the others look for this member elsewhere: another process may be there, which is
    /// this member too.
    fn compare_address(&self) {
        let own = self.shared.member.settings().peer_address.as_str();
        let recorded = self.rollback.own_address_on_disk();
        let Some(recorded) = recorded.filter(|recorded| recorded != own) else { return };
        tracing::warn!(
            recorded,
            configured = own,
            "the cluster knows this member at another address than its configuration; until it is known that nobody answers \
             there as this member, it abstains"
        );
        self.shared.abstentions.set_displaced(Some(format!(
            "it is to be reached at {own}, and the cluster knows it at {recorded}: it takes no part in elections until the \
             leader has recorded the new address"
        )));
    }

    /// Waits until whatever this member promised before it restarted is no longer in force, as far as its disk knows.
    async fn startup_vote_delay(&self) {
        // A member that never voted and never heard a leader has promised nothing.
        if self.shared.storage.synced().vote.is_none() {
            return;
        }
        let until = self.shared.member.opened() + self.shared.member.timing().startup_vote_delay();
        tokio::time::sleep_until(until.into()).await;
    }

    /// Runs Raft unless it runs.
    async fn run(self: &Arc<Self>) -> Result<(), RaftStartError> {
        let identity = self.shared.member.identity().ok_or(Failure::NoCluster)?;
        if identity.removed {
            return Err(Failure::Removed.into());
        }
        if self.shared.member.is_stopping() {
            return Err(Failure::ShuttingDown.into());
        }
        if self.shared.raft.handle().is_some() {
            return Ok(());
        }
        let bounds = self.shared.member.dir().platform().log_bounds();
        let config = raft_config(identity.cluster_id.as_str(), self.shared.member.timing(), &bounds)
            .map_err(|e| RaftStartError::Timing(e.to_string()))?;
        let network = self.network(&identity);
        let (log, replica) = self.shared.storage.take().ok_or(Failure::ShuttingDown)?;
        let (reader, probe) = (log.reader(), log.probe());
        let id = identity.member_id.0;
        let raft = self
            .shared
            .member
            .runtime()
            .spawn(async move { Raft::new(id, Arc::new(config), network, log, replica).await });
        let raft = raft
            .await
            .map_err(|_| Failure::ShuttingDown)?
            .map_err(|e| RaftStartError::Raft(e.to_string()))?;
        let (ended, end) = watch::channel(false);
        let running = RunningRaft { raft: raft.clone(), log: reader.clone(), probe, ended: Arc::new(ended) };
        self.shared.raft.replace(Some(running));
        // Before it can find that it is time to stand.
        raft.runtime_config().elect(self.shared.abstentions.current().is_none());
        self.follow(&raft, reader, &end);
        if !identity.former.is_empty() {
            self.shared.member.runtime().spawn(call_former(Arc::downgrade(self), identity.former));
        }
        Ok(())
    }

    /// Starts the tasks that follow Raft until `end`.
    fn follow(self: &Arc<Self>, raft: &RaftHandle, log: LogReader, end: &watch::Receiver<bool>) {
        let runtime = self.shared.member.runtime();
        let elections = disable_elections_while_abstaining(
            self.shared.abstentions.subscribe(),
            raft.clone(),
            end.clone(),
        );
        let heartbeat = self.shared.member.timing().heartbeat;
        let leadership = track_leadership(self.shared.quorum.clone(), heartbeat, raft.clone(), end.clone());
        let role = self.role_follower().follow(raft.clone(), end.clone());
        self.shared.raft.spawn_watched(
            runtime,
            "the size of the log",
            bound_log_size(raft.clone(), log, end.clone()),
        );
        self.shared.raft.spawn_watched(runtime, "standing", elections);
        self.shared.raft.spawn_watched(runtime, "leadership", leadership);
        self.shared.raft.spawn_watched(runtime, "Raft's news", role);
        let (core, raft, end) = (self.clone(), raft.clone(), end.clone());
        self.shared.raft.spawn_watched(runtime, "removal", async move {
            let removed = core.removal.wait_for_removal(&raft, end).await;
            drop(raft);
            if let Some(by) = removed {
                core.end_membership(by).await;
            }
        });
    }

    /// Creates the storage of an empty member and makes its identity durable.
    async fn become_member(
        &self,
        cluster_id: ClusterId,
        member_id: MemberId,
        recovery: RecoveryId,
    ) -> Result<(), Error> {
        let name = self.shared.member.settings().name.clone();
        let identity = Identity { cluster_id, member_id, name, removed: false, recovery, former: Vec::new() };
        let (dir, create, publisher) =
            (self.shared.member.dir().clone(), identity.clone(), self.shared.published.publisher());
        let create = self.shared.member.blocking(move || Storage::create(&dir, &create, publisher));
        let storage = create.await.map_err(|_| Failure::ShuttingDown)?.map_err(Error::internal)?;
        self.shared.storage.put(storage);
        self.shared.member.set_identity(Some(identity));
        self.shared.raft.set_state(RaftState::Starting);
        Ok(())
    }

    /// See [`crate::Consensus::bootstrap`].
    pub(crate) async fn bootstrap(
        self: Arc<Self>,
        cluster: ClusterId,
        spec: MemberSpec,
        identities: MakeIdentities,
    ) -> Result<Arc<Member>, Error> {
        let step = self.step.lock().await;
        match self.shared.member.identity() {
            Some(identity) if identity.removed => return Err(Failure::Removed.into()),
            // An earlier attempt got this far; nothing was founded.
            Some(identity)
                if identity.member_id == MemberId::FOUNDER
                    && self.shared.published.view.borrow().state.cluster_id.is_none() => {}
            Some(identity) => return Err(Failure::InCluster(identity.cluster_id.to_string()).into()),
            None => self.become_member(cluster, MemberId::FOUNDER, RecoveryId::default()).await?,
        }
        self.run().await?;
        let raft = self.shared.raft.running()?;
        let node = PeerNode { peer_address: spec.peer_address.to_string() };
        match raft.initialize([(MemberId::FOUNDER.0, node)].into_iter().collect::<BTreeMap<_, _>>()).await {
            // Not allowed means that an earlier attempt did it.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(Error::internal(error)),
        }
        drop(step);
        let cluster_id =
            self.shared.member.identity().map(|identity| identity.cluster_id).ok_or(Failure::NoCluster)?;
        let identities = identities(&cluster_id).map_err(Error::internal)?;
        let command = Command::FoundCluster { cluster_id: cluster_id.clone(), member: spec, identities };
        match self.proposals.propose(Proposal { origin: None, request: None, command }, DEFAULT_WAIT).await {
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
        if self.shared.member.identity().is_some_and(|identity| later(&identity) && !identity.removed) {
            self.clone().confirm_removal().await;
        }
        let _step = self.step.lock().await;
        match self.shared.member.identity() {
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

    /// See [`crate::Consensus::take_identity`].
    pub(crate) async fn take_identity(
        self: Arc<Self>,
        cluster_id: ClusterId,
        member_id: MemberId,
        recovery: RecoveryId,
    ) -> Result<(), Error> {
        let _step = self.step.lock().await;
        match self.shared.member.identity() {
            None => self.become_member(cluster_id, member_id, recovery).await,
            Some(identity) if identity.cluster_id == cluster_id && identity.member_id == member_id => Ok(()),
            Some(identity) => Err(Failure::InCluster(identity.cluster_id.to_string()).into()),
        }
    }

    /// See [`crate::Consensus::set_aside_removed`].
    pub(crate) async fn set_aside_removed(self: Arc<Self>) -> Result<(), Error> {
        let _step = self.step.lock().await;
        match self.shared.member.identity() {
            Some(identity) if identity.removed => self.begin_anew(&identity).await,
            _ => Ok(()),
        }
    }

    /// Makes an empty member of one that was removed: moves its data aside and forgets what it was.
    async fn begin_anew(&self, old: &Identity) -> Result<(), Error> {
        let (dir, identity) = (self.shared.member.dir().clone(), old.clone());
        let moved = self.shared.member.blocking(move || identity.set_aside(&dir));
        let aside = moved
            .await
            .map_err(|_| Failure::ShuttingDown)?
            .map_err(|e| Error::internal(format!("the data of {old} cannot be moved aside: {e}")))?;
        tracing::info!(old = %old, data = %aside.display(), "begins anew as another member; its old data is kept");
        self.shared.member.set_identity(None);
        self.shared.raft.set_state(RaftState::Empty);
        self.shared.published.view.send_replace(Arc::new(ClusterView::default()));
        self.shared.published.history.restart_at(0);
        self.shared.quorum.reset();
        self.shared.contact.forget();
        self.shared.removal_reports.clear();
        self.callers.clear();
        self.rollback.clear();
        Ok(())
    }

    /// Records durably that this member was removed, and ends its part in Raft.
    pub(crate) async fn record_removal(self: Arc<Self>) -> Result<(), Error> {
        let _step = self.step.lock().await;
        let Some(identity) = self.shared.member.identity().filter(|identity| !identity.removed) else {
            return Ok(());
        };
        let identity = Identity { removed: true, ..identity };
        let (dir, write) = (self.shared.member.dir().clone(), identity.clone());
        let write = self.shared.member.blocking(move || write.write(&dir));
        write.await.map_err(|_| Failure::ShuttingDown)?.map_err(Error::internal)?;
        self.shared.member.set_identity(Some(identity));
        self.end_raft(RaftState::Removed).await;
        self.shared.removal_reports.clear();
        Ok(())
    }

    /// Stops Raft for good and closes its files.
    pub(crate) async fn stop(self: Arc<Self>) {
        let _step = self.step.lock().await;
        self.shared.member.set_stopping();
        self.shared.published.history.close();
        self.end_raft(RaftState::Stopped).await;
    }

    async fn end_raft(&self, state: RaftState) {
        if let Some(RunningRaft { raft, ended, .. }) = self.shared.raft.replace(None) {
            ended.send_replace(true);
            let down = self.shared.member.runtime().spawn(async move { raft.shutdown().await });
            // A Raft that failed before has ended as well.
            let _ = down.await;
        }
        self.shared.raft.set_state(state);
        if let Some(closed) = self.shared.storage.close()
            && tokio::time::timeout(CLOSE_WAIT, closed.wait()).await.is_err()
        {
            tracing::warn!("the log's files are not closed after {CLOSE_WAIT:?}");
        }
    }

    /// Makes the removal durable, and ends this member's part in Raft.
    async fn end_membership(self: Arc<Self>, by: &str) {
        tracing::warn!("this member was removed from its cluster: {by}");
        if let Err(error) = self.record_removal().await {
            tracing::error!("the removal could not be noted: {error}");
        }
    }

    /// Notes the removal of this member if the leader confirms it.
    pub(crate) async fn confirm_removal(self: Arc<Self>) -> RemovalVerdict {
        let verdict = self.removal.verify().await;
        if verdict == RemovalVerdict::Removed {
            self.end_membership(CONFIRMED).await;
        }
        verdict
    }

    /// Calls the voters from before this member was made a cluster, except those that are members again.
    async fn call(&self, former: &[FormerVoter]) {
        let role = self.shared.raft.role().clone();
        let known: Vec<&String> = role.voters.values().chain(role.learners.values()).collect();
        // Raft calls the members that have rejoined at such an address.
        let gone = former.iter().filter(|voter| !known.iter().any(|at| *at == voter.peer_address.as_str()));
        join_all(gone.map(|voter| self.rollback.ask(voter.id.0, voter.peer_address.as_str()))).await;
    }
}

/// Time between two calls of the voters from before a recovery.
const CALL_FORMER_EVERY: Duration = Duration::from_secs(10);

/// Calls the voters from before this member was made a cluster, again and again: a member that was made a cluster too, and a
/// member from before, would not hear of this one otherwise.
async fn call_former(core: Weak<Core>, former: Vec<FormerVoter>) {
    loop {
        let Some(core) = core.upgrade().filter(|core| !core.shared.member.is_stopping()) else { return };
        core.call(&former).await;
        drop(core);
        tokio::time::sleep(CALL_FORMER_EVERY).await;
    }
}
