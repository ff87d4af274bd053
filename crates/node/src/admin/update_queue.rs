//! Updates of the same resource by one member, one after another.
//!
//! An update is made from what it read, and is refused when that has moved meanwhile. Of many at a time one would be accepted, and
//! all others made anew, over and over.
//!
//! The leader's own updates have the shortest way, so that another member's, which takes two round trips from its read to its
//! proposal, would be refused for as long as they follow one another. After such a refusal they wait for that update.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout_at};
use trestle_api::{peer, storage};
use trestle_model::ResourceName;

type Turns = BTreeMap<ResourceName, Arc<tokio::sync::Mutex<()>>>;

/// The resources that are being updated.
#[derive(Debug, Default)]
pub(super) struct UpdateQueue {
    turns: Mutex<Turns>,
    /// Resources that had moved when another member's update came, and until when that may come again.
    awaited: watch::Sender<BTreeMap<ResourceName, Instant>>,
}

/// The turn of one update; the next one has its when this is dropped.
#[derive(Debug)]
pub(super) struct UpdateTurn<'a> {
    queue: &'a UpdateQueue,
    name: ResourceName,
    held: Option<OwnedMutexGuard<()>>,
}

impl UpdateQueue {
    /// Whole between any two statements.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what became of another member's update on this one, the leader: one that was refused because the resource had `moved`
    /// is made anew, and comes again within `patience`.
    pub(super) fn note_passed_on(&self, name: ResourceName, moved: bool, patience: Duration) {
        let now = Instant::now();
        self.awaited.send_if_modified(|awaited| {
            awaited.retain(|_, until| *until > now);
            match moved {
                true => awaited.insert(name, now + patience).is_none(),
                false => awaited.remove(&name).is_some(),
            }
        });
    }

    /// Waits for another member's update of the resource that was refused before, once, and not beyond its time.
    async fn give_way(&self, name: &ResourceName) {
        let mut awaited = self.awaited.subscribe();
        let Some(until) = awaited.borrow_and_update().get(name).copied() else { return };
        // Whether it came or not, this one's turn is now.
        let _ = timeout_at(until, awaited.wait_for(|awaited| !awaited.contains_key(name))).await;
    }

    /// Waits until the updates of this resource that came before have ended, also one of another member that was refused.
    pub(super) async fn turn(&self, name: ResourceName) -> UpdateTurn<'_> {
        let turn = self.turns().entry(name.clone()).or_default().clone();
        // Made before it waits, so that a caller that gives up while it waits leaves nothing behind.
        let mut update = UpdateTurn { queue: self, name, held: None };
        update.held = Some(turn.lock_owned().await);
        self.give_way(&update.name).await;
        update
    }
}

impl Drop for UpdateTurn<'_> {
    fn drop(&mut self) {
        let mut turns = self.queue.turns();
        self.held = None;
        // Whoever waits holds it too, and takes it only while the map is locked.
        if turns.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.name);
        }
    }
}

/// The resource that another member's proposal updates as that member has read it.
pub(super) fn updated(request: &peer::ProposeRequest) -> Option<ResourceName> {
    use storage::operation::Kind;
    let Some(storage::proposal::Command::Batch(batch)) = &request.proposal.as_ref()?.command else {
        return None;
    };
    let read = |operation: &storage::Operation| match &operation.kind {
        Some(Kind::Put(put)) if put.revision.is_some() => {
            ResourceName::parse(&put.document.as_ref()?.name).ok()
        }
        _ => None,
    };
    batch.operations.iter().find_map(read).map(|name| name.shown_as())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;

    use super::*;

    fn vip(name: &str) -> ResourceName {
        ResourceName::Vip(trestle_model::VipName::parse(name).unwrap())
    }

    #[tokio::test]
    async fn updates_of_one_resource_wait_for_one_another_and_leave_nothing() {
        let queue = UpdateQueue::default();
        let first = queue.turn(vip("a")).await;
        let mut second = Box::pin(queue.turn(vip("a")));
        let mut given_up = Box::pin(queue.turn(vip("a")));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(queue.turn(vip("b")).now_or_never().is_some(), "another resource does not wait");
        drop(given_up);
        drop(first);
        drop(second.await);
        let third = Box::pin(queue.turn(vip("a")));
        drop(third);
        assert!(queue.turns().is_empty());
    }

    #[tokio::test]
    async fn an_update_waits_once_for_one_of_another_member_that_was_refused() {
        let (queue, long) = (UpdateQueue::default(), Duration::from_secs(60));
        queue.note_passed_on(vip("a"), true, long);
        assert!(queue.turn(vip("b")).now_or_never().is_some(), "another resource does not wait");
        let mut own = Box::pin(queue.turn(vip("a")));
        assert!(own.as_mut().now_or_never().is_none());
        queue.note_passed_on(vip("b"), false, long);
        assert!(own.as_mut().now_or_never().is_none());
        queue.note_passed_on(vip("a"), false, long);
        drop(own.as_mut().now_or_never().unwrap());
        // One that does not come, or is refused again and again, holds this one up no longer than its first time.
        let (begun, short) = (Instant::now(), Duration::from_millis(50));
        queue.note_passed_on(vip("a"), true, short);
        let mut own = Box::pin(queue.turn(vip("a")));
        assert!(own.as_mut().now_or_never().is_none());
        queue.note_passed_on(vip("a"), true, long);
        drop(own.await);
        assert!((short..long).contains(&begun.elapsed()));
        // What did not come in its time is forgotten.
        queue.note_passed_on(vip("a"), true, Duration::ZERO);
        queue.note_passed_on(vip("b"), false, long);
        assert!(queue.awaited.borrow().is_empty());
    }

    #[test]
    fn only_updates_of_what_was_read_are_awaited() {
        use trestle_model::{
            AdminState, BackendName, Command, Expected, Operation, Origin, PoolName, PoolSpec, Proposal,
        };
        let pool = || PoolName::parse("web").unwrap();
        let request = |operations: Vec<Operation>| {
            let command = Command::Batch(operations.into());
            let proposal = Proposal { origin: None::<Origin>, request: None, command };
            peer::ProposeRequest { proposal: Some((&proposal).into()), ..Default::default() }
        };
        let put = |expected| Operation::Put { document: (pool(), PoolSpec::default()).into(), expected };
        assert_eq!(updated(&request(vec![put(Expected::Revision(7))])), Some(ResourceName::Pool(pool())));
        assert_eq!(updated(&request(vec![put(Expected::Absent)])), None);
        assert_eq!(updated(&request(vec![Operation::delete(pool())])), None);
        let backend = || BackendName::parse("a").unwrap();
        let switch = Operation::Put {
            document: (pool(), backend(), AdminState::Enabled).into(),
            expected: Expected::Revision(7),
        };
        assert_eq!(updated(&request(vec![switch])), Some(ResourceName::Backend(pool(), backend())));
    }
}
