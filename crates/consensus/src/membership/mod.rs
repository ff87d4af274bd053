//! Who is in the cluster: one change at a time, on the leader, each safe to repeat.

mod add;
mod address;
mod promote;
mod remove;
mod transfer;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, RaftError};
use openraft::metrics::RaftMetrics;
use trestle_api::status::Failure;
use trestle_model::{Kind, Member, MemberId, Refusal, Revision};

use tokio::sync::{Mutex, watch};

use crate::error::Error;
use crate::known_disks::KnownDisks;
use crate::leadership::QuorumTracker;
use crate::member::LocalMember;
use crate::outdated_members::OutdatedMembers;
use crate::peer_calls::PeerCalls;
use crate::propose::Proposals;
use crate::raft_slot::RaftSlot;
use crate::raft_types::{PeerNode, TypeConfig};
use crate::read::Reads;
use crate::replica::{ClusterView, RaftHandle};
use crate::shared::Shared;
use crate::status::{self, RaftState, RaftStatus};

/// Entries by which a member may be behind and still count as caught up: a fraction of a second of writes.
pub const CAUGHT_UP_WITHIN: u64 = 100;

/// How long a step waits for what should take milliseconds, such as the end of an earlier change.
const STEP_WAIT: Duration = Duration::from_secs(5);

/// Pause between two looks at Raft's progress.
const POLL: Duration = Duration::from_millis(20);

type ChangeError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// What a change of membership is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipStep {
    /// The log has allocated an id for the member.
    Allocated,
    /// The member has taken its identity.
    Adopted,
    /// The member is being sent what it lacks.
    CatchingUp,
    /// The change of voters is being agreed on.
    Agreeing,
}

impl fmt::Display for MembershipStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MembershipStep::Allocated => "id allocated",
            MembershipStep::Adopted => "member took its identity",
            MembershipStep::CatchingUp => "catching up",
            MembershipStep::Agreeing => "agreeing on the new voters",
        })
    }
}

/// How far a change of membership got.
#[derive(Debug, Clone)]
pub struct MembershipProgress {
    /// What is being done.
    pub step: MembershipStep,
    /// Who it is about.
    pub member: Arc<Member>,
    /// Last log index that the member has.
    pub matched: u64,
    /// Last log index of the leader.
    pub last: u64,
}

/// What became of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalOutcome {
    /// The member is gone.
    Done {
        /// Revision of the removal.
        revision: Revision,
        /// Things to know that are no errors.
        warnings: Vec<String>,
    },
    /// The member to remove is this leader, and nothing was done: let leadership move first, then ask the new leader.
    LeadershipMustMove,
}

/// How [`even_warning`] begins after a change.
const NOW: &str = "there are now";
/// And before one.
const THEN: &str = "there would be";

/// A sentence about a number of voters that tolerates no more losses than one voter less would.
fn even_warning(there: &str, voters: usize) -> Option<String> {
    (voters > 0 && voters.is_multiple_of(2)).then(|| {
        let survived = match (voters - 1) / 2 {
            0 => "none may fail".to_owned(),
            failures => format!("{failures} may fail"),
        };
        format!("{there} {voters} voters: {survived}, no more than with {}; have an odd number", voters - 1)
    })
}

/// Changes who is in the cluster.
pub(crate) struct Memberships {
    member: Arc<LocalMember>,
    raft: Arc<RaftSlot>,
    view: watch::Sender<Arc<ClusterView>>,
    quorum: Arc<QuorumTracker>,
    proposals: Arc<Proposals>,
    reads: Arc<Reads>,
    peers: Arc<PeerCalls>,
    known_disks: Arc<KnownDisks>,
    outdated: Arc<OutdatedMembers>,
    /// Held while a change of this leader is under way: Raft refuses another one meanwhile, and says so as an error in the log.
    changing: Arc<Mutex<()>>,
}

impl Memberships {
    pub(crate) fn new(
        shared: &Shared,
        proposals: Arc<Proposals>,
        reads: Arc<Reads>,
        peers: Arc<PeerCalls>,
    ) -> Self {
        Self {
            member: shared.member.clone(),
            raft: shared.raft.clone(),
            view: shared.published.view.clone(),
            quorum: shared.quorum.clone(),
            known_disks: shared.known_disks.clone(),
            outdated: shared.outdated.clone(),
            proposals,
            reads,
            peers,
            changing: Arc::default(),
        }
    }

    /// Raft, if this member leads and has heard from a quorum lately.
    fn leading(&self) -> Result<(RaftHandle, RaftStatus), Error> {
        let raft = self.raft.running()?;
        let status = status::of_raft(&raft);
        if status.state != RaftState::Leader {
            return Err(Error::no_leader("the member that was asked does not lead"));
        }
        let patience = self.member.timing().patience();
        if status.last_quorum_ack.is_none_or(|at| at.elapsed() > patience) {
            return Err(Error::no_leader("the leader does not hear from a quorum"));
        }
        Ok((raft, status))
    }

    /// As [`leading`](Self::leading), with what `check` makes of the status. A leader that was just elected has not heard
    /// from anyone yet, so a failed check is made again until those that answer have had the time to.
    async fn settled<T>(
        &self,
        check: impl Fn(&RaftStatus) -> Result<T, Error>,
    ) -> Result<(RaftHandle, RaftStatus, T), Error> {
        let deadline = Instant::now() + self.member.timing().patience();
        loop {
            let checked = self.leading().and_then(|(raft, status)| {
                let found = check(&status)?;
                Ok((raft, status, found))
            });
            if checked.is_ok() || self.raft.role().state != RaftState::Leader || Instant::now() >= deadline {
                return checked;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The record of a member.
    fn record(&self, id: MemberId) -> Result<Arc<Member>, Error> {
        let view = self.view.borrow();
        let found = view.state.members.get(&id).cloned();
        found.ok_or_else(|| Refusal::NotFound { kind: Kind::Member, name: id.to_string() }.into())
    }

    /// Members that have acknowledged the leader lately: within the time after which a voter gives a leader up.
    fn answering(&self, status: &RaftStatus) -> BTreeSet<MemberId> {
        let patience = self.member.timing().patience();
        let now = Instant::now();
        let lately = |at: &Instant| now.saturating_duration_since(*at) < patience;
        let mut answering: BTreeSet<_> =
            status.heard.iter().filter(|(_, at)| lately(at)).map(|(id, _)| *id).collect();
        answering.extend(self.member.id());
        answering
    }

    /// Makes a change of membership, and waits for one that is under way before. Goes on when the caller is gone: half a
    /// change would leave two sets of voters in force.
    pub(crate) async fn change_members(
        &self,
        changes: ChangeMembers<u64, PeerNode>,
        retain: bool,
    ) -> Result<(), Error> {
        let raft = self.raft.running()?;
        let changing = self.changing.clone();
        let change = async move {
            let _turn = changing.lock_owned().await;
            let deadline = Instant::now() + STEP_WAIT;
            await_settled(&raft, STEP_WAIT).await;
            loop {
                let failed = match raft.change_membership(changes.clone(), retain).await {
                    Ok(_) => return Ok(()),
                    Err(failed) => failed,
                };
                if !is_busy(&failed) || Instant::now() >= deadline {
                    return Err(change_error(failed));
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(2 * STEP_WAIT, self.member.runtime().spawn(change)).await {
            Ok(changed) => changed.map_err(|_| Error::Failed(Failure::ShuttingDown))?,
            Err(_) => Err(Error::unknown("the change of membership has not found a quorum yet")),
        }
    }
}

/// Waits until the last change of membership is committed, and an entry of this leader's own: it may be one of an earlier leader. Raft
/// refuses a change before that, and says so as an error in the log.
async fn await_settled(raft: &RaftHandle, limit: Duration) {
    let settled = |metrics: &RaftMetrics<TypeConfig>| {
        let (applied, changed) = (metrics.last_applied, *metrics.membership_config.log_id());
        applied >= changed && applied.is_some_and(|applied| applied.leader_id.term == metrics.current_term)
    };
    // Whatever keeps it from that, Raft's own answer tells.
    let _ = raft.wait(Some(limit)).metrics(settled, "the last change of membership").await;
}

/// True for what passes by itself: each leader must hear a quorum and commit an entry of its own first, and each change
/// waits for the one before.
fn is_busy(error: &ChangeError) -> bool {
    let RaftError::APIError(error) = error else { return false };
    match error {
        ClientWriteError::ForwardToLeader(forward) => forward.reason == ForwardReason::LeaseExpired,
        ClientWriteError::ChangeMembershipError(error) => {
            matches!(
                error,
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)
            )
        }
        _ => false,
    }
}

fn change_error(error: ChangeError) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            Error::no_leader("the leader has lost its quorum, or was replaced")
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Error::unknown("the leader changed during the change of membership")
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(
            _,
        ))) => Error::membership(
            "another change of membership is under way and does not come to an end; try again",
        ),
        error => Error::internal(error),
    }
}
