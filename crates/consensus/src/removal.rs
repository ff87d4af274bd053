//! Finding out whether this member was removed: from its own log, or by asking the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use trestle_api::peer as proto;
use trestle_api::status::Failure;
use trestle_model::MemberId;

use crate::leader_contact::LeaderContact;
use crate::member::LocalMember;
use crate::membership_state::{KnownMembers, MembershipReport, MembershipState, RemovalVerdict, verdict};
use crate::peer_calls::PeerCalls;
use crate::raft_slot::RaftSlot;
use crate::read::Reads;
use crate::removal_reports::RemovalReports;
use crate::replica::{ClusterView, RaftHandle};
use crate::shared::Shared;

/// How long a member may take to say what it knows of another one. A leader asks a quorum first.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Time without a leader after which a member asks by itself whether it was removed, and then as long again: the leader that
/// removed it may not have reached it, and a member that does not vote never asks for votes either.
const SILENCE: Duration = Duration::from_secs(10);

/// Least time between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// How the removal came to be known that the leader has confirmed.
pub(crate) const CONFIRMED: &str = "the leader confirms it";

/// A member and its peer address.
type PeerAddress = (u64, String);

/// Finds out who was removed.
pub(crate) struct RemovalCheck {
    member: Arc<LocalMember>,
    raft: Arc<RaftSlot>,
    view: watch::Sender<Arc<ClusterView>>,
    reads: Arc<Reads>,
    peers: Arc<PeerCalls>,
    contact: Arc<LeaderContact>,
    reports: Arc<RemovalReports>,
}

impl RemovalCheck {
    pub(crate) fn new(shared: &Shared, reads: Arc<Reads>, peers: Arc<PeerCalls>) -> Self {
        Self {
            member: shared.member.clone(),
            raft: shared.raft.clone(),
            view: shared.published.view.clone(),
            reads,
            peers,
            contact: shared.contact.clone(),
            reports: shared.removal_reports.clone(),
        }
    }

    /// What this member knows of who is in the cluster.
    pub(crate) fn known(&self, raft: &RaftHandle) -> KnownMembers {
        use openraft::async_runtime::watch::WatchReceiver;
        let (voters, learners) = {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            (membership.voter_ids().collect(), membership.learner_ids().collect())
        };
        let view = self.view.borrow();
        let members = view.state.members.keys().map(|id| id.0).collect();
        let founded = view.state.cluster_id.is_some();
        KnownMembers { voters, learners, members, founded, applied: view.applied }
    }

    /// The other members that this one knows from its own log, and where each is reached.
    fn others(&self) -> BTreeMap<u64, String> {
        let view = self.view.borrow().clone();
        let mut places: BTreeMap<u64, String> =
            view.state.members.values().map(|m| (m.id.0, m.spec.peer_address.to_string())).collect();
        let role = self.raft.role();
        places.extend(role.voters.iter().chain(&role.learners).map(|(id, address)| (id.0, address.clone())));
        if let Some(me) = self.member.id() {
            places.remove(&me.0);
        }
        places
    }

    /// Asks all the members that this one knows, and the leaders that they name, what they know of the member `id`. A
    /// member that does not answer, or was removed itself, reports nothing.
    pub(crate) async fn accounts_of(&self, id: u64) -> Vec<MembershipReport> {
        let places = self.others();
        let first = join_all(places.iter().map(|(to, at)| self.account(id, *to, at))).await;
        let mut named: BTreeMap<u64, String> = BTreeMap::new();
        let mut accounts = Vec::new();
        for (account, leader) in first.into_iter().flatten() {
            named.extend(leader.filter(|(id, address)| places.get(id) != Some(address)));
            accounts.push(account);
        }
        let second = join_all(named.iter().map(|(to, at)| self.account(id, *to, at))).await;
        accounts.extend(second.into_iter().flatten().map(|(account, _)| account));
        accounts
    }

    /// What the member `to` says of the member `id`, and who leads by its word.
    async fn account(
        &self,
        id: u64,
        to: u64,
        address: &str,
    ) -> Option<(MembershipReport, Option<PeerAddress>)> {
        let answer = self.peers.check_member(to, address, id, ANSWER_WAIT).await?;
        let standing = match answer.standing() {
            proto::MemberStanding::Unspecified => MembershipState::Unknown,
            proto::MemberStanding::Voter => MembershipState::Voter,
            proto::MemberStanding::Learner => MembershipState::Learner,
            proto::MemberStanding::Outside => MembershipState::Outside,
            proto::MemberStanding::Removed => MembershipState::Removed,
        };
        let applied = (answer.applied_term, answer.applied_index);
        let leader = (answer.leader_id != 0 && !answer.leader_address.is_empty())
            .then_some((answer.leader_id, answer.leader_address));
        Some((MembershipReport { standing, applied, leads: answer.leads }, leader))
    }

    /// Answers another member's `CheckMember`.
    pub(crate) async fn serve_check_member(&self, raft: &RaftHandle, id: u64) -> proto::CheckMemberResponse {
        let leads = self.raft.leads() && self.has_caught_up_as_leader().await;
        let standing = match self.known(raft).standing(id) {
            MembershipState::Unknown => proto::MemberStanding::Unspecified,
            MembershipState::Voter => proto::MemberStanding::Voter,
            MembershipState::Learner => proto::MemberStanding::Learner,
            MembershipState::Outside => proto::MemberStanding::Outside,
            MembershipState::Removed => proto::MemberStanding::Removed,
        };
        let (applied_index, applied_term) = {
            let view = self.view.borrow();
            (view.applied, view.applied_term)
        };
        let leader = self.raft.role().leader.clone();
        let (leader_id, leader_address) = leader.map(|(id, address)| (id.0, address)).unwrap_or_default();
        let standing = standing.into();
        proto::CheckMemberResponse { standing, applied_index, applied_term, leads, leader_id, leader_address }
    }

    /// Whether a quorum confirms this leader now, and it has applied everything that was committed by then.
    async fn has_caught_up_as_leader(&self) -> bool {
        let within = ANSWER_WAIT / 2;
        match self.reads.read_index_here(within).await {
            Ok(index) => self.reads.applied(index, Instant::now() + within).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Finds out from the leader whether this member was removed.
    async fn ask_whether_removed(&self) -> RemovalVerdict {
        let Some(me) = self.member.id() else { return RemovalVerdict::Open };
        let mine = {
            let view = self.view.borrow();
            (view.applied_term, view.applied)
        };
        verdict(mine, self.accounts_of(me.0).await)
    }

    /// Whether the log that this member has applied says that it was removed.
    fn was_removed_by_own_log(&self, raft: &RaftHandle) -> bool {
        self.member.id().is_some_and(|me| self.known(raft).says_removed(me.0))
    }

    /// Waits for the removal of this member, and says how it came to be known; `None` when Raft ends before.
    pub(crate) async fn wait_for_removal(
        &self,
        raft: &RaftHandle,
        mut ended: watch::Receiver<bool>,
    ) -> Option<&'static str> {
        let mut view = self.view.subscribe();
        let mut heard = Instant::now();
        loop {
            view.borrow_and_update();
            if self.was_removed_by_own_log(raft) {
                return Some("the log says so");
            }
            let told = tokio::select! {
                () = self.reports.news.notified() => true,
                _ = view.changed() => false,
                () = tokio::time::sleep(PAUSE) => false,
                _ = ended.wait_for(|ended| *ended) => return None,
            };
            if self.contact.is_recent() || self.raft.leads() {
                heard = Instant::now();
            }
            if !told && heard.elapsed() < SILENCE {
                continue;
            }
            heard = Instant::now();
            if self.verify().await == RemovalVerdict::Removed {
                return Some(CONFIRMED);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the leader, and forgets what others say when it denies it.
    pub(crate) async fn verify(&self) -> RemovalVerdict {
        let verdict = self.ask_whether_removed().await;
        if verdict == RemovalVerdict::Member {
            self.reports.deny();
        }
        verdict
    }

    /// What this member finds wrong about its own part in the cluster, in words.
    pub(crate) fn problems(&self) -> Vec<String> {
        if self.member.was_removed() {
            return vec![Failure::Removed.to_string()];
        }
        let state = self.view.borrow().state.clone();
        let name = |id: &u64| {
            let known = state.members.get(&MemberId(*id)).map(|member| member.spec.name.to_string());
            known.unwrap_or_else(|| format!("member {id}"))
        };
        let by = self.reports.by(std::time::Instant::now());
        let names: Vec<String> = by.iter().map(name).collect();
        let says = match names.as_slice() {
            [] => return Vec::new(),
            [one] => format!("{one} says"),
            several => format!("{} say", several.join(", ")),
        };
        vec![format!(
            "{says} that this member was removed, which no leader with a quorum has confirmed; see \"trestle member list\""
        )]
    }
}
