//! What this member knows of the disks of the others: the most that each has said, or shown, to be durable with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::SyncedIndex;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_kept_of_each() {
        let known_disks = KnownDisks::default();
        assert_eq!(known_disks.of(3), SyncedIndex::default());
        known_disks.note(3, SyncedIndex::sample(2, 10, 2));
        known_disks.note(3, SyncedIndex::sample(1, 90, 4));
        known_disks.note(4, SyncedIndex::sample(9, 9, 9));
        assert_eq!(known_disks.of(3), SyncedIndex::sample(2, 10, 4));
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let known_disks = KnownDisks::default();
        (0..10_000).for_each(|member| known_disks.note(member, SyncedIndex::sample(1, 1, 1)));
        assert_eq!(known_disks.stored().len(), KNOWN_DISKS_MAX);
    }
}
