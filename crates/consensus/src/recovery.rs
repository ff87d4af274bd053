//! Members of before and of after a recovery: when a quorum was lost for good, one member was made a cluster of one, and its
//! log goes on without the others. What those have may differ from it, so none of them takes part again: each call says of
//! which recovery its caller is, and a member talks only with its like. Of two members that were each made a cluster, by
//! mistake, neither is of before: what was drawn at each recovery tells them apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::Status;
use trestle_api::status::{self, Failure};

use crate::identity::FormerVoter;
use crate::peers::reason;
use crate::shared::Core;

/// How often the log tells of members of before.
const TELL: Duration = Duration::from_secs(30);

/// Time between two looks for another member that was made a cluster too.
const LOOK: Duration = Duration::from_secs(10);

/// How long what was heard of recoveries is shown after it was heard last. Those who say so call, or are called, every few
/// seconds; once they are gone, it is not known any more to be so.
const SHOWN: Duration = Duration::from_secs(25);

/// The reason in the status that a member of before gets.
const RECOVERED: &str = "CLUSTER_RECOVERED";

/// The reason in the status that a member of another recovery with the same number gets.
const RECOVERED_TWICE: &str = "CLUSTER_RECOVERED_TWICE";

/// Which recovery of its cluster a member is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryId {
    /// How often the cluster was made anew from one member; 0 for never.
    pub number: u64,
    /// What was drawn at the last time; 0 where nothing was, as before there were draws.
    pub draw: u64,
}

#[derive(Debug, Default)]
struct RecoveryReports {
    /// Why this member is one of before, in the words of one that is not, and when it was last said.
    superseded: Option<(String, Instant)>,
    /// When the log last told of a caller of before.
    refused: Option<Instant>,
    /// What was last heard of the other recovery of the same number, and when.
    twice: Option<(String, Instant)>,
}

/// What this member has heard of recoveries. Hearsay: it is shown and decides nothing.
#[derive(Debug, Default)]
pub(crate) struct Recoveries(Mutex<RecoveryReports>);

impl Recoveries {
    fn told(&self) -> MutexGuard<'_, RecoveryReports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn supersede(&self, why: &str, now: Instant) {
        let mut told = self.told();
        if told.superseded.as_ref().is_none_or(|(known, _)| known != why) {
            tracing::error!("{why}");
        }
        told.superseded = Some((why.to_owned(), now));
    }

    /// Notes that there is another recovery with the number of this member's.
    fn hear_of_another(&self, why: &str, now: Instant) {
        let mut told = self.told();
        let is_new = told.twice.as_ref().is_none_or(|(_, at)| now.saturating_duration_since(*at) > SHOWN);
        if is_new {
            tracing::error!("{why}");
            told.twice = Some((why.to_owned(), now));
        } else if let Some((known, at)) = &mut told.twice {
            *at = now;
            // One that says who it is tells more than one that only calls.
            if known.len() < why.len() {
                why.clone_into(known);
            }
        }
    }

    /// Notes it when an answer says that this member is one of before, or of another recovery.
    pub(crate) fn note(&self, answer: &Status) {
        match reason(answer).as_deref() {
            Some(RECOVERED) => self.supersede(answer.message(), Instant::now()),
            Some(RECOVERED_TWICE) => self.hear_of_another(answer.message(), Instant::now()),
            _ => {}
        }
    }

    /// What is wrong, in words: that this member is one of before a recovery, or that there are two recoveries.
    pub(crate) fn problems(&self, now: Instant) -> Vec<String> {
        let told = self.told();
        let heard = told.superseded.iter().chain(&told.twice);
        let lately = heard.filter(|(_, at)| now.saturating_duration_since(*at) <= SHOWN);
        lately.map(|(why, _)| why.clone()).collect()
    }

    fn refuse(&self, theirs: u64, mine: u64) {
        let mut told = self.told();
        if told.refused.is_none_or(|at| at.elapsed() >= TELL) {
            told.refused = Some(Instant::now());
            tracing::warn!(
                theirs,
                mine,
                "refused a member of before the cluster was recovered; wipe its data directory and let it rejoin"
            );
        }
    }
}

impl Core {
    /// Of which recovery this member is.
    pub(crate) fn recovery(&self) -> RecoveryId {
        self.identity().map(|identity| identity.recovery).unwrap_or_default()
    }

    /// Whether a member is of a recovery that this one is not of before or after, as far as this one can know: of the same
    /// number, or of the number of an earlier one at which something else was drawn.
    pub(crate) fn is_another_recovery(&self, theirs: RecoveryId) -> bool {
        let mine = self.recovery();
        let drawn = self.view.borrow().state.recovery_draws.get(&theirs.number).copied();
        let earlier = theirs.number < mine.number && theirs.draw != 0;
        theirs.number == mine.number && theirs != mine
            || earlier && drawn.is_some_and(|drawn| drawn != theirs.draw)
    }

    /// Refuses a caller that is of another recovery than this member.
    pub(crate) fn same_recovery(&self, theirs: RecoveryId) -> Result<(), Status> {
        let mine = self.recovery();
        if theirs == mine {
            return Ok(());
        }
        let is_another = self.is_another_recovery(theirs);
        let RecoveryId { number: theirs, .. } = theirs;
        if is_another {
            let of = |who: String| Failure::RecoveredTwice { number: theirs, who };
            let caller = of("a member that has called".to_owned()).to_string();
            self.recoveries.hear_of_another(&caller, Instant::now());
            let (name, address) = (&self.settings.name, &self.settings.peer_address);
            return Err(status::failure(&of(format!("member \"{name}\" at {address}"))));
        }
        let of_before =
            Failure::Recovered { known: theirs.min(mine.number), newest: theirs.max(mine.number) };
        if theirs < mine.number {
            self.recoveries.refuse(theirs, mine.number);
            return Err(status::failure(&of_before));
        }
        self.recoveries.supersede(&of_before.to_string(), Instant::now());
        Err(Status::failed_precondition(format!(
            "the member that was called is of before recovery {theirs}: wipe its data directory and let it rejoin"
        )))
    }

    /// Calls those who voted before this member was made a cluster, time and again: one that was made a cluster too, and one
    /// of before, have no other reason to hear of this one.
    pub(crate) fn look_for_another_recovery(self: &Arc<Self>, former: Vec<FormerVoter>) {
        if !former.is_empty() {
            self.runtime.spawn(call_former(Arc::downgrade(self), former));
        }
    }

    async fn call(self: &Arc<Self>, former: &[FormerVoter]) {
        let role = self.role.borrow().clone();
        let known: Vec<&String> = role.voters.values().chain(role.learners.values()).collect();
        // Whoever has rejoined at such an address is called by Raft.
        let gone = former.iter().filter(|voter| !known.iter().any(|at| *at == voter.peer_address.as_str()));
        join_all(gone.map(|voter| self.ask(voter.id.0, voter.peer_address.as_str()))).await;
    }
}

async fn call_former(core: Weak<Core>, former: Vec<FormerVoter>) {
    loop {
        let Some(core) = core.upgrade().filter(|core| !core.stopping()) else { return };
        core.call(&former).await;
        drop(core);
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_recovery_is_shown_as_long_as_it_is_heard_of() {
        let (recoveries, start) = (Recoveries::default(), Instant::now());
        assert!(recoveries.problems(start).is_empty());
        recoveries.hear_of_another("a caller", start);
        recoveries.hear_of_another("m2 by its name", start + LOOK);
        recoveries.hear_of_another("a caller", start + 2 * LOOK);
        assert_eq!(recoveries.problems(start + 2 * LOOK + SHOWN), ["m2 by its name"]);
        assert!(recoveries.problems(start + 3 * LOOK + SHOWN).is_empty());
    }

    #[test]
    fn that_this_member_is_of_before_is_shown_as_long_as_it_is_heard() {
        let (recoveries, start) = (Recoveries::default(), Instant::now());
        recoveries.supersede("of before", start);
        recoveries.supersede("of before", start + LOOK);
        assert_eq!(recoveries.problems(start + LOOK + SHOWN), ["of before"]);
        // Those who said so are gone, as when it was they who were recovered by mistake.
        assert!(recoveries.problems(start + 2 * LOOK + SHOWN).is_empty());
    }
}
