//! Linearizable reads: from the lease if it is young enough, else by asking a quorum; on followers through the leader.

use std::sync::Arc;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::RaftError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::abstention::Abstentions;
use crate::error::Error;
use crate::leadership::QuorumTracker;
use crate::member::LocalMember;
use crate::peer_calls::PeerCalls;
use crate::raft_slot::RaftSlot;
use crate::replica::ClusterView;
use crate::retry::{LeaderLocation, Retry, with_leader};
use crate::shared::Shared;

fn no_quorum() -> Retry {
    Retry::Safe("the leader did not hear from a quorum in time".to_owned())
}

/// Answers reads.
pub(crate) struct Reads {
    member: Arc<LocalMember>,
    raft: Arc<RaftSlot>,
    view: watch::Sender<Arc<ClusterView>>,
    quorum: Arc<QuorumTracker>,
    abstentions: Arc<Abstentions>,
    peers: Arc<PeerCalls>,
}

impl Reads {
    pub(crate) fn new(shared: &Shared, peers: Arc<PeerCalls>) -> Self {
        Self {
            member: shared.member.clone(),
            raft: shared.raft.clone(),
            view: shared.published.view.clone(),
            quorum: shared.quorum.clone(),
            abstentions: shared.abstentions.clone(),
            peers,
        }
    }

    /// A state that has every write in it that was acknowledged before this call.
    pub(crate) async fn read(&self, within: Duration) -> Result<Arc<ClusterView>, Error> {
        let deadline = Instant::now() + within;
        self.abstentions.readable(deadline).await?;
        let attempt = |leader| async move {
            match leader {
                LeaderLocation::Here => self.index(deadline).await,
                LeaderLocation::There(address) => self.peers.read_index(&address, deadline).await,
            }
        };
        let index = with_leader(&self.raft, deadline, true, attempt).await?;
        self.applied(index, deadline).await
    }

    /// The index that a linearizable read must have applied; on the leader only.
    pub(crate) async fn read_index_here(&self, within: Duration) -> Result<u64, Error> {
        self.raft.running()?;
        self.abstentions.readable(Instant::now()).await?;
        if !self.raft.leads() {
            return Err(Error::no_leader("the member that was asked does not lead"));
        }
        Ok(self.index(Instant::now() + within).await?)
    }

    pub(crate) async fn index(&self, deadline: Instant) -> Result<u64, Retry> {
        let raft = self.raft.running().map_err(Retry::Never)?;
        let timing = self.member.timing();
        let term = self.confirmed(None, deadline).await?;
        // With a young acknowledgement at hand this answers at once, else after a round of heartbeats.
        let option = LinearizerOption::new(Some(timing.read_lease()), true).with_wait_timeout(timing.lease());
        let index = match timeout_at(deadline, raft.get_read_linearizer(option)).await {
            Ok(Ok(linearizer)) => linearizer.read_log_id().index(),
            Ok(Err(RaftError::APIError(error))) => return Err(Retry::Safe(error.to_string())),
            Ok(Err(RaftError::Fatal(error))) => return Err(Retry::Never(Error::internal(error))),
            Err(_) => return Err(no_quorum()),
        };
        // openraft's own figure of a quorum's last answer may be too young (see `QuorumTracker`).
        self.confirmed(Some(term), deadline).await?;
        Ok(index)
    }

    /// Waits until this member leads, in `term` if one is given, and a quorum's last answer is young enough that nobody else
    /// can have been elected; answers the term.
    pub(crate) async fn confirmed(&self, term: Option<u64>, deadline: Instant) -> Result<u64, Retry> {
        let timing = self.member.timing();
        let mut leadership = self.quorum.subscribe();
        let decided = leadership.wait_for(|leadership| {
            let leads = leadership.leads.filter(|leads| term.is_none_or(|term| leads.term == term));
            // Another term decides it too.
            (term.is_some() && leads.is_none())
                || leads.is_some_and(|leads| leads.is_safe(timing.read_lease()))
        });
        let decided = timeout_at(deadline.min(Instant::now() + timing.lease()), decided).await;
        let leads = decided.ok().and_then(Result::ok).and_then(|leadership| leadership.leads);
        leads.map(|leads| leads.term).filter(|now| term.is_none_or(|term| *now == term)).ok_or_else(no_quorum)
    }

    /// Waits until this member has applied `index`.
    pub(crate) async fn applied(&self, index: u64, deadline: Instant) -> Result<Arc<ClusterView>, Error> {
        let mut view = self.view.subscribe();
        match timeout_at(deadline, view.wait_for(|view| view.applied >= index)).await {
            Ok(Ok(view)) => Ok(view.clone()),
            Ok(Err(_)) => self.raft.running().and(Err(Error::internal("the state machine has stopped"))),
            Err(_) => Err(Error::no_leader(format!("this member has not applied entry {index} yet"))),
        }
    }
}
