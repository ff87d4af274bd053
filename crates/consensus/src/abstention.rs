//! Why this member abstains: it helps to elect nobody, does not stand, and answers no reads.

use std::sync::Arc;

use openraft::raft::VoteRequest;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use trestle_model::MemberId;

use crate::disk_rollback::DiskRollback;
use crate::error::Error;
use crate::raft_types::TypeConfig;
use crate::shared::{Core, RaftHandle};

/// The reasons, each of which is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Abstention {
    /// Its disk went back in time.
    pub(crate) rolled_back: Option<DiskRollback>,
    /// Another process is this member, in words.
    pub(crate) displaced: Option<Arc<str>>,
}

impl Abstention {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Core {
    pub(crate) fn abstains(&self) -> bool {
        !self.abstention.borrow().is_none()
    }

    /// Why this member abstains, if it does, in a sentence after its name.
    pub(crate) fn why_abstains(&self) -> Option<String> {
        let abstention = self.abstention.borrow().clone();
        if let Some(why) = abstention.displaced {
            return Some(why.to_string());
        }
        let rolled_back = abstention.rolled_back?;
        let by = rolled_back.by();
        let known = self.view.borrow().state.members.get(&MemberId(by)).map(|m| m.spec.name.to_string());
        Some(
            rolled_back
                .words(&known.map_or_else(|| format!("member {by}"), |name| format!("member \"{name}\""))),
        )
    }

    /// Whether this member withholds its vote from a candidate.
    pub(crate) fn withholds_vote(&self, request: &VoteRequest<TypeConfig>) -> bool {
        let abstention = self.abstention.borrow().clone();
        abstention.displaced.is_some()
            || abstention.rolled_back.is_some_and(|rolled_back| !self.is_beyond_doubt(&rolled_back, request))
    }

    /// Waits until this member answers reads.
    pub(crate) async fn readable(&self, deadline: Instant) -> Result<(), Error> {
        let mut abstention = self.abstention.subscribe();
        let _ = timeout_at(deadline, abstention.wait_for(Abstention::is_none)).await;
        match self.why_abstains() {
            None => Ok(()),
            Some(why) => Err(Error::no_leader(format!("this member answers no reads; {why}"))),
        }
    }

    /// Keeps Raft from standing for election while this member abstains.
    pub(crate) async fn disable_elections_while_abstaining(
        self: Arc<Self>,
        raft: RaftHandle,
        mut end: watch::Receiver<bool>,
    ) {
        let mut abstention = self.abstention.subscribe();
        loop {
            raft.runtime_config().elect(abstention.borrow_and_update().is_none());
            tokio::select! {
                changed = abstention.changed() => if changed.is_err() { return },
                _ = end.wait_for(|ended| *ended) => return,
            }
        }
    }
}
