//! What the rest of the program learns of the replicated state.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use trestle_model::defaults::REQUESTS_REMEMBERED;
use trestle_model::{Change, ClusterState, Machine, MemberId, Proposal, RequestId, Revision};

use crate::history::ChangeHistory;
use crate::raft_types::{LogCommand, Membership};

/// What this member knows of the cluster: one immutable value, replaced as a whole after each batch of log entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// The configuration.
    pub state: Arc<ClusterState>,
    /// Index of the last log entry that is part of it; 0 when there is none.
    pub applied: u64,
    /// Term of that entry, also of one that changes nothing, such as the first one of each leader; 0 when there is none.
    pub applied_term: u64,
    /// Members that vote, by Raft's own membership. Both sets of a change that is under way.
    pub voters: BTreeSet<MemberId>,
    /// Members that only follow.
    pub learners: BTreeSet<MemberId>,
}

/// Takes the changes in order, for those who watch.
pub(crate) trait ChangeSink: Send + 'static {
    /// The command `by` was applied. Called before the view with this revision is published, with growing revisions.
    fn changed(&mut self, revision: Revision, changes: Vec<Change>, by: &LogCommand);

    /// The state jumped to this revision by a snapshot: what led to it is not known here.
    fn jumped(&mut self, revision: Revision);
}

/// Where the state machine publishes to.
pub(crate) struct StatePublisher {
    /// The newest view.
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    /// The changes.
    pub(crate) history: Box<dyn ChangeSink>,
    /// The requests that were answered.
    pub(crate) requests: Arc<KnownRequests>,
}

/// What the state machine publishes. It outlives the state machine, so that the receivers outlive Raft.
#[derive(Clone)]
pub(crate) struct PublishedState {
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    pub(crate) history: ChangeHistory,
    pub(crate) requests: Arc<KnownRequests>,
}

impl Default for PublishedState {
    fn default() -> Self {
        let view = watch::Sender::new(Arc::new(ClusterView::default()));
        Self { view, history: ChangeHistory::new(), requests: Arc::default() }
    }
}

impl PublishedState {
    /// Where a state machine is to publish.
    pub(crate) fn publisher(&self) -> StatePublisher {
        StatePublisher {
            view: self.view.clone(),
            history: Box::new(self.history.clone()),
            requests: self.requests.clone(),
        }
    }
}

impl ChangeSink for ChangeHistory {
    fn changed(&mut self, revision: Revision, changes: Vec<Change>, by: &LogCommand) {
        self.record(revision, changes, &by.proposal, by.size as usize);
    }

    fn jumped(&mut self, revision: Revision) {
        self.restart_at(revision);
    }
}

/// Ids of answered requests, for a first look from outside of the state machine: one that it remembers is here; one that
/// is here it may have forgotten.
#[derive(Debug, Default)]
pub(crate) struct KnownRequests(Mutex<BTreeSet<RequestId>>);

impl KnownRequests {
    /// Whether the state machine may remember the proposal's request.
    pub(crate) fn may_have(&self, proposal: &Proposal) -> bool {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proposal.request.as_ref().is_some_and(|request| ids.contains(&request.id))
    }

    /// Adds the request of a proposal that `machine` has just answered.
    pub(super) fn add(&self, proposal: &Proposal, machine: &Machine) {
        let Some(request) = &proposal.request else { return };
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(request.id.clone());
        // Twice as many as are remembered: forgotten ones go many at a time.
        if ids.len() > 2 * REQUESTS_REMEMBERED {
            *ids = machine.remembered().map(|answer| answer.id.clone()).collect();
        }
    }

    /// Takes over what another state machine remembers.
    pub(super) fn restart(&self, machine: &Machine) {
        let ids = machine.remembered().map(|answer| answer.id.clone()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ids;
    }
}

/// The members of a membership: voters and learners.
pub(super) fn members(membership: &Membership) -> (BTreeSet<MemberId>, BTreeSet<MemberId>) {
    (membership.voter_ids().map(MemberId).collect(), membership.learner_ids().map(MemberId).collect())
}
