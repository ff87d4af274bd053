//! Raft's calls as they arrive from other members.

mod peer;
mod snapshot;

use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_server::RaftService;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::status::{self, Failure};
use trestle_model::MemberId;

use crate::abstention::OutdatedProgram;
use crate::identity::{Identity, RecoveryId};
use crate::parts::Core;
use crate::raft_types::{TypeConfig, Vote};
use crate::replica::RaftHandle;
use crate::status::RaftState;
use crate::store::SyncedIndex;
use crate::vote_guard::PendingVote;
use crate::wire::{self, WireError};

/// Answers other members' Raft calls; until Raft runs, with `UNAVAILABLE`.
#[derive(Clone)]
pub struct Service {
    core: Arc<Core>,
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Raft has stopped: {error}"))
}

/// Why an append is refused.
enum AppendRefusal {
    /// This member has given or seen a later vote.
    Later(Vote),
    With(Status),
}

impl From<Status> for AppendRefusal {
    fn from(status: Status) -> Self {
        AppendRefusal::With(status)
    }
}

impl From<AppendRefusal> for Status {
    fn from(refused: AppendRefusal) -> Self {
        match refused {
            AppendRefusal::Later(vote) => {
                Status::failed_precondition(format!("this member has seen a later vote, {vote}"))
            }
            AppendRefusal::With(status) => status,
        }
    }
}

impl Service {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The identity of this member, if the call is for it.
    fn meant(&self, to: &proto::Destination) -> Result<Identity, Status> {
        let Some(identity) = self.core.shared.member.identity() else {
            return Err(status::failure(&Failure::NoCluster));
        };
        if identity.cluster_id.as_str() != to.cluster_id || identity.member_id.0 != to.member_id {
            return Err(Status::failed_precondition(format!(
                "this is {identity}, the call is for member {} of cluster {}",
                to.member_id, to.cluster_id
            )));
        }
        self.core.recovery.check(RecoveryId { number: to.recovery, draw: to.recovery_draw })?;
        Ok(identity)
    }

    /// What this member knows of the disk of another one that asks, and what it has on its own.
    fn disks(&self, of: u64, to: &proto::Destination) -> Result<(SyncedIndex, SyncedIndex), Status> {
        self.meant(to)?;
        self.core.rollback.note_disks(of, to).map_err(malformed)?;
        Ok(self.core.rollback.disks(of))
    }

    /// The running Raft, if the call is for this member of this cluster.
    fn addressed(&self, to: Option<&proto::Destination>) -> Result<RaftHandle, Status> {
        let to = to.ok_or_else(|| Status::invalid_argument("a Raft call names no destination"))?;
        let identity = self.meant(to)?;
        self.core.callers.check_timing(to.vote_refusal_ms)?;
        if identity.removed || self.core.shared.raft.role().state == RaftState::Removed {
            return Err(status::failure(&Failure::Removed));
        }
        self.core
            .shared
            .raft
            .handle()
            .ok_or_else(|| Status::unavailable("this member does not take part in Raft yet; try again"))
    }

    /// The running Raft and the decoded request, if a candidate may ask this member for a vote.
    fn candidate(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<(RaftHandle, VoteRequest<TypeConfig>), Status> {
        let caller = PeerCaller::of(&request)?;
        let message = request.into_inner();
        let raft = self.addressed(message.to.as_ref())?;
        let to = message.to.clone().unwrap_or_default();
        let request = wire::vote_request(message).map_err(malformed)?;
        caller.is(MemberId(request.vote.leader_id.node_id))?;
        self.admit_candidate(&raft, &request)?;
        self.core.rollback.note_disks(request.vote.leader_id.node_id, &to).map_err(malformed)?;
        Ok((raft, request))
    }

    /// The message for an answer, which is a sign of life of the leader unless it says that there is a newer one.
    fn appended(&self, answer: &AppendEntriesResponse<TypeConfig>) -> proto::AppendEntriesResponse {
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.core.shared.contact.note();
        }
        wire::append_response_message(answer)
    }

    /// Notes a call of a leader that Raft will believe, before Raft gets it: from then on the leader may count on this member
    /// (the reported vote may be old, never too new).
    fn note_leader(&self, raft: &RaftHandle, vote: &Vote) {
        if *vote >= raft.server_metrics().borrow_watched().vote {
            self.core.shared.contact.note_leader(vote);
        }
    }

    /// Decodes an append, and refuses one that no leader of this cluster can have sent. Raft takes each of them for fatal.
    fn append_request(
        &self,
        raft: &RaftHandle,
        caller: PeerCaller,
        message: proto::AppendEntriesRequest,
    ) -> Result<AppendEntriesRequest<TypeConfig>, AppendRefusal> {
        let to = message.to.clone().unwrap_or_default();
        // Who may send entries at all comes first: it may be told of them that they are newer than this program.
        let vote = wire::leader_vote("append request", message.vote).map_err(malformed)?;
        caller.is(MemberId(vote.leader_id.node_id))?;
        self.core.callers.admit(raft, &vote, true)?;
        let level_max = self.core.shared.member.settings().feature_level_max;
        let request =
            wire::append_request(message, level_max).map_err(|e| self.unreadable(raft, &vote, e))?;
        self.core.rollback.note_disks(request.vote.leader_id.node_id, &to).map_err(malformed)?;
        if let Some(later) = self.core.rollback.forgotten_vote(&request.vote) {
            return Err(AppendRefusal::Later(later));
        }
        let ids = request.prev_log_id.into_iter().chain(request.entries.iter().map(|entry| entry.log_id));
        let contradicted = self.core.shared.raft.log().and_then(|log| log.contradicted(ids));
        if let Some(id) = contradicted {
            let why = format!("log entry {id} is not the one that is committed at this index");
            return Err(Status::failed_precondition(why).into());
        }
        self.note_leader(raft, &request.vote);
        if let Some(last) = request.entries.last() {
            self.core.shared.abstentions.set_readable(last.log_id);
        }
        Ok(request)
    }

    /// Notes that a leader's log has what this program does not know. Nothing of the request is taken: this member stays as it
    /// is, hears the leader's heartbeats, and is sent the same again until it is upgraded.
    fn unreadable(&self, raft: &RaftHandle, vote: &Vote, error: WireError) -> Status {
        match error {
            WireError::Newer { id, what } => {
                self.outdated(raft, vote, OutdatedProgram { at: id, what: what.into() })
            }
            other => malformed(other),
        }
    }

    /// Notes that this member's program is too old for what the leader by `vote` has, unless a later one is known; answers what
    /// that leader hears, which leaves the member alone for a while then.
    fn outdated(&self, raft: &RaftHandle, vote: &Vote, outdated: OutdatedProgram) -> Status {
        let words = outdated.words();
        if *vote >= raft.server_metrics().borrow_watched().vote {
            self.core.shared.abstentions.set_outdated(outdated);
        }
        status::failure(&Failure::Outdated(words))
    }

    /// Has Raft take an append. Raft answers once all that it took before is on the disk. A leader that only wants to be heard has
    /// been when its call came, and not be without a quorum because disks are slow: it is answered in time all the same, if this
    /// member follows it and has helped nobody to become a later one.
    async fn take_append(
        &self,
        raft: &RaftHandle,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>> {
        let (vote, heartbeat) = (request.vote, request.entries.is_empty());
        let mut append = pin!(raft.append_entries(request));
        let patience = self.core.shared.member.timing().heartbeat / 2;
        if heartbeat && let Ok(answer) = timeout(patience, &mut append).await {
            return answer;
        }
        let follows = raft.server_metrics().borrow_watched().vote == vote;
        if heartbeat && follows && !self.core.shared.contact.may_have_helped_after(vote.leader_id.term) {
            return Ok(AppendEntriesResponse::Success);
        }
        append.await
    }

    /// Whether this member has heard a leader too lately to help another one, which that leader has not asked for. Raft
    /// refuses for as long, but forgets it when it hears of a transfer or has voted for anybody since.
    fn is_bound(&self, request: &VoteRequest<TypeConfig>) -> bool {
        !request.leadership_transfer && self.core.shared.contact.bars_votes()
    }

    /// Refuses a caller that cannot be a candidate, and tells a removed member that it was removed.
    fn admit_candidate(&self, raft: &RaftHandle, request: &VoteRequest<TypeConfig>) -> Result<(), Status> {
        // One that goes on no further has the same membership as this member, or an older one.
        let last = raft.data_metrics().borrow_watched().last_log;
        self.core.callers.admit(raft, &request.vote, request.last_log_id > last)
    }
}

/// Decodes requests until one is not for this member or makes no sense; `reject` gets why.
fn accepted(
    (service, caller): (Service, PeerCaller),
    first: proto::AppendEntriesRequest,
    rest: Streaming<proto::AppendEntriesRequest>,
    reject: oneshot::Sender<Status>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    let requests = stream::once(async move { Ok(first) }).chain(rest);
    let decoded = requests.map(move |message| {
        let message = message?;
        let raft = service.addressed(message.to.as_ref())?;
        service.append_request(&raft, caller, message).map_err(Status::from)
    });
    stream::unfold((Box::pin(decoded), reject), |(mut decoded, reject)| async move {
        match decoded.next().await? {
            Ok(request) => Some((request, (decoded, reject))),
            Err(status) => {
                // Nobody waits for the reason once the answers have ended.
                let _ = reject.send(status);
                None
            }
        }
    })
}

/// A vote that is not given, in Raft's words.
fn not_granted(raft: &RaftHandle) -> Response<proto::VoteResponse> {
    let vote = raft.server_metrics().borrow_watched().vote;
    let last = raft.data_metrics().borrow_watched().last_log;
    Response::new(wire::vote_response_message(&VoteResponse { vote, vote_granted: false, last_log_id: last }))
}

#[tonic::async_trait]
impl RaftService for Service {
    async fn append_entries(
        &self,
        request: Request<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesResponse>, Status> {
        let caller = PeerCaller::of(&request)?;
        let message = request.into_inner();
        let raft = self.addressed(message.to.as_ref())?;
        let request = match self.append_request(&raft, caller, message) {
            Ok(request) => request,
            // The leader is not one any more, and steps down when it hears so.
            Err(AppendRefusal::Later(vote)) => {
                let answer = AppendEntriesResponse::HigherVote(vote);
                return Ok(Response::new(wire::append_response_message(&answer)));
            }
            Err(AppendRefusal::With(status)) => return Err(status),
        };
        let answer = self.take_append(&raft, request).await.map_err(stopped)?;
        Ok(Response::new(self.appended(&answer)))
    }

    type AppendStreamStream = BoxStream<'static, Result<proto::AppendEntriesResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<proto::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let caller = PeerCaller::of(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let raft = self.addressed(first.to.as_ref())?;
        let (reject, rejected) = oneshot::channel();
        let service = self.clone();
        let answers = raft
            .stream_append(accepted((self.clone(), caller), first, requests, reject))
            .map(move |answer| Ok(service.appended(&AppendEntriesResponse::from(answer.map_err(stopped)?))));
        let reason = stream::once(rejected).filter_map(|reason| async move { reason.ok().map(Err) });
        Ok(Response::new(answers.chain(reason).boxed()))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let (raft, mut request) = self.candidate(request)?;
        request.leadership_transfer =
            request.leadership_transfer && self.core.callers.is_confirmed_transfer(&request).await;
        let term = request.vote.leader_id.term;
        if self.is_bound(&request) || self.core.rollback.withholds_vote(&request) {
            return Ok(not_granted(&raft));
        }
        self.core.shared.contact.note_candidate(term);
        let Some(asked) = PendingVote::ask(&self.core.shared.member.settings().vote_guard, term) else {
            tracing::info!(term, "gave no vote: this member is not free to");
            return Ok(not_granted(&raft));
        };
        let answer = raft.vote(request.clone()).await.map_err(stopped)?;
        asked.answered(answer.vote_granted);
        // A leader may have been heard after the first look and before Raft voted. A vote that nobody learns of counts for
        // nobody.
        if self.is_bound(&request) {
            return Ok(not_granted(&raft));
        }
        Ok(Response::new(wire::vote_response_message(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let (raft, mut request) = self.candidate(request)?;
        // Nobody asks before an election that the leader wishes.
        request.leadership_transfer = false;
        if self.is_bound(&request) || self.core.rollback.withholds_vote(&request) {
            return Ok(not_granted(&raft));
        }
        let answer = raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_message(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let caller = PeerCaller::of(&request)?;
        let message = request.into_inner();
        let raft = self.addressed(message.to.as_ref())?;
        let to = message.to.clone().unwrap_or_default();
        let request = wire::transfer_request(message).map_err(malformed)?;
        let leader = request.from_leader().leader_id;
        caller.is(MemberId(leader.node_id))?;
        self.core.callers.admit(&raft, request.from_leader(), true)?;
        self.core.rollback.note_disks(leader.node_id, &to).map_err(malformed)?;
        if let Some(why) = self.core.shared.abstentions.why() {
            return Err(Status::failed_precondition(format!("this member cannot lead; {why}")));
        }
        // An election deposes the leader, so the leader itself must confirm the transfer.
        if !self.core.callers.is_transferring_to(leader.term, leader.node_id, *request.to_node_id()).await {
            return Err(Status::failed_precondition(format!(
                "member {} does not confirm that it hands leadership to member {}",
                leader.node_id,
                request.to_node_id()
            )));
        }
        let answer = raft.handle_transfer_leader(request).await;
        let answer = answer.map_err(stopped)?;
        answer.map_err(|e| Status::failed_precondition(e.to_string()))?;
        Ok(Response::new(proto::TransferLeaderResponse {}))
    }

    async fn check_disk(
        &self,
        request: Request<proto::CheckDiskRequest>,
    ) -> Result<Response<proto::CheckDiskResponse>, Status> {
        let caller = PeerCaller::of(&request)?;
        let message = request.into_inner();
        let to = message.to.ok_or_else(|| Status::invalid_argument("a question names no destination"))?;
        caller.is(MemberId(message.member_id))?;
        let (known, own) = self.disks(message.member_id, &to)?;
        let (known, own) = (Some(wire::synced_index_message(&known)), Some(wire::synced_index_message(&own)));
        Ok(Response::new(proto::CheckDiskResponse { known, own }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::InstallSnapshotRequest>>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        let caller = PeerCaller::of(&request)?;
        self.install_snapshot(caller, request.into_inner()).await.map(Response::new)
    }

    async fn confirm_transfer(
        &self,
        request: Request<proto::ConfirmTransferRequest>,
    ) -> Result<Response<proto::ConfirmTransferResponse>, Status> {
        let message = request.into_inner();
        self.addressed(message.to.as_ref())?;
        let again = self.core.shared.member.id().is_some_and(|me| me.0 == message.to_member_id)
            && self.core.shared.quorum.was_reelected_after(message.term);
        let confirmed =
            again || self.core.shared.quorum.is_transferring_to(message.term, message.to_member_id);
        Ok(Response::new(proto::ConfirmTransferResponse { confirmed }))
    }

    async fn check_member(
        &self,
        request: Request<proto::CheckMemberRequest>,
    ) -> Result<Response<proto::CheckMemberResponse>, Status> {
        let message = request.into_inner();
        let raft = self.addressed(message.to.as_ref())?;
        Ok(Response::new(self.core.removal.serve_check_member(&raft, message.member_id).await))
    }
}
