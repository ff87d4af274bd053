//! A disk that went back in time.
//!
//! A voter whose disk was put back from a copy has forgotten entries that it acknowledged and votes that it gave, and would
//! help to elect a leader that lacks them. It cannot know by itself, but others do: each member keeps in mind what the others
//! have told it to be durable, says so in each call, and answers when it is asked, which a voter does before its first vote.
//! All of that is in memory: where nobody who knows is up, nobody can know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::raft::VoteRequest;
use tokio::sync::watch;
use tonic::Code;
use trestle_api::peer as proto;
use trestle_api::peer::raft_service_client::RaftServiceClient;

use crate::network::Lane;
use crate::raft_types::{TypeConfig, Vote};
use crate::shared::Core;
use crate::store::SyncedIndex;
use crate::wire::{self, WireError};

/// How often those are asked again who have not answered yet.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Most members that are kept in mind, many times as many as a cluster has: callers are not known yet.
const KNOWN_DISKS_MAX: usize = 256;

/// What this member knows of the disks of the others.
#[derive(Debug, Default)]
pub(crate) struct KnownDisks(Mutex<BTreeMap<u64, SyncedIndex>>);

impl KnownDisks {
    fn stored(&self) -> MutexGuard<'_, BTreeMap<u64, SyncedIndex>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what `member` has said to be durable with it.
    pub(crate) fn note(&self, member: u64, stored: SyncedIndex) {
        let mut all = self.stored();
        if all.len() < KNOWN_DISKS_MAX || all.contains_key(&member) {
            all.entry(member).or_default().raise(&stored);
        }
    }

    /// The most that `member` ever had.
    pub(crate) fn of(&self, member: u64) -> SyncedIndex {
        self.stored().get(&member).copied().unwrap_or_default()
    }
}

/// That this member has less on its disk than it once had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskRollback {
    /// What it had, as far as anybody has said.
    known: SyncedIndex,
    /// What it had left when that was noticed.
    left: SyncedIndex,
    /// Who knows.
    by: u64,
}

impl DiskRollback {
    pub(crate) fn by(&self) -> u64 {
        self.by
    }

    /// A later vote than that of this leader, which this member has seen.
    pub(crate) fn later_than(&self, vote: &Vote) -> Option<Vote> {
        self.known.vote.filter(|known| known.leader_id > vote.leader_id)
    }

    /// In words, after the name of the member.
    pub(crate) fn words(&self, by: &str) -> String {
        let end = |mark: &SyncedIndex| mark.last.map_or(0, |last| last.index);
        let term = |mark: &SyncedIndex| mark.candidate().map_or(0, |candidate| candidate.term);
        let lost = if self.left.last < self.known.last {
            format!(
                "its log ended at entry {}, and {by} has seen it store entry {}",
                end(&self.left),
                end(&self.known)
            )
        } else {
            format!(
                "its last vote was for term {}, and {by} has seen one for term {}",
                term(&self.left),
                term(&self.known)
            )
        };
        format!(
            "its disk went back in time: {lost}. It takes no part in elections and serves no reads until a leader has filled it \
             again, which takes a moment once there is one; if it stays so, bring the other members back, or remove it, empty \
             its data directory and add it again"
        )
    }
}

impl Core {
    /// The most that was ever durable here in this process; `None` while the member is empty.
    pub(crate) fn max_synced(&self) -> Option<watch::Receiver<SyncedIndex>> {
        self.max_synced.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stored(&self) -> SyncedIndex {
        self.max_synced().map(|max_synced| *max_synced.borrow()).unwrap_or_default()
    }

    /// Asks every other member what it knows of this one's disk, and goes on asking those who do not answer. Returns when each
    /// has answered or had the time to.
    pub(crate) async fn check_disk_with_peers(self: &Arc<Self>) {
        let mut missing = self.others_on_disk();
        self.ask_all(&mut missing).await;
        if !missing.is_empty() {
            self.runtime.spawn(ask_later(Arc::downgrade(self), missing));
        }
    }

    /// Where the others look for this member, before Raft runs.
    pub(crate) fn own_address_on_disk(&self) -> Option<String> {
        self.members_on_disk().remove(&self.me()?.0)
    }

    /// The other members, with their peer addresses, before Raft runs.
    fn others_on_disk(&self) -> BTreeMap<u64, String> {
        let mut others = self.members_on_disk();
        others.remove(&self.me().map_or(0, |me| me.0));
        others
    }

    fn members_on_disk(&self) -> BTreeMap<u64, String> {
        let logged = self.storage().as_ref().and_then(|durable| durable.log.membership());
        match logged {
            Some(membership) => {
                membership.nodes().map(|(id, node)| (*id, node.peer_address.clone())).collect()
            }
            None => {
                let state = self.view.borrow().state.clone();
                state
                    .members
                    .iter()
                    .map(|(id, member)| (id.0, member.spec.peer_address.to_string()))
                    .collect()
            }
        }
    }

    /// Asks all of `missing` at the same time, and removes those who answer.
    async fn ask_all(self: &Arc<Self>, missing: &mut BTreeMap<u64, String>) {
        let answers = join_all(missing.iter().map(|(id, address)| self.ask(*id, address))).await;
        let answered: BTreeSet<u64> =
            missing.keys().zip(answers).filter(|(_, answered)| *answered).map(|(id, _)| *id).collect();
        missing.retain(|id, _| !answered.contains(id));
    }

    pub(crate) async fn ask(self: &Arc<Self>, id: u64, address: &str) -> bool {
        let (Some(identity), Ok(channel)) = (self.identity(), self.channels.to(address, Lane::Heartbeat))
        else {
            return false;
        };
        let to = proto::Destination {
            cluster_id: identity.cluster_id.to_string(),
            member_id: id,
            vote_refusal_ms: self.settings.timing.vote_refusal_ms(),
            known: Some(wire::synced_index_message(&self.known_disks.of(id))),
            own: Some(wire::synced_index_message(&self.stored())),
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
        };
        let request = proto::CheckDiskRequest { to: Some(to), member_id: identity.member_id.0 };
        let mut service = RaftServiceClient::new(channel);
        let asked = tokio::time::timeout(self.settings.timing.patience(), service.check_disk(request)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                self.recoveries.note(&status);
                // An older version, which knows nothing.
                return status.code() == Code::Unimplemented;
            }
            Err(_) => return false,
        };
        let (Ok(known), Ok(own)) =
            (wire::synced_index(answer.known.as_ref()), wire::synced_index(answer.own.as_ref()))
        else {
            return false;
        };
        self.reported_disks().insert(id, own);
        self.learn(id, known);
        true
    }

    /// Forgets everything: this member begins anew, under another id.
    pub(crate) fn clear_rollback(&self) {
        self.reported_disks().clear();
        self.abstention.send_replace(Default::default());
    }

    fn reported_disks(&self) -> MutexGuard<'_, BTreeMap<u64, SyncedIndex>> {
        self.reported_disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what a call of member `from` says of its disk and of this member's.
    pub(crate) fn note_disks(self: &Arc<Self>, from: u64, to: &proto::Destination) -> Result<(), WireError> {
        self.known_disks.note(from, wire::synced_index(to.own.as_ref())?);
        let known = wire::synced_index(to.known.as_ref())?;
        let from = trestle_model::MemberId(from);
        let is_member = {
            let role = self.role.borrow();
            role.voters.contains_key(&from) || role.learners.contains_key(&from)
        };
        // Whoever else calls can say anything.
        if is_member {
            self.learn(from.0, known);
        }
        Ok(())
    }

    /// Compares what member `from` knows of this one's disk with the disk.
    fn learn(self: &Arc<Self>, from: u64, known: SyncedIndex) {
        let Some(max_synced) = self.max_synced() else { return };
        let left = *max_synced.borrow();
        if left.reaches(&known) {
            return;
        }
        let mut first = false;
        self.abstention.send_modify(|abstention| {
            first = abstention.rolled_back.is_none();
            let noticed = DiskRollback { known, left, by: from };
            let rolled_back = abstention.rolled_back.get_or_insert(noticed);
            if !rolled_back.known.reaches(&known) {
                rolled_back.known.raise(&known);
                rolled_back.by = from;
            }
        });
        if first {
            tracing::error!("this member abstains: {}", self.why_abstains().unwrap_or_default());
            self.runtime.spawn(wait_until_refilled(Arc::downgrade(self), max_synced));
        }
    }

    /// Whether this member, whose disk went back in time, may help this candidate all the same: when every other voter has
    /// answered, nobody can know more than they do, and a candidate that has all of it is one that it may always have helped.
    /// So a cluster of which every disk was put back can go on.
    pub(crate) fn is_beyond_doubt(
        &self,
        rolled_back: &DiskRollback,
        request: &VoteRequest<TypeConfig>,
    ) -> bool {
        let me = self.me();
        let answers = self.reported_disks();
        let role = self.role.borrow();
        // Before Raft has said who votes.
        if role.voters.is_empty() {
            return false;
        }
        let mut most = rolled_back.known;
        for voter in role.voters.keys().filter(|id| Some(**id) != me) {
            match answers.get(&voter.0) {
                Some(own) => most.raise(own),
                None => return false,
            }
        }
        request.last_log_id >= most.last && Some(request.vote.leader_id) > most.candidate()
    }
}

async fn ask_later(core: Weak<Core>, mut missing: BTreeMap<u64, String>) {
    while !missing.is_empty() {
        tokio::time::sleep(ASK_AGAIN).await;
        let Some(core) = core.upgrade().filter(|core| !core.stopping()) else { return };
        core.ask_all(&mut missing).await;
    }
}

/// Waits until the disk has all that it once had.
async fn wait_until_refilled(core: Weak<Core>, mut max_synced: watch::Receiver<SyncedIndex>) {
    loop {
        let stored = *max_synced.borrow_and_update();
        let Some(core) = core.upgrade() else { return };
        let done = core.abstention.send_if_modified(|abstention| {
            let done =
                abstention.rolled_back.as_ref().is_none_or(|rolled_back| stored.reaches(&rolled_back.known));
            if done {
                abstention.rolled_back = None;
            }
            done
        });
        drop(core);
        if done {
            tracing::info!("this member has everything again that it once had, and takes part in elections");
            return;
        }
        if max_synced.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft_types::{LeaderId, LogId};

    fn synced_index(term: u64, index: u64, voted: u64) -> SyncedIndex {
        let leader = |term| LeaderId { term, node_id: 2 };
        let vote = Vote { leader_id: leader(voted), committed: false };
        SyncedIndex { last: Some(LogId::new(leader(term), index)), vote: Some(vote) }
    }

    #[test]
    fn the_most_is_kept_of_each() {
        let known_disks = KnownDisks::default();
        assert_eq!(known_disks.of(3), SyncedIndex::default());
        known_disks.note(3, synced_index(2, 10, 2));
        known_disks.note(3, synced_index(1, 90, 4));
        known_disks.note(4, synced_index(9, 9, 9));
        assert_eq!(known_disks.of(3), synced_index(2, 10, 4));
    }

    #[test]
    fn what_was_replaced_by_a_later_term_is_not_missed() {
        let known = synced_index(3, 10, 3);
        assert!(synced_index(5, 9, 5).reaches(&known));
        assert!(!synced_index(3, 9, 5).reaches(&known), "an entry is gone");
        assert!(!synced_index(3, 10, 2).reaches(&known), "a vote is gone");
    }

    #[test]
    fn a_leader_that_restarts_has_its_vote_all_the_same() {
        let mut known = synced_index(3, 10, 3);
        known.vote = known.vote.map(|vote| Vote { committed: true, ..vote });
        assert!(synced_index(3, 10, 3).reaches(&known));
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let known_disks = KnownDisks::default();
        (0..10_000).for_each(|member| known_disks.note(member, synced_index(1, 1, 1)));
        assert_eq!(known_disks.stored().len(), KNOWN_DISKS_MAX);
    }

    #[test]
    fn what_is_missing_is_said_in_words() {
        let lost = |known, left| DiskRollback { known, left, by: 1 }.words("member \"m1\"");
        assert!(
            lost(synced_index(2, 48, 2), synced_index(2, 15, 2))
                .contains("ended at entry 15, and member \"m1\" has seen it store entry 48")
        );
        assert!(
            lost(synced_index(2, 15, 4), synced_index(2, 15, 2))
                .contains("was for term 2, and member \"m1\" has seen one for term 4")
        );
    }
}
