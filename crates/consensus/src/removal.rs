//! Finding out whether this member was removed: from its own log, or by asking the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::status::Failure;
use trestle_model::MemberId;

use crate::membership_state::{KnownMembers, MembershipReport, MembershipState, RemovalVerdict, verdict};
use crate::network::Lane;
use crate::propose::LeaderLocation;
use crate::recovery::RecoveryId;
use crate::shared::{Core, RaftHandle};

/// How long a member may take to say what it knows of another one. A leader asks a quorum first.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Time without a leader after which a member asks by itself whether it was removed, and then as long again: whoever removed
/// it may not have reached it, and one that does not vote calls for no votes either.
const SILENCE: Duration = Duration::from_secs(10);

/// Least time between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// A member and its peer address.
type PeerAddress = (u64, String);

impl Core {
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
        let role = self.role.borrow();
        places.extend(role.voters.iter().chain(&role.learners).map(|(id, address)| (id.0, address.clone())));
        if let Some(me) = self.me() {
            places.remove(&me.0);
        }
        places
    }

    /// Asks all the members that this one knows, and the leaders that they name, what they know of the member `id`. Whoever
    /// does not answer, or was removed itself, gives no account.
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
        let cluster_id = self.identity()?.cluster_id.to_string();
        let vote_refusal_ms = self.settings.timing.vote_refusal_ms();
        let RecoveryId { number: recovery, draw: recovery_draw } = self.recovery();
        let destination = proto::Destination {
            cluster_id,
            member_id: to,
            vote_refusal_ms,
            recovery,
            recovery_draw,
            ..Default::default()
        };
        let request = proto::CheckMemberRequest { to: Some(destination), member_id: id };
        let mut service = RaftServiceClient::new(self.channels.to(address, Lane::Log).ok()?);
        let answer = timeout(ANSWER_WAIT, service.check_member(request)).await.ok()?;
        let answer = answer.inspect_err(|status| self.recoveries.note(status)).ok()?.into_inner();
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
        let leads =
            matches!(self.leader(), Some(LeaderLocation::Here)) && self.has_caught_up_as_leader().await;
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
        let leader = self.role.borrow().leader.clone();
        let (leader_id, leader_address) = leader.map(|(id, address)| (id.0, address)).unwrap_or_default();
        let standing = standing.into();
        proto::CheckMemberResponse { standing, applied_index, applied_term, leads, leader_id, leader_address }
    }

    /// Whether a quorum confirms this leader now, and it has applied everything that was committed by then.
    async fn has_caught_up_as_leader(&self) -> bool {
        let within = ANSWER_WAIT / 2;
        match self.read_index_here(within).await {
            Ok(index) => self.applied(index, Instant::now() + within).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Finds out from the leader whether this member was removed.
    pub(crate) async fn ask_whether_removed(&self) -> RemovalVerdict {
        let Some(me) = self.me() else { return RemovalVerdict::Open };
        let mine = {
            let view = self.view.borrow();
            (view.applied_term, view.applied)
        };
        verdict(mine, self.accounts_of(me.0).await)
    }

    /// Whether the log that this member has applied says that it was removed.
    fn was_removed_by_own_log(&self, raft: &RaftHandle) -> bool {
        self.me().is_some_and(|me| self.known(raft).says_removed(me.0))
    }

    /// Watches for the removal of this member until Raft ends.
    pub(crate) async fn watch_removal(self: Arc<Self>, raft: RaftHandle, mut ended: watch::Receiver<bool>) {
        let mut view = self.view.subscribe();
        let mut heard = Instant::now();
        let by = loop {
            view.borrow_and_update();
            if self.was_removed_by_own_log(&raft) {
                break "the log says so";
            }
            let told = tokio::select! {
                () = self.removal_reports.news.notified() => true,
                _ = view.changed() => false,
                () = tokio::time::sleep(PAUSE) => false,
                _ = ended.wait_for(|ended| *ended) => return,
            };
            if self.leader_contact.is_recent() || matches!(self.leader(), Some(LeaderLocation::Here)) {
                heard = Instant::now();
            }
            if !told && heard.elapsed() < SILENCE {
                continue;
            }
            heard = Instant::now();
            match self.ask_whether_removed().await {
                RemovalVerdict::Removed => break "the leader confirms it",
                RemovalVerdict::Member => self.removal_reports.deny(),
                RemovalVerdict::Open => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        drop(raft);
        self.end_membership(by).await;
    }

    /// Makes the removal durable, and ends this member's part in Raft.
    async fn end_membership(self: Arc<Self>, by: &str) {
        tracing::warn!("this member was removed from its cluster: {by}");
        if let Err(error) = self.record_removal().await {
            tracing::error!("the removal could not be noted: {error}");
        }
    }

    /// Notes the removal of this member if the leader confirms it.
    pub(crate) async fn confirm_removal(self: Arc<Self>) -> RemovalVerdict {
        let verdict = self.ask_whether_removed().await;
        match verdict {
            RemovalVerdict::Removed => self.end_membership("the leader confirms it").await,
            RemovalVerdict::Member => self.removal_reports.deny(),
            RemovalVerdict::Open => {}
        }
        verdict
    }

    /// What this member finds wrong about its own part in the cluster, in words.
    pub(crate) fn problems(&self) -> Vec<String> {
        if self.was_removed() {
            return vec![Failure::Removed.to_string()];
        }
        let state = self.view.borrow().state.clone();
        let name = |id: &u64| {
            let known = state.members.get(&MemberId(*id)).map(|member| member.spec.name.to_string());
            known.unwrap_or_else(|| format!("member {id}"))
        };
        let by = self.removal_reports.by(std::time::Instant::now());
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
