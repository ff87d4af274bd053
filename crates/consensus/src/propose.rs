//! Writes: to the leader, wherever it is, and at most once unless the request can be recognised.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use trestle_api::status::Failure;
use trestle_api::storage;
use trestle_model::{Command, Invalid, Origin, Proposal, Refusal, Violation};

use crate::error::Error;
use crate::member::LocalMember;
use crate::peer_calls::{AppliedProposal, PeerCalls};
use crate::raft_slot::RaftSlot;
use crate::raft_types::{ApplyResponse, LeaderId, LogCommand, TypeConfig};
use crate::read::Reads;
use crate::replica::PublishedState;
use crate::retry::{LeaderLocation, Retry, with_leader};
use crate::shared::Shared;
use crate::store::PROPOSAL_MAX;

/// How long a write or a read waits for a leader by default: longer than any election of the default profile takes.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Writes what is proposed.
pub(crate) struct Proposals {
    pub(super) member: Arc<LocalMember>,
    pub(super) raft: Arc<RaftSlot>,
    pub(super) published: PublishedState,
    pub(super) reads: Arc<Reads>,
    pub(super) peers: Arc<PeerCalls>,
}

impl Proposals {
    pub(crate) fn new(shared: &Shared, reads: Arc<Reads>, peers: Arc<PeerCalls>) -> Self {
        let (member, raft) = (shared.member.clone(), shared.raft.clone());
        Self { member, raft, published: shared.published.clone(), reads, peers }
    }

    /// Proposes to the leader, wherever it is.
    pub(crate) async fn propose(
        &self,
        proposal: Proposal,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        if matches!(proposal.command, Command::Restore { .. }) && proposal_size(&proposal) > PROPOSAL_MAX {
            return self.propose_in_pieces(proposal, within).await;
        }
        self.propose_one(proposal, within).await
    }

    /// Notes where a proposal comes from, if that is this member itself. The leader notes when.
    fn sign(&self, proposal: &mut Proposal) {
        let own = || Origin { time_ms: 0, member: self.member.id(), client: None, actor: None };
        proposal.origin.get_or_insert_with(own);
    }

    /// Proposes what fits into one entry.
    pub(crate) async fn propose_one(
        &self,
        mut proposal: Proposal,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        self.sign(&mut proposal);
        let deadline = Instant::now() + within;
        let repeatable = proposal.request.is_some() || is_idempotent(&proposal.command);
        let proposal = Arc::new(proposal);
        let attempt = |leader| {
            let proposal = proposal.clone();
            async move {
                match leader {
                    LeaderLocation::Here => self.write(proposal, deadline).await,
                    LeaderLocation::There(address) => {
                        check(&proposal).map_err(Retry::Never)?;
                        self.peers.propose(&address, &proposal, deadline).await
                    }
                }
            }
        };
        with_leader(&self.raft, deadline, repeatable, attempt).await
    }

    /// Proposes on this member, which must lead.
    pub(crate) async fn propose_here(
        &self,
        mut proposal: Proposal,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        self.raft.running()?;
        if !self.raft.leads() {
            return Err(Error::no_leader("the member that was asked does not lead"));
        }
        self.sign(&mut proposal);
        Ok(self.write(Arc::new(proposal), Instant::now() + within).await?)
    }

    /// Proposes as the leader of `term`, or not at all.
    pub(crate) async fn propose_in_term(
        &self,
        proposal: Proposal,
        term: u64,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        let raft = self.raft.running()?;
        let size = check(&proposal)?;
        let me = self.member.id().ok_or(Failure::NoCluster)?;
        let (responder, written) = ProgressResponder::complete_only();
        // Raft compares on its own thread, right before it appends.
        let write = raft
            .write(LogCommand::new(Arc::new(proposal), size))
            .with_leader(LeaderId { term, node_id: me.0 })
            .responder(responder);
        let written = async {
            write.await.map_err(RaftError::Fatal)?;
            let written = written.await.map_err(|_| RaftError::Fatal(Fatal::Stopped))?;
            written.map_err(RaftError::APIError)
        };
        let Ok(written) = timeout_at(Instant::now() + within, written).await else {
            return Err(Retry::OutcomeUnknown(NO_QUORUM.to_owned()).into());
        };
        accepted(written).map_err(|retry| match retry {
            Retry::Safe(_) => {
                Error::no_leader(format!("this member does not lead in term {term}, or has no quorum"))
            }
            other => other.into(),
        })
    }

    async fn write(&self, proposal: Arc<Proposal>, deadline: Instant) -> Result<AppliedProposal, Retry> {
        let raft = self.raft.running().map_err(Retry::Never)?;
        let proposal = stamped(proposal);
        let size = check(&proposal).map_err(Retry::Never)?;
        if let Some(settled) = self.answer_without_entry(&raft, &proposal, deadline).await? {
            return settled.map_err(|refusal| Retry::Never(refusal.into()));
        }
        let Ok(written) = timeout_at(deadline, raft.client_write(LogCommand::new(proposal, size))).await
        else {
            return Err(Retry::OutcomeUnknown(NO_QUORUM.to_owned()));
        };
        accepted(written)
    }
}

/// Whether a proposal may be made again when nobody knows what became of it, though it has no request of its own.
fn is_idempotent(command: &Command) -> bool {
    matches!(command, Command::StagePiece { .. })
}

const NO_QUORUM: &str = "the leader did not reach a quorum in time";

/// Size of a proposal in the log, in bytes.
fn proposal_size(proposal: &Proposal) -> usize {
    storage::Proposal::from(proposal).encoded_len()
}

/// The proposal with the time of this member, which is about to write it as the leader: whoever else had it before may have
/// another clock. Only its record has that time; what a repeated request is known by does not depend on it.
fn stamped(mut proposal: Arc<Proposal>) -> Arc<Proposal> {
    if let Some(origin) = &mut Arc::make_mut(&mut proposal).origin {
        origin.time_ms = wall_clock();
    }
    proposal
}

/// Now, in milliseconds since the beginning of 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses a proposal that the log does not take: one that is too large, or that no member could read back, which would stop
/// each that gets it. Returns its size in bytes.
fn check(proposal: &Proposal) -> Result<usize, Error> {
    let message = storage::Proposal::from(proposal);
    let size = message.encoded_len();
    if size > PROPOSAL_MAX {
        return Err(Error::Failed(Failure::TooLarge { size, max: PROPOSAL_MAX }));
    }
    match Proposal::try_from(message) {
        Ok(_) => Ok(size),
        Err(error) => {
            Err(Refusal::Invalid(Invalid(vec![Violation::new("request", "", error.to_string())])).into())
        }
    }
}

/// What Raft's answer to a write means.
fn accepted(
    written: Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
) -> Result<AppliedProposal, Retry> {
    match written {
        Ok(response) => match response.data {
            ApplyResponse::Applied { revision, outcome } => Ok(AppliedProposal { revision, outcome }),
            ApplyResponse::Refused(refusal) => Err(Retry::Never(refusal.into())),
            ApplyResponse::Nothing => {
                Err(Retry::Never(Error::internal("a command was applied without an answer")))
            }
        },
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
            Err(Retry::Safe("the leader has lost its quorum, or was replaced".to_owned()))
        }
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
            Err(Retry::OutcomeUnknown("the leader changed while it was being written".to_owned()))
        }
        Err(RaftError::APIError(error)) => Err(Retry::Never(Error::internal(error))),
        Err(RaftError::Fatal(error)) => Err(Retry::OutcomeUnknown(format!("Raft has stopped: {error}"))),
    }
}
