//! The state machine behind the log: the state, and the answers given to requests that named themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::change::Change;
use crate::command::{Command, Outcome, Proposal, Request, RequestId};
use crate::defaults::{REQUESTS_REMEMBERED, REQUESTS_WEIGHT_MAX, STAGED_FOR, STAGED_MAX};
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};

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

/// The pieces of a proposal that is too large for one entry, as far as they have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Which proposal.
    pub upload: u64,
    /// Its pieces in order.
    pub pieces: Vec<Arc<[u8]>>,
    /// Index of the entry that brought the last one.
    pub index: Revision,
}

/// The replicated state with the bounded table of answered requests. Refusals are not remembered: they changed
/// nothing, so a repeated request is judged afresh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The state.
    pub state: ClusterState,
    /// What is staged. No part of the configuration.
    pub staged: Option<Staged>,
    answered: BTreeMap<RequestId, Remembered>,
    order: VecDeque<RequestId>,
    /// What the answers take, about in bytes.
    weight: usize,
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
        if self.staged.as_ref().is_some_and(|staged| index.saturating_sub(staged.index) > STAGED_FOR) {
            self.staged = None;
        }
        if let Some(first) = proposal.request.as_ref().and_then(|request| self.repeated(request)) {
            return first;
        }
        match &proposal.command {
            Command::StagePiece { upload, number, bytes } => {
                return self.stage(index, *upload, *number, bytes);
            }
            // What was staged is bytes here; whoever can read them applies what they say.
            Command::ApplyStaged { .. } => return Err(Refusal::StagingLost),
            _ => {}
        }
        let applied = self.state.apply_recorded(index, proposal)?;
        if let Some(request) = &proposal.request {
            self.remember(Remembered {
                id: request.id.clone(),
                fingerprint: request.fingerprint,
                revision: applied.revision,
                outcome: applied.outcome.clone(),
            });
        }
        Ok(applied)
    }

    /// The answer to a request that came before: the first one, or a refusal when it is another request under the same id.
    pub fn repeated(&self, request: &Request) -> Option<Result<Applied, Refusal>> {
        let first = self.answered.get(&request.id)?;
        if first.fingerprint != request.fingerprint {
            return Some(Err(Refusal::RequestIdReused(request.id.to_string())));
        }
        let (revision, outcome) = (first.revision, first.outcome.clone());
        Some(Ok(Applied { revision, outcome, changes: Vec::new() }))
    }

    /// The answer that the proposal would get at `index` if that changes nothing: a refusal, or what it was answered
    /// when it came before. `None` when it has to be applied.
    pub fn settled(&self, index: Revision, proposal: &Proposal) -> Option<Result<Applied, Refusal>> {
        let repeated = proposal.request.as_ref().and_then(|request| self.repeated(request));
        repeated.or_else(|| self.state.decide(index, &proposal.command).err().map(Err))
    }

    /// Keeps a piece. One that is there already changes nothing, so that it may come twice.
    fn stage(
        &mut self,
        index: Revision,
        upload: u64,
        number: u32,
        bytes: &Arc<[u8]>,
    ) -> Result<Applied, Refusal> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let current = self.staged.take_if(|staged| staged.upload == upload || at == 0);
        let mut staged = match current {
            Some(staged) if staged.upload == upload => staged,
            _ if at == 0 => Staged { upload, pieces: Vec::new(), index },
            _ => return Err(Refusal::StagingLost),
        };
        staged.index = index;
        let size = staged.pieces.iter().map(|piece| piece.len()).sum::<usize>() + bytes.len();
        let kept = match staged.pieces.get(at) {
            Some(piece) => piece == bytes,
            None if at == staged.pieces.len() && size <= STAGED_MAX => {
                staged.pieces.push(bytes.clone());
                true
            }
            None => false,
        };
        self.staged = kept.then_some(staged);
        if kept {
            return Ok(Applied { revision: index, outcome: Outcome::Noted, changes: Vec::new() });
        }
        if size > STAGED_MAX {
            let rule = format!("must not have more than {STAGED_MAX} bytes");
            return Err(Invalid(vec![Violation::new("document", size, rule)]).into());
        }
        Err(Refusal::StagingLost)
    }

    /// Takes what was staged, for whoever can read it.
    ///
    /// # Errors
    /// When not all pieces are there.
    pub fn take_staged(&mut self, upload: u64, pieces: u32) -> Result<Vec<u8>, Refusal> {
        let whole =
            |staged: &mut Staged| staged.upload == upload && u32::try_from(staged.pieces.len()) == Ok(pieces);
        let staged = self.staged.take_if(whole).ok_or(Refusal::StagingLost)?;
        Ok(staged.pieces.concat())
    }

    fn remember(&mut self, answer: Remembered) {
        self.weight += answer.outcome.weight();
        self.order.push_back(answer.id.clone());
        self.answered.insert(answer.id.clone(), answer);
        while self.order.len() > 1
            && (self.order.len() > REQUESTS_REMEMBERED || self.weight > REQUESTS_WEIGHT_MAX)
            && let Some(oldest) = self.order.pop_front()
        {
            let forgotten = self.answered.remove(&oldest);
            self.weight -= forgotten.map_or(0, |answer| answer.outcome.weight());
        }
    }
}
