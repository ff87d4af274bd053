//! The one handle that the rest of the program has on Raft.

mod joining;
mod simulated;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_server::RaftServiceServer;
use trestle_model::{
    ClusterId, Command, HostPort, Member, MemberId, MemberSockets, MemberSpec, Origin, Proposal, Request,
    TransportSecurity,
};

use crate::error::{Error, RaftStartError};
use crate::history::ChangeHistory;
use crate::identity::{Identity, RecoveryId};
use crate::leadership::Leadership;
use crate::lifecycle::MakeIdentities;
use crate::member::ConsensusSettings;
use crate::membership::{MembershipProgress, RemovalOutcome};
use crate::network::MESSAGE_MAX;
#[cfg(test)]
use crate::network::WINDOW;
use crate::parts::Core;
use crate::peer_calls::AppliedProposal;
use crate::platform::Platform;
use crate::propose::DEFAULT_WAIT;
use crate::replica::ClusterView;
use crate::service::Service;
use crate::status::{RaftRole, RaftStatus};
use crate::store::{LogWork, OpenError};
use crate::timing::Timing;

/// Raft does little at a time but must never wait: one thread may be busy encoding while another answers a heartbeat.
const RAFT_THREADS: usize = 2;

/// Longest wait for the threads to end at shutdown; what still runs then is left behind.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Raft's own runtime. Ends its threads when dropped, without waiting for them, from wherever that is.
struct OwnRuntime(Mutex<Option<Runtime>>);

impl OwnRuntime {
    fn take(&self) -> Option<Runtime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

/// This member's part in the cluster. Clones share it. Its methods may be called on any tokio runtime; Raft itself, its
/// connections and its disk have threads of their own, which end with [`shutdown`](Self::shutdown) or the last clone.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) core: Arc<Core>,
    runtime: Arc<OwnRuntime>,
}

impl Consensus {
    /// Opens what is on disk: identity, log, snapshots. Opens nothing on the network and takes no part in anything yet.
    ///
    /// # Errors
    /// When the data directory cannot be used; the error says why and what to do.
    pub async fn open(settings: ConsensusSettings) -> Result<Self, OpenError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(RAFT_THREADS)
            .thread_name("trestle-raft")
            .enable_all()
            .build()
            .map_err(OpenError::io("start threads for", &settings.data_dir))?;
        let handle = runtime.handle().clone();
        let runtime = Arc::new(OwnRuntime(Mutex::new(Some(runtime))));
        let core = Core::open(settings, handle, Platform::System).await?;
        Ok(Self { core: Arc::new(core), runtime })
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    #[cfg(test)]
    pub(crate) fn weak(&self) -> std::sync::Weak<Core> {
        Arc::downgrade(&self.core)
    }

    /// Who this member is; `None` while it is empty.
    pub fn identity(&self) -> Option<Identity> {
        self.core.shared.member.identity()
    }

    /// Whether this member was removed from its cluster. Such a member takes part in nothing any more.
    pub fn was_removed(&self) -> bool {
        self.core.shared.member.was_removed()
    }

    /// What this member finds wrong about its own part in the cluster, in words; empty for nothing.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.core.shared.abstentions.why().into_iter().collect();
        problems.extend(self.core.removal.problems());
        problems.extend(self.core.shared.recoveries.problems(Instant::now()));
        problems
    }

    /// What the ports of this member's cluster accept, by what is on its disk before [`start`](Self::start); `None` where that does not
    /// say. An entry of the log says so whether it is committed or not.
    pub fn transport_on_disk(&self) -> Option<TransportSecurity> {
        let state = self.core.shared.published.view.borrow().state.clone();
        let in_log = self.core.shared.storage.transport();
        in_log.or_else(|| state.cluster_id.as_ref().map(|_| state.transport))
    }

    /// Starts Raft on a member that has an identity. One that may have voted before waits first, without answering its
    /// peers, until each promise that it may have given has run out: it no longer knows of them.
    ///
    /// # Errors
    /// When the member is empty or was removed, or Raft cannot start with what is on disk.
    pub async fn start(&self) -> Result<(), RaftStartError> {
        self.core.clone().start().await
    }

    /// The service that answers other members' Raft calls; mount it from the first moment.
    pub fn raft_service(&self) -> RaftServiceServer<Service> {
        RaftServiceServer::new(Service::new(self.core.clone()))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// Silence after which a peer port probes a connection, and how long the probe may take: dead connections must be found.
    /// Serve peers on [`runtime`](Self::runtime), so that heartbeats are answered whatever else is going on, with windows of
    /// [`PEER_WINDOW`](crate::PEER_WINDOW), and with TCP_NODELAY on what is accepted: without it an answer waits up to 40 ms
    /// for the delayed acknowledgement of the one before.
    pub fn peer_keep_alive(&self) -> (Duration, Duration) {
        let interval = self.core.shared.member.timing().keep_alive_interval().max(Duration::from_secs(1));
        (interval, Duration::from_secs(5))
    }

    /// A server for peers, for tests of this crate.
    #[cfg(test)]
    pub(crate) fn peer_server(&self) -> tonic::transport::Server {
        let (interval, timeout) = self.peer_keep_alive();
        tonic::transport::Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout))
    }

    /// Raft's runtime, for the peer port.
    pub fn runtime(&self) -> Handle {
        self.core.shared.member.runtime().clone()
    }

    /// Founds a cluster with this empty member as its only voter. Repeating it after a failure goes on with the cluster
    /// id of the first attempt.
    ///
    /// # Errors
    /// When the member belongs to a cluster, the disk fails, or `identities` does.
    pub async fn bootstrap(
        &self,
        cluster_id: ClusterId,
        spec: MemberSpec,
        identities: MakeIdentities,
    ) -> Result<Arc<Member>, Error> {
        self.core.clone().bootstrap(cluster_id, spec, identities).await
    }

    /// Gives this empty member its identity, durably, and starts Raft, which then waits for a leader to call. `recovery` is
    /// the last time that the cluster was made anew from one member. Does nothing when it has that identity.
    ///
    /// # Errors
    /// When the member belongs to another cluster or has another id, or the disk fails.
    pub async fn adopt(
        &self,
        cluster_id: ClusterId,
        member_id: MemberId,
        recovery: RecoveryId,
    ) -> Result<(), Error> {
        self.core.clone().adopt(cluster_id, member_id, recovery).await
    }

    /// Proposes a command, on the leader wherever it is, and waits until it is committed and applied there. Waits up to
    /// `within` for a leader. Only a proposal that carries a request is tried again after it may have been written.
    ///
    /// # Errors
    /// The state's refusal, as such or as another member's status; no leader in time: nothing was changed; outcome
    /// unknown: it may have been written.
    pub async fn propose(&self, proposal: Proposal, within: Duration) -> Result<AppliedProposal, Error> {
        self.core.proposals.propose(proposal, within).await
    }

    /// Proposes a command on this member, which must be the leader.
    ///
    /// # Errors
    /// As [`propose`](Self::propose), but at once when this member does not lead.
    pub async fn propose_here(&self, proposal: Proposal, within: Duration) -> Result<AppliedProposal, Error> {
        self.core.proposals.propose_here(proposal, within).await
    }

    /// Proposes a command on this member, which must lead in exactly this term when Raft appends it: it is never forwarded,
    /// and never written for another term.
    ///
    /// # Errors
    /// The state's refusal; no leader: this member does not lead in that term or has no quorum, and nothing was written;
    /// outcome unknown: it may have been written, or still be, in that term.
    pub async fn propose_in_term(
        &self,
        proposal: Proposal,
        term: u64,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        self.core.proposals.propose_in_term(proposal, term, within).await
    }

    /// The answer that a request got before, as far as this member has applied the log.
    ///
    /// # Errors
    /// The state's refusal, when another request had the same id; Raft is stopped.
    pub async fn answered(&self, request: &Request) -> Result<Option<AppliedProposal>, Error> {
        self.core.proposals.answered(request).await
    }

    /// A state that has every write in it that was acknowledged anywhere before this call.
    ///
    /// # Errors
    /// When no leader with a quorum is found `within` that time.
    pub async fn read(&self, within: Duration) -> Result<Arc<ClusterView>, Error> {
        self.core.reads.read(within).await
    }

    /// Confirms that this member leads, and answers the log index that a linearizable read must have applied.
    ///
    /// # Errors
    /// When this member does not lead or does not hear from a quorum.
    pub async fn read_index_here(&self, within: Duration) -> Result<u64, Error> {
        self.core.reads.read_index_here(within).await
    }

    /// The state as this member knows it now, possibly stale.
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.core.shared.published.view.subscribe()
    }

    /// The recent changes, for watches.
    pub fn history(&self) -> ChangeHistory {
        self.core.shared.published.history.clone()
    }

    /// What this member says of its part in Raft now.
    pub fn status(&self) -> RaftStatus {
        self.core.status()
    }

    /// Why this member takes no part in elections and answers no reads, in a sentence to follow its name; `None` when it does.
    pub fn abstains(&self) -> Option<String> {
        self.core.shared.abstentions.why()
    }

    /// The part of the status that changes rarely: state, term, leader, members.
    pub fn role(&self) -> watch::Receiver<RaftRole> {
        self.core.shared.raft.watch_role()
    }

    /// Raft's clock of this member.
    pub fn timing(&self) -> Timing {
        *self.core.shared.member.timing()
    }

    /// Whether this member leads, how it was elected, and when a quorum last confirmed it. Published as each answer arrives,
    /// whatever the disk or the API is busy with.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.shared.quorum.subscribe()
    }

    /// What the thread that writes this member's log was given and has done; `None` while Raft does not run.
    pub fn log_work(&self) -> Option<LogWork> {
        self.core.shared.raft.log_probe().map(|probe| probe.work())
    }

    /// Gives that thread something that takes no write, so that it is known to live while nothing is to be written.
    pub fn touch_log(&self) {
        if let Some(probe) = self.core.shared.raft.log_probe() {
            probe.touch();
        }
    }

    /// The other voters that leadership could go to now, because they answer and have caught up; the one with most of the
    /// log first. Empty when this member does not lead, or hears no quorum.
    pub fn targets(&self) -> Vec<MemberId> {
        self.core.memberships.targets()
    }

    /// Takes in the empty member that `spec` describes as a learner, for whoever `origin` says; on the leader only. Repeating
    /// it goes on where an earlier call stopped. Stops when the receiver of `progress` is gone.
    ///
    /// # Errors
    /// When this member does not lead, the new one refuses or cannot be reached, or a name or address is taken.
    pub async fn add(
        &self,
        spec: MemberSpec,
        origin: Option<Origin>,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<Arc<Member>, Error> {
        self.core.memberships.add(spec, origin, progress).await
    }

    /// Says whether the member that `spec` describes could be added now, and changes nothing. Answers it as it would be recorded,
    /// with id 0 unless an earlier call has made its record.
    ///
    /// # Errors
    /// As [`Consensus::add`].
    pub async fn try_add(&self, spec: &MemberSpec) -> Result<Arc<Member>, Error> {
        self.core.memberships.try_add(spec).await
    }

    /// Says whether a learner could be promoted now, and changes nothing. Answers the warnings.
    ///
    /// # Errors
    /// As [`Consensus::promote`].
    pub async fn try_promote(&self, id: MemberId) -> Result<Vec<String>, Error> {
        self.core.memberships.try_promote(id).await
    }

    /// Says whether a member could be removed now, and changes nothing. Answers the warnings.
    ///
    /// # Errors
    /// As [`Consensus::remove`].
    pub async fn try_remove(&self, id: MemberId) -> Result<Vec<String>, Error> {
        self.core.memberships.try_remove(id).await
    }

    /// Makes a learner a voter; on the leader only. Answers warnings.
    ///
    /// # Errors
    /// When this member does not lead, or the learner does not answer or lags.
    pub async fn promote(
        &self,
        id: MemberId,
        progress: &mpsc::Sender<MembershipProgress>,
    ) -> Result<Vec<String>, Error> {
        self.core.memberships.promote(id, progress).await
    }

    /// Changes where a member is reached; on the leader only. Repeating it goes on where an earlier call stopped.
    ///
    /// # Errors
    /// When this member does not lead, there is no such member, or another one has that peer address.
    pub async fn relocate(
        &self,
        id: MemberId,
        peer_address: Option<HostPort>,
        admin_address: Option<HostPort>,
        origin: Option<Origin>,
    ) -> Result<Arc<Member>, Error> {
        self.core.memberships.relocate(id, peer_address, admin_address, origin).await
    }

    /// Whether a member is of a recovery of this cluster that this member is neither of before nor of after: there are two
    /// clusters of that name then.
    pub fn is_another_recovery(&self, theirs: RecoveryId) -> bool {
        self.core.recovery.is_another(theirs)
    }

    /// Records which process is a member now, where it listens and what its program knows; on the leader only. `replaces` is
    /// what was recorded before, or 0.
    ///
    /// # Errors
    /// When this member does not lead, there is no such member, its program is too old, or something else is recorded by now.
    pub async fn note_start(
        &self,
        member: MemberId,
        start: u64,
        replaces: u64,
        sockets: Option<MemberSockets>,
        feature_level_max: u32,
    ) -> Result<(), Error> {
        self.core.memberships.note_start(member, (start, replaces), sockets, feature_level_max).await
    }

    /// Raises the cluster's feature level; on the leader only, when every member runs the process that is recorded.
    ///
    /// # Errors
    /// When this member does not lead, or a member is recorded that does not know the level.
    pub async fn raise_level(&self, level: u32) -> Result<(), Error> {
        let command = Command::RaiseLevel { level };
        let proposal = Proposal { origin: None, request: None, command };
        self.core.proposals.propose_here(proposal, DEFAULT_WAIT).await.map(|_| ())
    }

    /// Has this member abstain because another process is the member that it was, for this reason in a sentence to follow its
    /// name; or not any more.
    pub fn displace(&self, why: Option<String>) {
        self.core.shared.abstentions.set_displaced(why);
    }

    /// Removes a member, running or lost; on the leader only. When it is the leader itself, nothing is done: let leadership
    /// move, then ask the new leader.
    ///
    /// # Errors
    /// When this member does not lead, or those left could not form a quorum now.
    pub async fn remove(&self, id: MemberId, origin: Option<Origin>) -> Result<RemovalOutcome, Error> {
        self.core.memberships.remove(id, origin).await
    }

    /// Hands leadership over, to the voter that is best caught up unless `to` names one; on the leader only. Answers who
    /// leads then, and its term.
    ///
    /// Only what decides who serves the virtual IPs may call this, after this member has let go of all of them: a transfer makes
    /// voters disregard the lease of the leader that begins it. Where that is not on record the successor waits for the lease.
    ///
    /// # Errors
    /// When this member does not lead, the target is not fit to, or another was elected.
    pub async fn transfer(&self, to: Option<MemberId>) -> Result<(MemberId, u64), Error> {
        self.core.memberships.transfer(to).await
    }

    /// Answers another member's `PeerService.Propose`, if `may` lets it.
    ///
    /// # Errors
    /// The status to answer.
    pub async fn serve_propose(
        &self,
        request: proto::ProposeRequest,
        may: impl FnOnce(&Proposal) -> Result<(), Status> + Send,
    ) -> Result<proto::ProposeResponse, Status> {
        self.core.serve_propose(request, may).await
    }

    /// Answers another member's `PeerService.ReadIndex`.
    ///
    /// # Errors
    /// The status to answer.
    pub async fn serve_read_index(
        &self,
        request: proto::ReadIndexRequest,
    ) -> Result<proto::ReadIndexResponse, Status> {
        self.core.serve_read_index(request).await
    }

    /// Answers the leader's `PeerService.Adopt`.
    ///
    /// # Errors
    /// The status to answer.
    pub async fn serve_adopt(&self, request: proto::AdoptRequest) -> Result<proto::AdoptResponse, Status> {
        self.core.clone().serve_adopt(request).await
    }

    /// Answers the leader's `PeerService.Dismiss`.
    ///
    /// # Errors
    /// The status to answer.
    pub async fn serve_notify_removed(
        &self,
        request: proto::NotifyRemovedRequest,
    ) -> Result<proto::NotifyRemovedResponse, Status> {
        self.core.clone().serve_notify_removed(request).await
    }

    /// Resolves when Raft or its disk has failed, with the reason. The process must exit then: what it has in memory may
    /// no longer be what is on disk.
    pub async fn failed(&self) -> String {
        self.core.shared.raft.failed().await
    }

    /// Stops Raft, closes its files and ends its threads. Servers on [`runtime`](Self::runtime) end too: stop them first.
    pub async fn shutdown(&self) {
        self.core.clone().stop().await;
        // A runtime must not be waited for by one of its own threads, and this may run on any.
        let own = self.runtime.clone();
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let reaper = std::thread::Builder::new().name("trestle-reaper".to_owned());
        let spawned = reaper.spawn(move || {
            if let Some(runtime) = own.take() {
                runtime.shutdown_timeout(SHUTDOWN_WAIT);
            }
            drop(ended);
        });
        if spawned.is_ok() {
            // Nothing is ever sent: the end of the channel is the end of the runtime.
            let _ = end.await;
        }
    }
}
