//! Updates of the same resource by one member, one after another.
//!
//! An update is made from what it read, and is refused when that has moved meanwhile. Of many at a time one would be accepted, and
//! all others made anew, over and over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use trestle_model::ResourceName;

type Turns = BTreeMap<ResourceName, Arc<tokio::sync::Mutex<()>>>;

/// The resources that are being updated.
#[derive(Debug, Default)]
pub(super) struct UpdateQueue(Mutex<Turns>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the updates of this resource that came before have ended.
    pub(super) async fn turn(&self, name: ResourceName) -> UpdateTurn<'_> {
        let turn = self.turns().entry(name.clone()).or_default().clone();
        // Made before it waits, so that a caller that gives up while it waits leaves nothing behind.
        let mut update = UpdateTurn { queue: self, name, held: None };
        update.held = Some(turn.lock_owned().await);
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
}
