//! Recent changes, kept by every member, so that a watch that was cut can go on where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use trestle_api::status::Failure;
use trestle_model::{Change, Command, Origin, Proposal, RequestId, Revision};

/// Revisions whose changes are kept at the most.
pub const HISTORY_KEPT: usize = 4_096;

/// Memory that the changes may take, more or less; the newest ones are kept in any case.
const MEMORY_MAX: usize = 8 << 20;

/// What the changes of a revision take in memory, more or less: a resource beside its encoding, which has `bytes`.
fn memory_of(changes: usize, bytes: usize) -> usize {
    512 * (1 + changes) + 2 * bytes
}

/// The changes of one revision.
#[derive(Debug, Clone)]
pub struct RevisionChanges {
    /// The revision.
    pub revision: Revision,
    /// What changed, in order.
    pub changes: Arc<[Change]>,
    /// Where it came from; `None` when an earlier version wrote it.
    pub origin: Option<Origin>,
    /// The request's id, if it had one.
    pub request: Option<RequestId>,
    /// Whether it began or ended the draining of a member.
    pub drain: bool,
    /// Whether it made the configuration what a document says.
    pub restore: bool,
}

#[derive(Debug)]
struct ChangeRing {
    /// Changes up to and including this revision are not here.
    floor: Revision,
    /// The newest revision that was recorded.
    last: Revision,
    /// No more will come.
    closed: bool,
    /// In the order of revisions.
    batches: VecDeque<RevisionChanges>,
    /// What each of them takes in memory.
    memory: VecDeque<usize>,
    /// What all of them take.
    memory_sum: usize,
}

impl ChangeRing {
    fn forget_oldest(&mut self) {
        if let (Some(oldest), Some(memory)) = (self.batches.pop_front(), self.memory.pop_front()) {
            self.floor = oldest.revision;
            self.memory_sum -= memory;
        }
    }
}

#[derive(Debug)]
struct SharedHistory {
    ring: Mutex<ChangeRing>,
    /// Woken after each change to the ring; subscribers keep a position, not a queue, so a slow one costs nothing.
    woken: watch::Sender<Revision>,
}

impl SharedHistory {
    fn ring(&self) -> MutexGuard<'_, ChangeRing> {
        // The ring is consistent between any two statements that can panic, so a poisoned lock changes nothing.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bounded history of changes of this member. Clones share it.
#[derive(Debug, Clone)]
pub struct ChangeHistory(Arc<SharedHistory>);

impl ChangeHistory {
    pub(crate) fn new() -> Self {
        let ring = ChangeRing {
            floor: 0,
            last: 0,
            closed: false,
            batches: VecDeque::new(),
            memory: VecDeque::new(),
            memory_sum: 0,
        };
        Self(Arc::new(SharedHistory { ring: Mutex::new(ring), woken: watch::Sender::new(0) }))
    }

    /// Notes the changes of a revision by a proposal whose encoding has `bytes`; revisions only grow.
    pub(crate) fn record(&self, revision: Revision, changes: Vec<Change>, by: &Proposal, bytes: usize) {
        if changes.is_empty() {
            return;
        }
        let mut ring = self.0.ring();
        // The log is applied again after a restart; what a snapshot or an earlier call covered is here already.
        if revision <= ring.last {
            return;
        }
        let memory = memory_of(changes.len(), bytes);
        ring.memory_sum += memory;
        ring.memory.push_back(memory);
        while ring.batches.len() >= HISTORY_KEPT || ring.memory_sum > MEMORY_MAX && !ring.batches.is_empty() {
            ring.forget_oldest();
        }
        ring.batches.push_back(RevisionChanges {
            revision,
            changes: changes.into(),
            origin: by.origin.clone(),
            request: by.request.as_ref().map(|request| request.id.clone()),
            drain: matches!(by.command, Command::DrainMember { .. }),
            restore: matches!(by.command, Command::Restore { .. } | Command::ApplyStaged { .. }),
        });
        ring.last = revision;
        drop(ring);
        self.0.woken.send_replace(revision);
    }

    /// The state was replaced by a snapshot of `revision`: how it came about is not known here.
    pub(crate) fn restart_at(&self, revision: Revision) {
        let mut ring = self.0.ring();
        if revision <= ring.last {
            return;
        }
        ring.batches.clear();
        ring.memory.clear();
        ring.memory_sum = 0;
        ring.floor = revision;
        ring.last = revision;
        drop(ring);
        self.0.woken.send_replace(revision);
    }

    /// The member stops: those who wait for changes are told.
    pub(crate) fn close(&self) {
        self.0.ring().closed = true;
        self.0.woken.send_modify(|_| {});
    }

    /// The newest batches that are kept and come after revision `after`, at most `max` of them, the oldest first.
    pub fn newest(&self, after: Revision, max: usize) -> Vec<RevisionChanges> {
        let ring = self.0.ring();
        let from = ring.batches.partition_point(|batch| batch.revision <= after);
        let from = from.max(ring.batches.len().saturating_sub(max));
        ring.batches.range(from..).cloned().collect()
    }

    /// Every change from revision `from` on, each once and in order; 0 for those after the newest one known here.
    ///
    /// # Errors
    /// [`Failure::Compacted`] when changes that old are no longer kept.
    pub fn subscribe(&self, from: Revision) -> Result<Subscription, Failure> {
        let woken = self.0.woken.subscribe();
        let ring = self.0.ring();
        let next = if from == 0 { ring.last + 1 } else { from };
        if next <= ring.floor {
            return Err(Failure::Compacted { asked: next, oldest: ring.floor + 1 });
        }
        drop(ring);
        Ok(Subscription { shared: self.0.clone(), next, woken })
    }
}

/// A position in the history.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<SharedHistory>,
    next: Revision,
    woken: watch::Receiver<Revision>,
}

impl Subscription {
    /// The first revision that has not been returned yet.
    pub fn position(&self) -> Revision {
        self.next
    }

    /// The next changes; waits for them. Losing the future loses nothing.
    ///
    /// # Errors
    /// [`Failure::Lagged`] when the changes that come next are no longer kept: this reader was too slow, or the member was
    /// so far behind that it got a snapshot. [`Failure::ShuttingDown`] when the member stops.
    pub async fn next(&mut self) -> Result<RevisionChanges, Failure> {
        loop {
            self.woken.borrow_and_update();
            if let Some(batch) = self.try_next()? {
                return Ok(batch);
            }
            self.woken.changed().await.map_err(|_| Failure::ShuttingDown)?;
        }
    }

    fn try_next(&mut self) -> Result<Option<RevisionChanges>, Failure> {
        let ring = self.shared.ring();
        if self.next <= ring.floor {
            return Err(Failure::Lagged(self.next));
        }
        let at = ring.batches.partition_point(|batch| batch.revision < self.next);
        let found = ring.batches.get(at).cloned();
        match &found {
            Some(batch) => self.next = batch.revision + 1,
            None if ring.closed => return Err(Failure::ShuttingDown),
            None => {}
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use trestle_model::{ChangeKind, HostPort, Member, MemberId, MemberName, MemberSpec, Resource};

    fn by() -> Proposal {
        Proposal { origin: None, request: None, command: Command::RemoveMember(MemberId(1)) }
    }

    fn changes() -> Vec<Change> {
        let address = HostPort::parse("127.0.0.1:1").unwrap();
        let spec = MemberSpec {
            name: MemberName::parse("a").unwrap(),
            peer_address: address.clone(),
            admin_address: address,
            feature_level_max: 1,
        };
        let member = Member { id: MemberId(1), spec, draining: false, drain_timeout: None, revision: 1 };
        vec![Change::new(ChangeKind::Created, Resource::Member(Arc::new(member)))]
    }

    #[tokio::test]
    async fn replay_and_live_meet_without_gap_or_duplicate() {
        let history = ChangeHistory::new();
        for revision in 1..=100 {
            history.record(revision, changes(), &by(), 100);
        }
        let mut reader = history.subscribe(40).unwrap();
        let writer = tokio::spawn({
            let history = history.clone();
            async move {
                for revision in 101..=1000 {
                    history.record(revision, changes(), &by(), 100);
                    if revision % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        for expected in 40..=1000 {
            assert_eq!(reader.next().await.unwrap().revision, expected);
        }
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_so() {
        let history = ChangeHistory::new();
        let mut reader = history.subscribe(1).unwrap();
        let kept = HISTORY_KEPT as u64;
        for revision in 1..=kept + 5 {
            history.record(revision, changes(), &by(), 100);
        }
        assert_eq!(reader.next().await.unwrap_err(), Failure::Lagged(1));
        assert_eq!(history.subscribe(5).unwrap_err(), Failure::Compacted { asked: 5, oldest: 6 });
        assert_eq!(history.subscribe(6).unwrap().next().await.unwrap().revision, 6);
    }

    #[tokio::test]
    async fn a_snapshot_cuts_only_those_that_it_skips() {
        let history = ChangeHistory::new();
        history.record(3, changes(), &by(), 100);
        let mut behind = history.subscribe(2).unwrap();
        let mut level = history.subscribe(8).unwrap();
        history.restart_at(7);
        history.record(9, changes(), &by(), 100);
        assert_eq!(behind.next().await.unwrap_err(), Failure::Lagged(2));
        assert_eq!(level.next().await.unwrap().revision, 9);
        assert!(history.subscribe(7).is_err());
    }

    #[test]
    fn what_is_applied_again_is_not_recorded_again() {
        let history = ChangeHistory::new();
        history.record(3, changes(), &by(), 100);
        history.record(3, changes(), &by(), 100);
        history.record(2, changes(), &by(), 100);
        assert_eq!(history.0.ring().batches.len(), 1);
    }

    #[tokio::test]
    async fn zero_means_from_now_on() {
        let history = ChangeHistory::new();
        history.record(3, changes(), &by(), 100);
        let mut reader = history.subscribe(0).unwrap();
        history.record(5, changes(), &by(), 100);
        assert_eq!(reader.next().await.unwrap().revision, 5);
    }
}
