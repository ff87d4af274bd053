//! Whose calls are believed. Without certificates nobody proves who calls; what can be checked is that the one in whose name
//! the call is made may make it at all, and that a leader who is said to hand over says so itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::VoteRequest;
use tonic::Status;
use trestle_api::status::{self, Failure};

use crate::leader_contact::LeaderContact;
use crate::leadership::QuorumTracker;
use crate::member::LocalMember;
use crate::membership_state::MembershipState;
use crate::peer_calls::PeerCalls;
use crate::raft_slot::RaftSlot;
use crate::raft_types::{TypeConfig, Vote};
use crate::removal::RemovalCheck;
use crate::replica::RaftHandle;
use crate::shared::Shared;
use crate::wire;

/// Most ids that are taken for voters on the word of others.
const ASSUMED_VOTERS_MAX: usize = 16;

/// Longest wait for a leader's word on a transfer: a candidate that waits longer has no use for it.
const LEADER_WAIT: Duration = Duration::from_secs(1);

/// Members that this one does not know as voters and treats as voters on the word of others, until the log tells.
#[derive(Default)]
struct AssumedVoters {
    ids: Mutex<BTreeSet<u64>>,
    asking: tokio::sync::Mutex<()>,
}

impl AssumedVoters {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets them all.
    fn clear(&self) {
        self.ids().clear();
    }

    fn add(&self, id: u64) {
        let mut ids = self.ids();
        if ids.len() >= ASSUMED_VOTERS_MAX {
            ids.clear();
        }
        ids.insert(id);
    }
}

/// Refuses calls that nobody in whose name they are made can make.
pub(crate) struct CallerCheck {
    member: Arc<LocalMember>,
    raft: Arc<RaftSlot>,
    quorum: Arc<QuorumTracker>,
    contact: Arc<LeaderContact>,
    peers: Arc<PeerCalls>,
    removal: Arc<RemovalCheck>,
    assumed: AssumedVoters,
    /// The last wrong timing of a caller that the log tells of.
    last_mismatch_ms: AtomicU32,
}

impl CallerCheck {
    pub(crate) fn new(shared: &Shared, peers: Arc<PeerCalls>, removal: Arc<RemovalCheck>) -> Self {
        let last_mismatch_ms = AtomicU32::new(shared.member.timing().vote_refusal_ms());
        Self {
            member: shared.member.clone(),
            raft: shared.raft.clone(),
            quorum: shared.quorum.clone(),
            contact: shared.contact.clone(),
            peers,
            removal,
            assumed: AssumedVoters::default(),
            last_mismatch_ms,
        }
    }

    /// Forgets whom others took for voters.
    pub(crate) fn clear(&self) {
        self.assumed.clear();
    }

    /// Refuses a caller whose voters stand by a leader for another time than this one's: who may serve while nobody else does
    /// follows from all having the same.
    pub(crate) fn check_timing(&self, theirs: u32) -> Result<(), Status> {
        let mine = self.member.timing().vote_refusal_ms();
        if theirs == mine {
            return Ok(());
        }
        let why = format!(
            "election timeouts of up to {theirs} ms do not go with this member's, of up to {mine} ms: give all members the same \
             profile"
        );
        if self.last_mismatch_ms.swap(theirs, Ordering::Relaxed) != theirs {
            tracing::warn!("refused another member's Raft calls: {why}");
        }
        Err(Status::failed_precondition(why))
    }

    /// Refuses a call in the name of a member that, by what this member knows, can be neither leader nor candidate. `has_more` says
    /// whether that one may have entries that this member lacks, among them one that made it a voter.
    pub(crate) fn admit(
        self: &Arc<Self>,
        raft: &RaftHandle,
        vote: &Vote,
        has_more: bool,
    ) -> Result<(), Status> {
        let id = vote.leader_id.node_id;
        {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let voters = metrics.membership_config.membership().get_joint_config();
            // A learner that has nothing yet knows nobody, and no term.
            if voters.is_empty() {
                return Ok(());
            }
            let mine = metrics.vote.leader_id.term;
            wire::within_reach(vote.leader_id.term, mine)
                .map_err(|e| Status::invalid_argument(e.to_string()))?;
            if voters.iter().any(|set| set.contains(&id)) {
                return Ok(());
            }
        }
        let known = self.removal.known(raft);
        if known.standing(id) == MembershipState::Removed {
            return Err(status::failure(&Failure::CallerRemoved { member: id, applied: known.applied }));
        }
        if self.assumed.ids().contains(&id) {
            return Ok(());
        }
        if !has_more {
            return Err(Status::failed_precondition(format!("member {id} does not vote in this cluster")));
        }
        self.member.runtime().spawn(self.clone().ask_whether_voter(id));
        Err(Status::failed_precondition(format!(
            "member {id} is no voter that this member knows of; it asks the members that it knows"
        )))
    }

    /// Asks those that this member knows whether the member `id` votes: it may have become a voter by an entry that is not
    /// here yet, and such a candidate can be the only one that a quorum elects.
    async fn ask_whether_voter(self: Arc<Self>, id: u64) {
        // The question that is under way answers a repeated call too.
        let Ok(_asking) = self.assumed.asking.try_lock() else { return };
        let accounts = self.removal.accounts_of(id).await;
        if accounts.iter().any(|account| account.standing == MembershipState::Voter) {
            tracing::info!(id, "takes a member for a voter that others know as one");
            self.assumed.add(id);
        } else if accounts.is_empty() {
            // All other voters may have been replaced while this member was away.
            tracing::warn!(
                id,
                "takes a member for a voter because none of those that this member knows answers"
            );
            self.assumed.add(id);
        } else {
            tokio::time::sleep(self.member.timing().election_min).await;
        }
    }

    /// Whether the candidate stands at the wish of the leader that this member heard last, by that leader's own word.
    pub(crate) async fn is_confirmed_transfer(&self, request: &VoteRequest<TypeConfig>) -> bool {
        let candidate = request.vote.leader_id;
        let heard = self.contact.leader();
        // The leader itself hears none.
        let (own, to) = self.quorum.last_transfer();
        if to == candidate.node_id && heard.is_none_or(|(term, _)| term <= own) {
            return candidate.term > own;
        }
        match heard {
            Some((term, leader)) if candidate.term > term => {
                self.is_transferring_to(term, leader, candidate.node_id).await
            }
            _ => false,
        }
    }

    /// Whether the leader of `term` says itself that it hands leadership to the member `to`.
    pub(crate) async fn is_transferring_to(&self, term: u64, leader: u64, to: u64) -> bool {
        if self.member.id().is_some_and(|me| me.0 == leader) {
            return self.quorum.is_transferring_to(term, to);
        }
        let role = self.raft.role().clone();
        let known = role.voters.iter().find(|(id, _)| id.0 == leader);
        let Some((_, address)) = known else { return false };
        let wait = self.member.timing().election_min.min(LEADER_WAIT);
        self.peers.confirm_transfer(leader, address, term, to, wait).await
    }
}
