//! What other members say of this one's removal, before it is checked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a member does not stand for election after another one has begun to say that it was removed: long enough to ask
/// the leader several times, short enough that one member that is wrong cannot keep a cluster without a leader.
const ABSTAINS: Duration = Duration::from_secs(10);

/// Silence after which what a member said is forgotten: several of its answers to calls for votes, which come at least every
/// few seconds while there is no leader.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct RemovalReport {
    /// When it began.
    since: Instant,
    /// When it was said last.
    last: Instant,
    /// Whether the leader has said otherwise since it began.
    denied: bool,
}

/// Which members report that this member was removed. A report has two effects only: this member asks the leader, and it
/// pauses before it stands for election.
#[derive(Default)]
pub(crate) struct RemovalReports {
    told: Mutex<BTreeMap<u64, RemovalReport>>,
    /// Woken by each word.
    pub(crate) news: Notify,
}

impl RemovalReports {
    fn told(&self) -> MutexGuard<'_, BTreeMap<u64, RemovalReport>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the member `by`, which has applied the log up to the index `theirs`, says so; this member has applied it up
    /// to `mine` and is a member there. Returns whether the report is new. A member
    /// that knows no more of the log than this one is ignored.
    pub(crate) fn tell(&self, by: u64, theirs: u64, mine: u64, now: Instant) -> bool {
        if theirs <= mine {
            return false;
        }
        let mut told = self.told();
        told.retain(|_, told| now.saturating_duration_since(told.last) < FORGOTTEN_AFTER);
        let new = !told.contains_key(&by);
        told.entry(by).or_insert(RemovalReport { since: now, last: now, denied: false }).last = now;
        drop(told);
        self.news.notify_one();
        new
    }

    /// Notes that the leader says otherwise.
    pub(crate) fn deny(&self) {
        self.told().values_mut().for_each(|told| told.denied = true);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.told().clear();
    }

    /// The members that report it now and were not contradicted by the leader.
    pub(crate) fn by(&self, now: Instant) -> Vec<u64> {
        let lately = |told: &RemovalReport| now.saturating_duration_since(told.last) < FORGOTTEN_AFTER;
        self.told().iter().filter(|(_, told)| !told.denied && lately(told)).map(|(by, _)| *by).collect()
    }

    /// Whether this member does not stand for election for now.
    pub(crate) fn abstains(&self, now: Instant) -> bool {
        let counts =
            |told: &RemovalReport| !told.denied && now.saturating_duration_since(told.since) < ABSTAINS;
        self.told().values().any(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_removal_stops_a_member_from_standing_for_a_while_and_once() {
        let (removal_reports, start) = (RemovalReports::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!removal_reports.abstains(start));
        assert!(removal_reports.tell(4, 11, 10, at(0)));
        assert!(removal_reports.abstains(at(9)));
        // Said again and again, it is no reason for ever.
        assert!(!removal_reports.tell(4, 11, 10, at(9)));
        assert!(!removal_reports.abstains(at(10)));
        assert_eq!(removal_reports.by(at(30)), [4]);
        // Forgotten after a minute of silence; then it counts once more.
        assert_eq!(removal_reports.by(at(69)), [0_u64; 0]);
        assert!(removal_reports.tell(4, 11, 10, at(70)));
        assert!(removal_reports.abstains(at(70)));
    }

    #[test]
    fn who_knows_no_more_than_this_member_says_nothing() {
        let (removal_reports, now) = (RemovalReports::default(), Instant::now());
        assert!(!removal_reports.tell(4, 10, 10, now));
        assert!(!removal_reports.abstains(now) && removal_reports.by(now).is_empty());
    }

    #[test]
    fn what_the_leader_denies_stops_nobody() {
        let (removal_reports, now) = (RemovalReports::default(), Instant::now());
        removal_reports.tell(4, 11, 10, now);
        removal_reports.deny();
        assert!(!removal_reports.abstains(now) && removal_reports.by(now).is_empty());
        // The same word again is not heard again so soon, and another member's is.
        removal_reports.tell(4, 11, 10, now);
        assert!(!removal_reports.abstains(now));
        removal_reports.tell(5, 11, 10, now);
        assert!(removal_reports.abstains(now));
        assert_eq!(removal_reports.by(now), [5]);
    }
}
