//! Members from before and after a recovery: when a quorum was lost for good, one member was made a cluster of one, and its
//! log goes on without the others. What those have may differ from it, so none of them takes part again: each call says of
//! which recovery its caller is, and a member talks only with its like. Of two members that were each made a cluster, by
//! mistake, neither is of before: what was drawn at each recovery tells them apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::Status;
use trestle_api::status::{self, Failure, Reason};

use crate::identity::RecoveryId;
use crate::member::LocalMember;
use crate::replica::ClusterView;

/// Shortest time between two log lines about callers from before the recovery.
const TELL: Duration = Duration::from_secs(30);

/// How long what was heard of recoveries is shown after it was heard last. Those who say so call, or are called, every few
/// seconds; once they are gone, it is not known any more to be so.
const SHOWN: Duration = Duration::from_secs(25);

#[derive(Debug, Default)]
struct RecoveryReports {
    /// Why this member is from before a recovery, in the words of a member from after it, and when that was last said.
    superseded: Option<(String, Instant)>,
    /// When the log last told of a caller from before the recovery.
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

    /// Notes an answer that says that this member is from before a recovery, or from another recovery.
    pub(crate) fn note(&self, answer: &Status) {
        match Reason::of(answer) {
            Some(Reason::ClusterRecovered) => self.supersede(answer.message(), Instant::now()),
            Some(Reason::ClusterRecoveredTwice) => self.hear_of_another(answer.message(), Instant::now()),
            _ => {}
        }
    }

    /// The problems in words: this member is from before a recovery, or there are two recoveries.
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

/// Refuses callers that are of another recovery than this member.
pub(crate) struct RecoveryCheck {
    member: Arc<LocalMember>,
    view: watch::Sender<Arc<ClusterView>>,
    reports: Arc<Recoveries>,
}

impl RecoveryCheck {
    pub(crate) fn new(
        member: Arc<LocalMember>,
        view: watch::Sender<Arc<ClusterView>>,
        reports: Arc<Recoveries>,
    ) -> Self {
        Self { member, view, reports }
    }

    /// Whether a member is of a recovery that this one is not of before or after, as far as this one can know: of the same
    /// number, or of the number of an earlier one at which something else was drawn.
    pub(crate) fn is_another(&self, theirs: RecoveryId) -> bool {
        let mine = self.member.recovery();
        let drawn = self.view.borrow().state.recovery_draws.get(&theirs.number).copied();
        let earlier = theirs.number < mine.number && theirs.draw != 0;
        theirs.number == mine.number && theirs != mine
            || earlier && drawn.is_some_and(|drawn| drawn != theirs.draw)
    }

    /// Refuses a caller that is of another recovery than this member.
    pub(crate) fn check(&self, theirs: RecoveryId) -> Result<(), Status> {
        let mine = self.member.recovery();
        if theirs == mine {
            return Ok(());
        }
        let is_another = self.is_another(theirs);
        let RecoveryId { number: theirs, .. } = theirs;
        if is_another {
            let of = |who: String| Failure::RecoveredTwice { number: theirs, who };
            let caller = of("a member that has called".to_owned()).to_string();
            self.reports.hear_of_another(&caller, Instant::now());
            let settings = self.member.settings();
            let who = format!("member \"{}\" at {}", settings.name, settings.peer_address);
            return Err(status::failure(&of(who)));
        }
        let of_before =
            Failure::Recovered { known: theirs.min(mine.number), newest: theirs.max(mine.number) };
        if theirs < mine.number {
            self.reports.refuse(theirs, mine.number);
            return Err(status::failure(&of_before));
        }
        self.reports.supersede(&of_before.to_string(), Instant::now());
        Err(Status::failed_precondition(format!(
            "the member that was called is of before recovery {theirs}: wipe its data directory and let it rejoin"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time between two calls of the other one.
    const LOOK: Duration = Duration::from_secs(10);

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
