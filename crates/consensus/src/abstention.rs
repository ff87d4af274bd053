//! Why this member abstains: it helps to elect nobody, does not stand, and answers no reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use trestle_model::MemberId;

use crate::error::Error;
use crate::raft_types::{LogId, Vote};
use crate::replica::{ClusterView, RaftHandle};
use crate::store::SyncedIndex;

/// How often the log says that this member's program is too old, while it is.
const OUTDATED_TOLD_EVERY: Duration = Duration::from_secs(60);

/// That this member has less on its disk than it once had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskRollback {
    /// What it had, as far as anybody has said.
    pub(crate) known: SyncedIndex,
    /// What it had left when that was noticed.
    pub(crate) left: SyncedIndex,
    /// Who knows.
    pub(crate) by: u64,
}

impl DiskRollback {
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

/// That the cluster has agreed on something that this member's program does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutdatedProgram {
    /// The entry, or the last one of the snapshot, that it cannot take.
    pub(crate) at: LogId,
    /// What it does not know.
    pub(crate) what: Arc<str>,
}

impl OutdatedProgram {
    /// In words, after the name of the member.
    pub(crate) fn words(&self) -> String {
        format!(
            "its program is too old for what the cluster has agreed on (log entry {}: {}): upgrade this member's program to the \
             version that the other members run. Until then it stays at the configuration that it has, answers no reads, cannot \
             lead and holds no virtual IPs; it loses nothing, and goes on from here once it is upgraded",
            self.at.index, self.what
        )
    }
}

/// The reasons, each of which is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Abstention {
    /// Its disk went back in time.
    pub(crate) rolled_back: Option<DiskRollback>,
    /// Another process is this member, in words.
    pub(crate) displaced: Option<Arc<str>>,
    /// Its program is too old.
    pub(crate) outdated: Option<OutdatedProgram>,
}

impl Abstention {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The reasons that hold now, and their watchers.
pub(crate) struct Abstentions {
    reasons: watch::Sender<Abstention>,
    /// When the log was told last that the program is too old.
    outdated_told: Mutex<Option<Instant>>,
    view: watch::Sender<Arc<ClusterView>>,
}

impl Abstentions {
    pub(crate) fn new(view: watch::Sender<Arc<ClusterView>>) -> Self {
        Self { reasons: watch::Sender::default(), outdated_told: Mutex::default(), view }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Abstention> {
        self.reasons.subscribe()
    }

    pub(crate) fn current(&self) -> Abstention {
        self.reasons.borrow().clone()
    }

    /// Changes the reasons; `change` says whether it did.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut Abstention) -> bool) -> bool {
        self.reasons.send_if_modified(change)
    }

    /// Says that this process is not the member that it was, and why, or that it is.
    pub(crate) fn set_displaced(&self, why: Option<String>) {
        let why = why.map(Into::into);
        self.modify(|abstention| {
            let changed = abstention.displaced != why;
            abstention.displaced = why;
            changed
        });
    }

    /// Says that this member's program does not know what the log has at an entry.
    pub(crate) fn set_outdated(&self, outdated: OutdatedProgram) {
        let words = outdated.words();
        self.modify(|abstention| {
            let changed = abstention.outdated.as_ref() != Some(&outdated);
            abstention.outdated = Some(outdated);
            changed
        });
        // The leader tries again several times a second.
        let mut told = self.outdated_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= OUTDATED_TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::error!("this member abstains: {words}");
        }
    }

    /// Notes that what a leader has up to an entry could be read: what could not be is not there any more.
    pub(crate) fn set_readable(&self, upto: LogId) {
        let changed = self.modify(|abstention| {
            abstention.outdated.take_if(|outdated| outdated.at.index <= upto.index).is_some()
        });
        if changed {
            *self.outdated_told.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tracing::info!("the leader's log has nothing any more that this member's program does not know");
        }
    }

    /// Forgets all reasons: this member begins anew, under another id.
    pub(crate) fn clear(&self) {
        self.reasons.send_replace(Abstention::default());
    }

    /// Why this member abstains, if it does, in a sentence after its name.
    pub(crate) fn why(&self) -> Option<String> {
        let abstention = self.current();
        if let Some(outdated) = abstention.outdated {
            return Some(outdated.words());
        }
        if let Some(why) = abstention.displaced {
            return Some(why.to_string());
        }
        let rolled_back = abstention.rolled_back?;
        let by = rolled_back.by;
        let known = self.view.borrow().state.members.get(&MemberId(by)).map(|m| m.spec.name.to_string());
        let by = known.map_or_else(|| format!("member {by}"), |name| format!("member \"{name}\""));
        Some(rolled_back.words(&by))
    }

    /// Waits until this member answers reads.
    pub(crate) async fn readable(&self, deadline: Instant) -> Result<(), Error> {
        let mut abstention = self.reasons.subscribe();
        let _ = timeout_at(deadline, abstention.wait_for(Abstention::is_none)).await;
        match self.why() {
            None => Ok(()),
            Some(why) => Err(Error::no_leader(format!("this member answers no reads; {why}"))),
        }
    }
}

/// Keeps Raft from standing for election while this member abstains, until `end`.
pub(crate) async fn disable_elections_while_abstaining(
    mut abstention: watch::Receiver<Abstention>,
    raft: RaftHandle,
    mut end: watch::Receiver<bool>,
) {
    loop {
        raft.runtime_config().elect(abstention.borrow_and_update().is_none());
        tokio::select! {
            changed = abstention.changed() => if changed.is_err() { return },
            _ = end.wait_for(|ended| *ended) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_by_a_later_term_is_not_missed() {
        let known = SyncedIndex::sample(3, 10, 3);
        assert!(SyncedIndex::sample(5, 9, 5).reaches(&known));
        assert!(!SyncedIndex::sample(3, 9, 5).reaches(&known), "an entry is gone");
        assert!(!SyncedIndex::sample(3, 10, 2).reaches(&known), "a vote is gone");
    }

    #[test]
    fn a_leader_that_restarts_has_its_vote_all_the_same() {
        let mut known = SyncedIndex::sample(3, 10, 3);
        known.vote = known.vote.map(|vote| Vote { committed: true, ..vote });
        assert!(SyncedIndex::sample(3, 10, 3).reaches(&known));
    }

    #[test]
    fn what_is_missing_is_said_in_words() {
        let lost = |known, left| DiskRollback { known, left, by: 1 }.words("member \"m1\"");
        assert!(
            lost(SyncedIndex::sample(2, 48, 2), SyncedIndex::sample(2, 15, 2))
                .contains("ended at entry 15, and member \"m1\" has seen it store entry 48")
        );
        assert!(
            lost(SyncedIndex::sample(2, 15, 4), SyncedIndex::sample(2, 15, 2))
                .contains("was for term 2, and member \"m1\" has seen one for term 4")
        );
    }
}
