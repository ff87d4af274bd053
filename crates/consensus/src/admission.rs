//! What needs no log entry: a proposal whose refusal is certain, and a request that was answered before.
//!
//! Every entry is synced on a quorum's disks and stays until the next snapshot, so a client that repeats a mistake must not
//! fill the log. A refusal must be as right as the log's own: it is judged by the state machine, with all in it that was
//! acknowledged before the call and all that this leader had in its log when the call came, an earlier attempt at the same
//! request included.

use std::sync::Arc;

use openraft::errors::Fatal;
use tokio::time::Instant;
use trestle_model::{Applied, Proposal, Refusal, Request};

use crate::error::Error;
use crate::peer_calls::AppliedProposal;
use crate::propose::Proposals;
use crate::raft_types::TypeConfig;
use crate::replica::{RaftHandle, Replica};
use crate::retry::Retry;

/// The answer to a proposal that needs no entry.
type Settled = Result<AppliedProposal, Refusal>;

fn answer(applied: Result<Applied, Refusal>) -> Settled {
    applied.map(|Applied { revision, outcome, .. }| AppliedProposal { revision, outcome })
}

/// Nothing was proposed yet.
fn stopped(why: Fatal<TypeConfig>) -> Retry {
    Retry::Safe(format!("Raft has stopped: {why}"))
}

/// Asks the state machine, after everything that it has been given to apply.
async fn on_machine<T: Send + 'static>(
    raft: &RaftHandle,
    ask: impl FnOnce(&Replica) -> T + Send + 'static,
) -> Result<T, Retry> {
    let asked = raft.with_state_machine(move |replica| {
        let answer = ask(replica);
        Box::pin(async move { answer })
    });
    asked.await.map_err(stopped)
}

impl Proposals {
    /// The answer that a request got before, by this member's own state machine.
    pub(crate) async fn answered(&self, request: &Request) -> Result<Option<AppliedProposal>, Error> {
        let known = request.clone();
        let first = on_machine(&self.raft.running()?, move |replica| replica.repeated(&known)).await?;
        Ok(first.map(answer).transpose()?)
    }

    /// The answer to a proposal that an entry would change nothing for; `None` when it has to be written. On the leader only.
    /// What looks acceptable costs no more than that look.
    pub(crate) async fn answer_without_entry(
        &self,
        raft: &RaftHandle,
        proposal: &Arc<Proposal>,
        deadline: Instant,
    ) -> Result<Option<Settled>, Retry> {
        let view = self.published.view.borrow().clone();
        let refused = view.state.decide(view.applied + 1, &proposal.command).is_err();
        // An answered request stays answered, whatever else is under way.
        if let Some(known) = proposal.request.clone().filter(|_| self.published.requests.may_have(proposal)) {
            let first = on_machine(raft, move |replica| replica.repeated(&known)).await?;
            if let Some(first) = first {
                return Ok(Some(answer(first)));
            }
        }
        if !refused {
            return Ok(None);
        }
        // Confirms leadership; what was acknowledged before this call is in this leader's log then.
        self.reads.index(deadline).await?;
        let last = raft.with_raft_state(|state| state.log_ids.last().map_or(0, |id| id.index())).await;
        let last = last.map_err(stopped)?;
        self.reads.applied(last, deadline).await.map_err(|error| Retry::Safe(error.to_string()))?;
        let known = proposal.clone();
        let settled = on_machine(raft, move |replica| replica.settled(&known)).await?;
        Ok(settled.map(answer))
    }
}
