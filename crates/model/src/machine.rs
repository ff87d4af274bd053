//! The state machine behind the log: the state, and the answers given to requests that named themselves.

use std::collections::{BTreeMap, VecDeque};

use crate::command::{Outcome, Proposal, RequestId};
use crate::defaults::REQUESTS_REMEMBERED;
use crate::diff::Change;
use crate::refusal::Refusal;
use crate::state::{ClusterState, Revision};

/// What applying an accepted command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Revision at which the answer holds: of this change, or of the first one when the request was repeated, or of
    /// the resource when nothing changed.
    pub revision: Revision,
    /// What became of the resource.
    pub outcome: Outcome,
    /// What changed; empty when nothing did.
    pub changes: Vec<Change>,
}

/// An answer kept for the case that its request comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The request's id.
    pub id: RequestId,
    /// Fingerprint of the request, as its first receiver computed it.
    pub fingerprint: u64,
    /// Revision of the answer.
    pub revision: Revision,
    /// The answer.
    pub outcome: Outcome,
}

/// The replicated state with the bounded table of answered requests. Refusals are not remembered: they changed
/// nothing, so a repeated request is judged afresh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The state.
    pub state: ClusterState,
    answered: BTreeMap<RequestId, Remembered>,
    order: VecDeque<RequestId>,
}

impl Machine {
    /// Puts a machine together from a snapshot; `remembered` is in the order of arrival.
    pub fn restore(state: ClusterState, remembered: impl IntoIterator<Item = Remembered>) -> Self {
        let mut machine = Self { state, ..Self::default() };
        for answer in remembered {
            machine.remember(answer);
        }
        machine
    }

    /// The remembered answers in the order of arrival.
    pub fn remembered(&self) -> impl ExactSizeIterator<Item = &Remembered> {
        // Every id in `order` is a key of `answered`: both change only in `remember`.
        self.order.iter().map(|id| &self.answered[id])
    }

    /// Applies the log entry at `index`. Deterministic and total: the same sequence of calls gives the same machine and
    /// the same answers on every member.
    ///
    /// # Errors
    /// A [`Refusal`], which changes nothing.
    pub fn apply(&mut self, index: Revision, proposal: &Proposal) -> Result<Applied, Refusal> {
        let Some(request) = &proposal.request else {
            return self.state.apply(index, &proposal.command);
        };
        if let Some(first) = self.answered.get(&request.id) {
            if first.fingerprint != request.fingerprint {
                return Err(Refusal::RequestIdReused(request.id.to_string()));
            }
            return Ok(Applied {
                revision: first.revision,
                outcome: first.outcome.clone(),
                changes: Vec::new(),
            });
        }
        let applied = self.state.apply(index, &proposal.command)?;
        self.remember(Remembered {
            id: request.id.clone(),
            fingerprint: request.fingerprint,
            revision: applied.revision,
            outcome: applied.outcome.clone(),
        });
        Ok(applied)
    }

    fn remember(&mut self, answer: Remembered) {
        if self.order.len() >= REQUESTS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answered.remove(&oldest);
        }
        self.order.push_back(answer.id.clone());
        self.answered.insert(answer.id.clone(), answer);
    }
}
