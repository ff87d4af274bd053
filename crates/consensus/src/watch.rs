//! Follows Raft's own reports: publishes the role, notes the end, finishes what an earlier leader left half done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::watch;
use trestle_model::MemberId;

use crate::raft_types::TypeConfig;
use crate::shared::{Core, RaftHandle};
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

/// A task that this member cannot do without: when it panics, the member has failed.
struct FailOnPanic {
    core: Arc<Core>,
    name: &'static str,
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = format!("the task for {} panicked; see the log", self.name);
            self.core.failure.send_if_modified(|failure| {
                let first = failure.is_none();
                if first {
                    *failure = Some(why);
                }
                first
            });
        }
    }
}

impl Core {
    /// Starts a task that there is one of on Raft's runtime. It may end; only a panic is a failure.
    pub(crate) fn spawn_watched(
        self: &Arc<Self>,
        name: &'static str,
        body: impl Future<Output = ()> + Send + 'static,
    ) {
        let watched = FailOnPanic { core: self.clone(), name };
        self.runtime.spawn(async move {
            let _watched = watched;
            body.await;
        });
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
    pub(crate) async fn follow(self: Arc<Self>, raft: RaftHandle, ended: watch::Receiver<bool>) {
        let mut metrics = raft.server_metrics();
        loop {
            let new = role(&metrics.borrow_watched(), self.leader_contact.is_recent());
            if let Some(old) = self.publish(&new, &ended) {
                self.log(&old, &new);
                self.close_unknown_channels(&new);
                if new.state == RaftState::Leader && new.joint && old.state != RaftState::Leader {
                    tokio::spawn(finish_membership_change(self.clone()));
                }
            }
            // Silence is no event, so look now and then.
            let look_again = self.settings.timing.election_min;
            if let Ok(Err(_)) = tokio::time::timeout(look_again, metrics.changed()).await {
                break;
            }
        }
        if !*ended.borrow() {
            let end = raft.metrics().borrow_watched().running_state.clone();
            let why =
                end.err().map_or_else(|| "Raft has stopped".to_owned(), |e| format!("Raft has stopped: {e}"));
            tracing::error!("{why}");
            self.failure.send_replace(Some(why));
        }
    }

    /// Publishes a role that is new, and answers the old one.
    fn publish(&self, new: &RaftRole, ended: &watch::Receiver<bool>) -> Option<RaftRole> {
        let mut old = None;
        self.role.send_if_modified(|role| {
            // Who stops Raft says by itself what comes of this member.
            let changed = *role != *new && !*ended.borrow();
            if changed {
                old = Some(std::mem::replace(role, new.clone()));
            }
            changed
        });
        old
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
async fn finish_membership_change(core: Arc<Core>) {
    let half_done = || {
        let role = core.role.borrow();
        role.state == RaftState::Leader && role.joint
    };
    while half_done() {
        let nothing_new = ChangeMembers::AddVoterIds(Default::default());
        match core.change_members(nothing_new, false).await {
            Ok(()) => return tracing::info!("finished a change of voters that the last leader had begun"),
            Err(error) => {
                tracing::warn!("a change of voters that the last leader had begun is not finished: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
