//! Follows Raft's own reports: publishes the role, notes the end, finishes what an earlier leader left half done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::watch;
use trestle_model::MemberId;

use crate::leader_contact::LeaderContact;
use crate::member::LocalMember;
use crate::membership::Memberships;
use crate::network::Channels;
use crate::raft_slot::RaftSlot;
use crate::raft_types::TypeConfig;
use crate::replica::{ClusterView, RaftHandle};
use crate::shared::Shared;
use crate::status::{RaftRole, RaftState, raft_state};

/// The role by Raft's word, but without a leader that `hears_leader` denies.
fn role(metrics: &RaftServerMetrics<TypeConfig>, hears_leader: bool) -> RaftRole {
    let membership = metrics.membership_config.membership();
    let addresses: BTreeMap<u64, &str> =
        membership.nodes().map(|(id, node)| (*id, node.peer_address.as_str())).collect();
    let address = |id: u64| addresses.get(&id).map(|address| (*address).to_owned()).unwrap_or_default();
    let with_address = |id: u64| (MemberId(id), address(id));
    RaftRole {
        state: raft_state(metrics.state),
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader.filter(|id| *id == metrics.id || hears_leader).map(with_address),
        voters: membership.voter_ids().map(with_address).collect(),
        learners: membership.learner_ids().map(with_address).collect(),
        joint: membership.get_joint_config().len() > 1,
    }
}

/// Publishes what Raft says of this member's role.
pub(crate) struct RoleFollower {
    member: Arc<LocalMember>,
    raft: Arc<RaftSlot>,
    view: watch::Sender<Arc<ClusterView>>,
    contact: Arc<LeaderContact>,
    channels: Arc<Channels>,
    memberships: Arc<Memberships>,
}

impl RoleFollower {
    pub(crate) fn new(shared: &Shared, memberships: Arc<Memberships>) -> Self {
        Self {
            member: shared.member.clone(),
            raft: shared.raft.clone(),
            view: shared.published.view.clone(),
            contact: shared.contact.clone(),
            channels: shared.channels.clone(),
            memberships,
        }
    }

    fn log(&self, old: &RaftRole, new: &RaftRole) {
        let leader = |role: &RaftRole| role.leader.as_ref().map(|(id, _)| *id);
        if (old.state, leader(old)) == (new.state, leader(new)) {
            return;
        }
        let (state, term) = (new.state.as_str(), new.term);
        match leader(new) {
            Some(id) => {
                let known =
                    self.view.borrow().state.members.get(&id).map(|member| member.spec.name.to_string());
                let leader = known.unwrap_or_else(|| format!("member {id}"));
                tracing::info!(state, term, leader, "raft");
            }
            None if leader(old).is_some() => tracing::warn!(state, term, "raft: no leader is known any more"),
            // At the start nobody expects one yet.
            None => tracing::info!(state, term, "raft: no leader is known yet"),
        }
    }

    /// Follows `raft` until it ends.
    pub(crate) async fn follow(self, raft: RaftHandle, ended: watch::Receiver<bool>) {
        let mut metrics = raft.server_metrics();
        loop {
            let new = role(&metrics.borrow_watched(), self.contact.is_recent());
            // While Raft is being stopped, the code that stops it sets the state.
            if let Some(old) = self.raft.publish(&new, || !*ended.borrow()) {
                self.log(&old, &new);
                self.close_unknown_channels(&new);
                if new.state == RaftState::Leader && new.joint && old.state != RaftState::Leader {
                    tokio::spawn(finish_membership_change(self.raft.clone(), self.memberships.clone()));
                }
            }
            // Silence is no event, so look now and then.
            let look_again = self.member.timing().election_min;
            if let Ok(Err(_)) = tokio::time::timeout(look_again, metrics.changed()).await {
                break;
            }
        }
        if !*ended.borrow() {
            let end = raft.metrics().borrow_watched().running_state.clone();
            let why =
                end.err().map_or_else(|| "Raft has stopped".to_owned(), |e| format!("Raft has stopped: {e}"));
            tracing::error!("{why}");
            self.raft.fail(why);
        }
    }

    fn close_unknown_channels(&self, role: &RaftRole) {
        let known: Vec<String> = role.voters.values().chain(role.learners.values()).cloned().collect();
        if !known.is_empty() {
            self.channels.keep_only(&known);
        }
    }
}

/// A leader that died between the two steps of a change of voters left both sets in force. The second step can be made at
/// any time; a voter that it drops was on its way out of the cluster.
async fn finish_membership_change(raft: Arc<RaftSlot>, memberships: Arc<Memberships>) {
    let half_done = || {
        let role = raft.role();
        role.state == RaftState::Leader && role.joint
    };
    while half_done() {
        let nothing_new = ChangeMembers::AddVoterIds(Default::default());
        match memberships.change_members(nothing_new, false).await {
            Ok(()) => return tracing::info!("finished a change of voters that the last leader had begun"),
            Err(error) => {
                tracing::warn!("a change of voters that the last leader had begun is not finished: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
