//! Whose calls are believed. Without certificates nobody proves who calls; what can be checked is that the one in whose name
//! the call is made may make it at all, and that a leader who is said to hand over says so itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::VoteRequest;
use tonic::Status;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::status::{self, Failure};

use crate::membership_state::MembershipState;
use crate::network::Lane;
use crate::raft_types::{TypeConfig, Vote};
use crate::shared::{Core, RaftHandle};
use crate::wire;

/// Most ids that are taken for voters on the word of others.
const ASSUMED_VOTERS_MAX: usize = 16;

/// Longest wait for a leader's word on a transfer: whoever waits for longer has no use for it.
const LEADER_WAIT: Duration = Duration::from_secs(1);

/// Members that this one does not know as voters, and that are taken for some all the same until the log tells.
#[derive(Default)]
pub(crate) struct AssumedVoters {
    ids: Mutex<BTreeSet<u64>>,
    asking: tokio::sync::Mutex<()>,
}

impl AssumedVoters {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets them all.
    pub(crate) fn clear(&self) {
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

impl Core {
    /// Refuses a call in the name of a leader or candidate that can be none, by what this member knows. `has_more` says
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
        let known = self.known(raft);
        if known.standing(id) == MembershipState::Removed {
            return Err(status::failure(&Failure::CallerRemoved { member: id, applied: known.applied }));
        }
        if self.assumed_voters.ids().contains(&id) {
            return Ok(());
        }
        if !has_more {
            return Err(Status::failed_precondition(format!("member {id} does not vote in this cluster")));
        }
        self.runtime.spawn(self.clone().ask_whether_voter(id));
        Err(Status::failed_precondition(format!(
            "member {id} is no voter that this member knows of; it asks the members that it knows"
        )))
    }

    /// Asks those that this member knows whether the member `id` votes: it may have become a voter by an entry that is not
    /// here yet, and such a candidate can be the only one that a quorum elects.
    async fn ask_whether_voter(self: Arc<Self>, id: u64) {
        // Whoever calls again is answered by the question that is under way.
        let Ok(_asking) = self.assumed_voters.asking.try_lock() else { return };
        let accounts = self.accounts_of(id).await;
        if accounts.iter().any(|account| account.standing == MembershipState::Voter) {
            tracing::info!(id, "takes a member for a voter that others know as one");
            self.assumed_voters.add(id);
        } else if accounts.is_empty() {
            // The last one of the voters of before may be among voters who are all new to it.
            tracing::warn!(
                id,
                "takes a member for a voter because none of those that this member knows answers"
            );
            self.assumed_voters.add(id);
        } else {
            tokio::time::sleep(self.settings.timing.election_min).await;
        }
    }

    /// Whether the candidate stands at the wish of the leader that this member heard last, by that leader's own word.
    pub(crate) async fn is_confirmed_transfer(&self, request: &VoteRequest<TypeConfig>) -> bool {
        let candidate = request.vote.leader_id;
        let heard = self.leader_contact.leader();
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
        if self.me().is_some_and(|me| me.0 == leader) {
            return self.quorum.is_transferring_to(term, to);
        }
        let role = self.role.borrow().clone();
        let known = role.voters.iter().find(|(id, _)| id.0 == leader);
        let (Some((_, address)), Some(identity)) = (known, self.identity()) else { return false };
        let timing = &self.settings.timing;
        let destination = proto::Destination {
            cluster_id: identity.cluster_id.to_string(),
            member_id: leader,
            vote_refusal_ms: timing.vote_refusal_ms(),
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
            ..Default::default()
        };
        let request = proto::ConfirmTransferRequest { to: Some(destination), term, to_member_id: to };
        let Ok(channel) = self.channels.to(address, Lane::Heartbeat) else { return false };
        let mut service = RaftServiceClient::new(channel);
        let wait = timing.election_min.min(LEADER_WAIT);
        let answer = tokio::time::timeout(wait, service.confirm_transfer(request)).await;
        matches!(answer, Ok(Ok(answer)) if answer.get_ref().confirmed)
    }
}
