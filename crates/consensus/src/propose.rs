//! Writes: to the leader, wherever it is, and at most once unless the request can be recognised.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use trestle_api::status::Failure;
use trestle_api::storage;
use trestle_api::stored::splittable;
use trestle_model::{Command, Invalid, Origin, Outcome, Proposal, Refusal, Revision, Violation};

use crate::error::Error;
use crate::raft_types::{ApplyResponse, LeaderId, LogCommand, TypeConfig};
use crate::shared::Core;
use crate::staging::is_idempotent;
use crate::status::{RaftRole, RaftState};
use crate::store::PROPOSAL_MAX;

/// How long a write or a read waits for a leader by default: longer than any election of the default profile takes.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Pause before the same leader is asked again that just had no quorum.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The answer to an accepted proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedProposal {
    /// Revision at which the answer holds.
    pub revision: Revision,
    /// What became of the resource.
    pub outcome: Outcome,
}

/// Where the leader is.
pub(crate) enum LeaderLocation {
    Here,
    There(String),
}

/// Why an attempt at one leader failed, and so whether it may be made again.
pub(crate) enum Retry {
    /// For good.
    Never(Error),
    /// Nothing was changed.
    Safe(String),
    /// Something may have been changed.
    OutcomeUnknown(String),
}

impl From<Retry> for Error {
    fn from(retry: Retry) -> Self {
        match retry {
            Retry::Never(error) => error,
            Retry::Safe(why) => Error::no_leader(why),
            Retry::OutcomeUnknown(why) => Error::unknown(why),
        }
    }
}

/// Where the leader is. One that says so of itself is here, whatever Raft calls it.
fn leader(role: &RaftRole) -> Option<LeaderLocation> {
    match &role.leader {
        Some(_) if role.state == RaftState::Leader => Some(LeaderLocation::Here),
        Some((_, address)) => Some(LeaderLocation::There(address.clone())),
        None => None,
    }
}

impl Core {
    /// Where the leader is, by this member's word.
    pub(crate) fn leader(&self) -> Option<LeaderLocation> {
        leader(&self.role.borrow())
    }

    /// Runs `attempt` against one leader after the other until it succeeds, fails for good, or the time is over.
    pub(crate) async fn with_leader<T, F: Future<Output = Result<T, Retry>>>(
        &self,
        deadline: Instant,
        repeatable: bool,
        mut attempt: impl FnMut(LeaderLocation) -> F,
    ) -> Result<T, Error> {
        let mut why = "none is known; an election may be under way".to_owned();
        let mut outcome_unknown = false;
        let mut role = self.role.subscribe();
        loop {
            let leader = leader(&role.borrow_and_update());
            if let Some(leader) = leader {
                match attempt(leader).await {
                    Ok(done) => return Ok(done),
                    Err(Retry::Safe(text)) => why = text,
                    Err(Retry::OutcomeUnknown(text)) if repeatable => (why, outcome_unknown) = (text, true),
                    Err(last) => return Err(last.into()),
                }
            }
            // Another role is worth another try at once; the same leader after a pause: it may have a quorum again.
            let pause = deadline.min(Instant::now() + RETRY_PAUSE);
            let _ = timeout_at(pause, role.changed()).await;
            let stopped = self.running().err();
            let may_start = stopped.is_none_or(|e| matches!(e, Error::Failed(Failure::NoLeader(_))));
            let go_on = may_start && Instant::now() < deadline;
            if !go_on {
                return Err(match self.running() {
                    _ if outcome_unknown => Error::unknown(why),
                    Err(stopped) => stopped,
                    Ok(_) => Error::no_leader(why),
                });
            }
        }
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

    /// Notes where a proposal comes from, if that is this member itself.
    fn sign(&self, proposal: &mut Proposal) {
        let own = || Origin { time_ms: wall_clock(), member: self.me(), client: None };
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
                        self.forward(&address, &proposal, deadline).await
                    }
                }
            }
        };
        self.with_leader(deadline, repeatable, attempt).await
    }

    /// Proposes on this member, which must lead.
    pub(crate) async fn propose_here(
        &self,
        mut proposal: Proposal,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        self.running()?;
        if !matches!(self.leader(), Some(LeaderLocation::Here)) {
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
        let raft = self.running()?;
        check(&proposal)?;
        let me = self.me().ok_or(Failure::NoCluster)?;
        let (responder, written) = ProgressResponder::complete_only();
        // Raft compares on its own thread, right before it appends.
        let write = raft
            .write(LogCommand(Arc::new(proposal)))
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
        let raft = self.running().map_err(Retry::Never)?;
        check(&proposal).map_err(Retry::Never)?;
        if let Some(settled) = self.answer_without_entry(&raft, &proposal, deadline).await? {
            return settled.map_err(|refusal| Retry::Never(refusal.into()));
        }
        let Ok(written) = timeout_at(deadline, raft.client_write(LogCommand(proposal))).await else {
            return Err(Retry::OutcomeUnknown(NO_QUORUM.to_owned()));
        };
        accepted(written)
    }
}

const NO_QUORUM: &str = "the leader did not reach a quorum in time";

/// Size of a proposal in the log, in bytes.
fn proposal_size(proposal: &Proposal) -> usize {
    size_of(&storage::Proposal::from(proposal))
}

/// The same without where it came from, which nobody asked for: at most 48 bytes more.
fn size_of(message: &storage::Proposal) -> usize {
    // Two bytes of tag and one of length.
    message.encoded_len() - message.origin.as_ref().map_or(0, |origin| 3 + origin.encoded_len())
}

/// Now, in milliseconds since the beginning of 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses a proposal that the log does not take: one that is too large, or that no member could read back, which would stop
/// each that gets it.
fn check(proposal: &Proposal) -> Result<(), Error> {
    let message = storage::Proposal::from(proposal);
    let size = size_of(&message);
    if size > PROPOSAL_MAX {
        let settings = splittable(&message);
        return Err(Error::Failed(Failure::TooLarge { size, max: PROPOSAL_MAX, settings }));
    }
    match Proposal::try_from(message) {
        Ok(_) => Ok(()),
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
