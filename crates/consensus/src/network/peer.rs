//! Raft's calls of one question and one answer.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::{Code, Response, Status};
use trestle_api::peer as proto;
use trestle_api::status::caller_removed;

use super::{Lane, Peer};
use crate::raft_types::{LogId, TypeConfig, Vote};
use crate::replica::SnapshotData;
use crate::store::SyncedIndex;
use crate::wire::{self, WireError};

pub(super) type CallError = RPCError<TypeConfig>;

/// A member that cannot be reached, or lets this one in no more, is left alone for a while; any other failure is tried again at once.
pub(super) fn call_error(status: &Status) -> CallError {
    match status.code() {
        Code::Unavailable
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::PermissionDenied
        | Code::Unauthenticated => RPCError::Unreachable(Unreachable::from_string(status.message())),
        _ => RPCError::Network(NetworkError::from_string(format!("{}: {}", status.code(), status.message()))),
    }
}

pub(super) fn malformed(error: &WireError) -> CallError {
    RPCError::Network(NetworkError::new(error))
}

impl Peer {
    pub(super) fn timed_out(&self, action: RPCTypes, timeout: Duration) -> CallError {
        RPCError::Timeout(Timeout { action, id: self.me, target: self.target, timeout })
    }

    /// A candidate that was removed hears so here if it was not told before. An answer of one that was removed itself says
    /// nothing of the candidate.
    async fn noting_removal<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let answer = call.await;
        let told = answer.as_ref().err().and_then(caller_removed);
        if let Some(theirs) = told {
            let mine = self.parts.view.borrow().applied;
            if self.parts.removal_reports.tell(self.target, theirs, mine, Instant::now()) {
                tracing::warn!(
                    by = self.target,
                    "another member says that this one was removed; asks the leader"
                );
            }
        }
        answer
    }

    /// Notes why the member has refused entries.
    pub(super) fn refused(&self, status: &Status) -> CallError {
        self.parts.outdated.note_refusal(self.target, status);
        call_error(status)
    }

    /// Notes that the member has answered what left at `sent`, unless it knows of a newer leader. One whose log differs
    /// believes this leader all the same.
    pub(super) fn note_answer(&self, vote: &Vote, answer: &AppendEntriesResponse<TypeConfig>, sent: Instant) {
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.parts.quorum.record_ack(vote, self.target, sent);
        }
    }

    /// Notes what the member has put on its disk by an answer to entries from `prev` to `last`. Without any entries an answer
    /// says only what it has in memory.
    pub(super) fn note_stored(
        &self,
        answer: &AppendEntriesResponse<TypeConfig>,
        prev: Option<LogId>,
        last: Option<LogId>,
    ) {
        let stored = match answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(matching) => *matching,
            _ => return,
        };
        if stored > prev {
            self.to.has_stored(stored);
            self.parts.outdated.note_stored(self.target);
        }
    }

    /// Fails while this member must not help to elect another leader, itself included: Raft lets a candidate vote for
    /// itself without asking, and forgets its leader's lease when it hears of a transfer to somebody else. Fails as well
    /// while this member has lately heard that it was removed.
    fn check_bound(&self, rpc: &VoteRequest<TypeConfig>) -> Result<(), CallError> {
        let why = if !rpc.leadership_transfer && self.parts.contact.bars_votes() {
            "a leader was heard within the time for which it may count on this member"
        } else if self.parts.removal_reports.abstains(Instant::now()) {
            "another member says that this one was removed"
        } else if !self.parts.abstention.borrow().is_none() {
            "this member abstains"
        } else {
            return Ok(());
        };
        Err(RPCError::Network(NetworkError::from_string(format!("no election yet: {why}"))))
    }

    /// Refuses an answer whose term no member of this cluster can have come to.
    fn check_term(&self, mine: &Vote, theirs: &Vote) -> Result<(), CallError> {
        wire::within_reach(theirs.leader_id.term, mine.leader_id.term).map_err(|e| malformed(&e))
    }

    /// Decodes the answer to an append by `vote`.
    pub(super) fn append_answer(
        &self,
        answer: proto::AppendEntriesResponse,
        vote: &Vote,
    ) -> Result<AppendEntriesResponse<TypeConfig>, CallError> {
        let answer = wire::append_response(answer).map_err(|e| malformed(&e))?;
        if let AppendEntriesResponse::HigherVote(theirs) = &answer {
            self.check_term(vote, theirs)?;
        }
        Ok(answer)
    }

    /// Awaits what a voter answers to a request for its vote.
    async fn voter_answer(
        &self,
        rpc: &VoteRequest<TypeConfig>,
        option: &RPCOption,
        call: impl Future<Output = Result<Response<proto::VoteResponse>, Status>>,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        let answer = self.call(RPCTypes::Vote, option.hard_ttl(), self.noting_removal(call)).await?;
        let answer = wire::vote_response(answer).map_err(|e| malformed(&e))?;
        self.check_term(&rpc.vote, &answer.vote)?;
        Ok(answer)
    }

    async fn call<T>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.parts.recoveries.note(&status);
                Err(call_error(&status))
            }
            Err(_) => Err(self.timed_out(action, timeout)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, CallError> {
        let sent = Instant::now();
        let message = wire::append_request_message(self.to.now(), &rpc);
        let mut service = self.service(self.lane).map_err(|e| call_error(&e))?;
        let call = service.append_entries(message);
        let answer = self.call(RPCTypes::AppendEntries, option.hard_ttl(), call).await?;
        let answer = self.append_answer(answer, &rpc.vote)?;
        self.note_answer(&rpc.vote, &answer, sent);
        self.note_stored(
            &answer,
            rpc.prev_log_id,
            rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id),
        );
        Ok(answer)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, CallError>>, CallError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        match self.lane {
            // A heartbeat is one request: a stream for each would be waste.
            Lane::Heartbeat => stream_append_sequential(self, input, option),
            Lane::Log | Lane::Bulk => Box::pin(self.pipeline(input)),
        }
    }

    async fn vote(
        &mut self,
        mut rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        rpc.leadership_transfer |= self.parts.quorum.is_reelection(&rpc.vote);
        let message = wire::vote_request_message(self.to.now(), &rpc);
        let mut service = self.service(Lane::Heartbeat).map_err(|e| call_error(&e))?;
        self.parts.contact.note_candidate(rpc.vote.leader_id.term);
        self.check_bound(&rpc)?;
        self.parts.quorum.record_vote_request(&rpc.vote, rpc.leadership_transfer);
        let answer = self.voter_answer(&rpc, &option, service.vote(message)).await?;
        if answer.vote_granted {
            // It is on the disk before it is given, and so is everything that was to be written before.
            self.to
                .known_disks
                .note(self.target, SyncedIndex { last: answer.last_log_id, vote: Some(answer.vote) });
        }
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        let message = wire::vote_request_message(self.to.now(), &rpc);
        let mut service = self.service(Lane::Heartbeat).map_err(|e| call_error(&e))?;
        self.check_bound(&rpc)?;
        self.voter_answer(&rpc, &option, service.pre_vote(message)).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, CallError> {
        let message = wire::transfer_request_message(self.to.now(), &req);
        self.parts.quorum.record_transfer(req.from_leader(), *req.to_node_id());
        let mut service = self.service(Lane::Heartbeat).map_err(|e| call_error(&e))?;
        let told =
            self.call(RPCTypes::TransferLeader, option.hard_ttl(), service.transfer_leader(message)).await;
        if told.is_err() && *req.to_node_id() == self.target {
            self.parts.quorum.record_transfer_refusal(req.from_leader());
        }
        told?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        // As long as a lost election takes: shorter only adds load, longer delays a member that came back.
        Some(Backoff::new(std::iter::repeat(self.parts.timing.election_min)))
    }
}
