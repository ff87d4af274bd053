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
use trestle_api::peer as proto;
use trestle_model::MemberId;

use crate::abstention::{Abstentions, DiskRollback};
use crate::known_disks::KnownDisks;
use crate::member::LocalMember;
use crate::peer_calls::{DiskAnswer, PeerCalls};
use crate::raft_slot::RaftSlot;
use crate::raft_types::{TypeConfig, Vote};
use crate::replica::ClusterView;
use crate::shared::Shared;
use crate::storage::StorageSlot;
use crate::store::SyncedIndex;
use crate::wire::{self, WireError};

/// How often those are asked again who have not answered yet.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Compares what others know of this member's disk with the disk.
pub(crate) struct RollbackCheck {
    member: Arc<LocalMember>,
    raft: Arc<RaftSlot>,
    storage: Arc<StorageSlot>,
    view: watch::Sender<Arc<ClusterView>>,
    peers: Arc<PeerCalls>,
    known: Arc<KnownDisks>,
    abstentions: Arc<Abstentions>,
    /// What those members had stored who were asked at the start.
    reported: Mutex<BTreeMap<u64, SyncedIndex>>,
}

impl RollbackCheck {
    pub(crate) fn new(shared: &Shared, peers: Arc<PeerCalls>) -> Self {
        Self {
            member: shared.member.clone(),
            raft: shared.raft.clone(),
            storage: shared.storage.clone(),
            view: shared.published.view.clone(),
            peers,
            known: shared.known_disks.clone(),
            abstentions: shared.abstentions.clone(),
            reported: Mutex::default(),
        }
    }

    /// What this member knows of the disk of another one, and what it has on its own.
    pub(crate) fn disks(&self, of: u64) -> (SyncedIndex, SyncedIndex) {
        (self.known.of(of), self.storage.synced())
    }

    /// Asks every other member what it knows of this one's disk, and goes on asking those who do not answer. Returns when each
    /// has answered or had the time to.
    pub(crate) async fn ask_all_peers(self: &Arc<Self>) {
        let mut missing = self.members_on_disk();
        if let Some(me) = self.member.id() {
            missing.remove(&me.0);
        }
        self.ask_all(&mut missing).await;
        if !missing.is_empty() {
            self.member.runtime().spawn(ask_later(Arc::downgrade(self), missing));
        }
    }

    /// Where the others look for this member, before Raft runs.
    pub(crate) fn own_address_on_disk(&self) -> Option<String> {
        self.members_on_disk().remove(&self.member.id()?.0)
    }

    /// The members with their peer addresses, before Raft runs.
    fn members_on_disk(&self) -> BTreeMap<u64, String> {
        self.storage.members().unwrap_or_else(|| {
            let state = self.view.borrow().state.clone();
            state.members.values().map(|m| (m.id.0, m.spec.peer_address.to_string())).collect()
        })
    }

    /// Asks all of `missing` at the same time, and removes those who answer.
    async fn ask_all(self: &Arc<Self>, missing: &mut BTreeMap<u64, String>) {
        let answers = join_all(missing.iter().map(|(id, address)| self.ask(*id, address))).await;
        let answered: BTreeSet<u64> =
            missing.keys().zip(answers).filter(|(_, answered)| *answered).map(|(id, _)| *id).collect();
        missing.retain(|id, _| !answered.contains(id));
    }

    /// Asks the member `id`; answers whether it did.
    pub(crate) async fn ask(self: &Arc<Self>, id: u64, address: &str) -> bool {
        let (known, own) = self.disks(id);
        match self.peers.check_disk(id, address, &known, &own).await {
            None => false,
            Some(DiskAnswer::Nothing) => true,
            Some(DiskAnswer::KnownMembers(known, own)) => {
                self.reported().insert(id, own);
                self.learn(id, known);
                true
            }
        }
    }

    /// Forgets everything: this member begins anew, under another id.
    pub(crate) fn clear(&self) {
        self.reported().clear();
        self.abstentions.clear();
    }

    fn reported(&self) -> MutexGuard<'_, BTreeMap<u64, SyncedIndex>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what a call of member `from` says of its disk and of this member's.
    pub(crate) fn note_disks(self: &Arc<Self>, from: u64, to: &proto::Destination) -> Result<(), WireError> {
        self.known.note(from, wire::synced_index(to.own.as_ref())?);
        let known = wire::synced_index(to.known.as_ref())?;
        let is_member = {
            let (role, from) = (self.raft.role(), MemberId(from));
            role.voters.contains_key(&from) || role.learners.contains_key(&from)
        };
        // A caller that is no member can claim anything.
        if is_member {
            self.learn(from, known);
        }
        Ok(())
    }

    /// Compares what member `from` knows of this one's disk with the disk.
    fn learn(self: &Arc<Self>, from: u64, known: SyncedIndex) {
        let Some(synced) = self.storage.max_synced() else { return };
        let left = *synced.borrow();
        if left.reaches(&known) {
            return;
        }
        let mut first = false;
        self.abstentions.modify(|abstention| {
            first = abstention.rolled_back.is_none();
            let noticed = DiskRollback { known, left, by: from };
            let rolled_back = abstention.rolled_back.get_or_insert(noticed);
            if !rolled_back.known.reaches(&known) {
                rolled_back.known.raise(&known);
                rolled_back.by = from;
            }
            true
        });
        if first {
            tracing::error!("this member abstains: {}", self.abstentions.why().unwrap_or_default());
            self.member.runtime().spawn(wait_until_refilled(Arc::downgrade(&self.abstentions), synced));
        }
    }

    /// A later vote than that of this leader which this member has given or seen, and forgotten with its disk.
    pub(crate) fn forgotten_vote(&self, vote: &Vote) -> Option<Vote> {
        self.abstentions.current().rolled_back?.later_than(vote)
    }

    /// Whether this member withholds its vote from a candidate.
    pub(crate) fn withholds_vote(&self, request: &VoteRequest<TypeConfig>) -> bool {
        let abstention = self.abstentions.current();
        abstention.displaced.is_some()
            || abstention.rolled_back.is_some_and(|rolled_back| !self.is_beyond_doubt(&rolled_back, request))
    }

    /// Whether this member, whose disk went back in time, may help this candidate all the same: when every other voter has
    /// answered, nobody can know more than they do, and a candidate that has all of it is one that it may always have helped.
    /// So a cluster of which every disk was put back can go on.
    fn is_beyond_doubt(&self, rolled_back: &DiskRollback, request: &VoteRequest<TypeConfig>) -> bool {
        let me = self.member.id();
        let answers = self.reported();
        let role = self.raft.role();
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

async fn ask_later(check: Weak<RollbackCheck>, mut missing: BTreeMap<u64, String>) {
    while !missing.is_empty() {
        tokio::time::sleep(ASK_AGAIN).await;
        let Some(check) = check.upgrade().filter(|check| !check.member.is_stopping()) else { return };
        check.ask_all(&mut missing).await;
    }
}

/// Waits until the disk has all that it once had.
async fn wait_until_refilled(abstentions: Weak<Abstentions>, mut synced: watch::Receiver<SyncedIndex>) {
    loop {
        let stored = *synced.borrow_and_update();
        let Some(abstentions) = abstentions.upgrade() else { return };
        let done = abstentions.modify(|abstention| {
            let done =
                abstention.rolled_back.as_ref().is_none_or(|rolled_back| stored.reaches(&rolled_back.known));
            if done {
                abstention.rolled_back = None;
            }
            done
        });
        drop(abstentions);
        if done {
            tracing::info!("this member has everything again that it once had, and takes part in elections");
            return;
        }
        if synced.changed().await.is_err() {
            return;
        }
    }
}
