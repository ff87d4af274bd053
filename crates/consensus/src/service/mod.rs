//! Raft's calls as they arrive from other members.

mod snapshot;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
use trestle_api::status::{self, Failure};

use crate::identity::Identity;
use crate::raft_types::{TypeConfig, Vote};
use crate::recovery::RecoveryId;
use crate::shared::{Core, RaftHandle};
use crate::status::RaftState;
use crate::store::SyncedIndex;
use crate::vote_guard::PendingVote;
use crate::wire::{self, WireError};

/// Answers other members' Raft calls; until Raft runs, with `UNAVAILABLE`.
pub struct Service(pub(crate) Arc<Core>);

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

impl Core {
    /// Who this member is, if the call is for it.
    fn meant(&self, to: &proto::Destination) -> Result<Identity, Status> {
        let Some(identity) = self.identity() else {
            return Err(status::failure(&Failure::NoCluster));
        };
        if identity.cluster_id.as_str() != to.cluster_id || identity.member_id.0 != to.member_id {
            return Err(Status::failed_precondition(format!(
                "this is {identity}, the call is for member {} of cluster {}",
                to.member_id, to.cluster_id
            )));
        }
        self.same_recovery(RecoveryId { number: to.recovery, draw: to.recovery_draw })?;
        Ok(identity)
    }

    /// What this member knows of the disk of another one that asks, and what it has on its own.
    fn serve_check_disk(
        self: &Arc<Self>,
        from: u64,
        to: &proto::Destination,
    ) -> Result<(SyncedIndex, SyncedIndex), Status> {
        self.meant(to)?;
        self.note_disks(from, to).map_err(malformed)?;
        let own = self.max_synced().map(|max_synced| *max_synced.borrow()).unwrap_or_default();
        Ok((self.known_disks.of(from), own))
    }

    /// A later vote than that of this leader which this member has given or seen, and forgotten with its disk.
    fn later_vote(&self, vote: &Vote) -> Option<Vote> {
        self.abstention.borrow().rolled_back.as_ref()?.later_than(vote)
    }

    /// The running Raft, if the call is for this member of this cluster.
    fn addressed(&self, to: Option<&proto::Destination>) -> Result<RaftHandle, Status> {
        let to = to.ok_or_else(|| Status::invalid_argument("a Raft call names no destination"))?;
        let identity = self.meant(to)?;
        self.agrees(to.vote_refusal_ms)?;
        if identity.removed || self.role.borrow().state == RaftState::Removed {
            return Err(status::failure(&Failure::Removed));
        }
        self.raft()
            .ok_or_else(|| Status::unavailable("this member does not take part in Raft yet; try again"))
    }

    /// Refuses a caller whose voters stand by a leader for another time than this one's: who may serve while nobody else does
    /// follows from all having the same.
    fn agrees(&self, theirs: u32) -> Result<(), Status> {
        let mine = self.settings.timing.vote_refusal_ms();
        if theirs == mine {
            return Ok(());
        }
        let why = format!(
            "election timeouts of up to {theirs} ms do not go with this member's, of up to {mine} ms: give all members the same \
             profile"
        );
        if self.last_mismatch_ms.swap(theirs, Ordering::Relaxed) != theirs {
            tracing::warn!("refused another member's Raft calls: {why}");
        }
        Err(Status::failed_precondition(why))
    }

    /// The message for an answer, which is a sign of life of the leader unless it says that there is a newer one.
    fn appended(&self, answer: &AppendEntriesResponse<TypeConfig>) -> proto::AppendEntriesResponse {
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.leader_contact.note();
        }
        wire::append_response_message(answer)
    }

    /// Notes a call of a leader that Raft will believe, before Raft gets it: from then on the leader may count on this member
    /// (the reported vote may be old, never too new).
    fn note_leader(&self, raft: &RaftHandle, vote: &Vote) {
        if *vote >= raft.server_metrics().borrow_watched().vote {
            self.leader_contact.note_leader(vote);
        }
    }

    /// Decodes an append, and refuses one that no leader of this cluster can have sent. Raft takes each of them for fatal.
    fn append_request(
        self: &Arc<Self>,
        raft: &RaftHandle,
        message: proto::AppendEntriesRequest,
    ) -> Result<AppendEntriesRequest<TypeConfig>, AppendRefusal> {
        let to = message.to.clone().unwrap_or_default();
        let request = wire::append_request(message).map_err(malformed)?;
        self.admit(raft, &request.vote, true)?;
        self.note_disks(request.vote.leader_id.node_id, &to).map_err(malformed)?;
        if let Some(later) = self.later_vote(&request.vote) {
            return Err(AppendRefusal::Later(later));
        }
        let ids = request.prev_log_id.into_iter().chain(request.entries.iter().map(|entry| entry.log_id));
        let contradicted = self.log_reader().and_then(|log| log.contradicted(ids));
        if let Some(id) = contradicted {
            let why = format!("log entry {id} is not the one that is committed at this index");
            return Err(Status::failed_precondition(why).into());
        }
        self.note_leader(raft, &request.vote);
        Ok(request)
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
        let patience = self.settings.timing.heartbeat / 2;
        if heartbeat && let Ok(answer) = timeout(patience, &mut append).await {
            return answer;
        }
        let follows = raft.server_metrics().borrow_watched().vote == vote;
        if heartbeat && follows && !self.leader_contact.may_have_helped_after(vote.leader_id.term) {
            return Ok(AppendEntriesResponse::Success);
        }
        append.await
    }

    /// Whether this member has heard a leader too lately to help another one, which that leader has not asked for. Raft
    /// refuses for as long, but forgets it when it hears of a transfer or has voted for anybody since.
    fn is_bound(&self, request: &VoteRequest<TypeConfig>) -> bool {
        !request.leadership_transfer && self.leader_contact.bars_votes()
    }

    /// Refuses a candidate that can be none, and tells one that was removed so.
    fn admit_candidate(
        self: &Arc<Self>,
        raft: &RaftHandle,
        request: &VoteRequest<TypeConfig>,
    ) -> Result<(), Status> {
        // One that goes on no further has the same membership as this member, or an older one.
        let last = raft.data_metrics().borrow_watched().last_log;
        self.admit(raft, &request.vote, request.last_log_id > last)
    }
}

/// Decodes requests until one is not for this member or makes no sense; `reject` gets why.
fn accepted(
    core: Arc<Core>,
    first: proto::AppendEntriesRequest,
    rest: Streaming<proto::AppendEntriesRequest>,
    reject: oneshot::Sender<Status>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    let requests = stream::once(async move { Ok(first) }).chain(rest);
    let decoded = requests.map(move |message| {
        let message = message?;
        let raft = core.addressed(message.to.as_ref())?;
        core.append_request(&raft, message).map_err(Status::from)
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
        let message = request.into_inner();
        let raft = self.0.addressed(message.to.as_ref())?;
        let request = match self.0.append_request(&raft, message) {
            Ok(request) => request,
            // The leader is not one any more, and steps down when it hears so.
            Err(AppendRefusal::Later(vote)) => {
                let answer = AppendEntriesResponse::HigherVote(vote);
                return Ok(Response::new(wire::append_response_message(&answer)));
            }
            Err(AppendRefusal::With(status)) => return Err(status),
        };
        let answer = self.0.take_append(&raft, request).await.map_err(stopped)?;
        Ok(Response::new(self.0.appended(&answer)))
    }

    type AppendStreamStream = BoxStream<'static, Result<proto::AppendEntriesResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<proto::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let raft = self.0.addressed(first.to.as_ref())?;
        let (reject, rejected) = oneshot::channel();
        let core = self.0.clone();
        let answers = raft
            .stream_append(accepted(self.0.clone(), first, requests, reject))
            .map(move |answer| Ok(core.appended(&AppendEntriesResponse::from(answer.map_err(stopped)?))));
        let reason = stream::once(rejected).filter_map(|reason| async move { reason.ok().map(Err) });
        Ok(Response::new(answers.chain(reason).boxed()))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let message = request.into_inner();
        let raft = self.0.addressed(message.to.as_ref())?;
        let to = message.to.clone().unwrap_or_default();
        let mut request = wire::vote_request(message).map_err(malformed)?;
        self.0.admit_candidate(&raft, &request)?;
        self.0.note_disks(request.vote.leader_id.node_id, &to).map_err(malformed)?;
        request.leadership_transfer =
            request.leadership_transfer && self.0.is_confirmed_transfer(&request).await;
        let term = request.vote.leader_id.term;
        if self.0.is_bound(&request) || self.0.withholds_vote(&request) {
            return Ok(not_granted(&raft));
        }
        self.0.leader_contact.note_candidate(term);
        let Some(asked) = PendingVote::ask(&self.0.settings.vote_guard, term) else {
            tracing::info!(term, "gave no vote: this member is not free to");
            return Ok(not_granted(&raft));
        };
        let answer = raft.vote(request.clone()).await.map_err(stopped)?;
        asked.answered(answer.vote_granted);
        // A leader may have been heard after the first look and before Raft voted. A vote that nobody learns of counts for
        // nobody.
        if self.0.is_bound(&request) {
            return Ok(not_granted(&raft));
        }
        Ok(Response::new(wire::vote_response_message(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let message = request.into_inner();
        let raft = self.0.addressed(message.to.as_ref())?;
        let to = message.to.clone().unwrap_or_default();
        let mut request = wire::vote_request(message).map_err(malformed)?;
        self.0.admit_candidate(&raft, &request)?;
        self.0.note_disks(request.vote.leader_id.node_id, &to).map_err(malformed)?;
        // Nobody asks before an election that the leader wishes.
        request.leadership_transfer = false;
        if self.0.is_bound(&request) || self.0.withholds_vote(&request) {
            return Ok(not_granted(&raft));
        }
        let answer = raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_message(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        let raft = self.0.addressed(message.to.as_ref())?;
        let to = message.to.clone().unwrap_or_default();
        let request = wire::transfer_request(message).map_err(malformed)?;
        let leader = request.from_leader().leader_id;
        self.0.admit(&raft, request.from_leader(), true)?;
        self.0.note_disks(leader.node_id, &to).map_err(malformed)?;
        if let Some(why) = self.0.why_abstains() {
            return Err(Status::failed_precondition(format!("this member cannot lead; {why}")));
        }
        // Whoever stands for election deposes the leader: that one must say so itself.
        if !self.0.is_transferring_to(leader.term, leader.node_id, *request.to_node_id()).await {
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
        let message = request.into_inner();
        let to = message.to.ok_or_else(|| Status::invalid_argument("a question names no destination"))?;
        let (known, own) = self.0.serve_check_disk(message.member_id, &to)?;
        let (known, own) = (Some(wire::synced_index_message(&known)), Some(wire::synced_index_message(&own)));
        Ok(Response::new(proto::CheckDiskResponse { known, own }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::InstallSnapshotRequest>>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        self.0.install_snapshot(request.into_inner()).await.map(Response::new)
    }

    async fn confirm_transfer(
        &self,
        request: Request<proto::ConfirmTransferRequest>,
    ) -> Result<Response<proto::ConfirmTransferResponse>, Status> {
        let message = request.into_inner();
        self.0.addressed(message.to.as_ref())?;
        let again = self.0.me().is_some_and(|me| me.0 == message.to_member_id)
            && self.0.quorum.was_reelected_after(message.term);
        let confirmed = again || self.0.quorum.is_transferring_to(message.term, message.to_member_id);
        Ok(Response::new(proto::ConfirmTransferResponse { confirmed }))
    }

    async fn check_member(
        &self,
        request: Request<proto::CheckMemberRequest>,
    ) -> Result<Response<proto::CheckMemberResponse>, Status> {
        let message = request.into_inner();
        let raft = self.0.addressed(message.to.as_ref())?;
        Ok(Response::new(self.0.serve_check_member(&raft, message.member_id).await))
    }
}
