//! The log in memory: everything that is on disk and not purged. openraft reads only this.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use crate::raft_types::{LogEntry, LogId, Vote};

/// The log with its vote. Snapshots bound it to some ten thousand entries.
#[derive(Debug, Default)]
pub(super) struct MemoryLog {
    /// Last entry that was purged.
    pub(super) purged: Option<LogId>,
    /// The vote as it is on disk.
    pub(super) vote: Option<Vote>,
    /// The last entry that is known to be committed.
    pub(super) committed: Option<LogId>,
    entries: VecDeque<LogEntry>,
}

impl MemoryLog {
    /// A log without entries.
    pub(super) fn new(vote: Option<Vote>, purged: Option<LogId>) -> Self {
        Self { purged, vote, ..Self::default() }
    }

    /// The last entry, or the last that was purged.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// Index of the first entry that is present, or of the next one when none is.
    fn first_index(&self) -> u64 {
        let next = || self.purged.map_or(0, |id| id.index + 1);
        self.entries.front().map_or_else(next, |entry| entry.log_id.index)
    }

    fn end_index(&self) -> u64 {
        self.first_index() + self.entries.len() as u64
    }

    /// The entry at an index.
    pub(super) fn get(&self, index: u64) -> Option<&LogEntry> {
        let at = usize::try_from(index.checked_sub(self.first_index())?).ok()?;
        self.entries.get(at)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it would leave a hole or cover another entry; openraft truncates first.
    pub(super) fn append(&mut self, entry: LogEntry) -> io::Result<()> {
        let next = self.last().map_or(entry.log_id.index, |last| last.index + 1);
        if entry.log_id.index != next {
            let text =
                format!("log entry {} does not follow the log, whose next index is {next}", entry.log_id);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.entries.push_back(entry);
        Ok(())
    }

    /// Drops what comes after `kept`, and says which indexes that were.
    pub(super) fn truncate_after(&mut self, kept: Option<LogId>) -> Range<u64> {
        let end = self.end_index();
        let from = kept.map_or(0, |id| id.index + 1).clamp(self.first_index(), end);
        self.entries.truncate(usize::try_from(from - self.first_index()).unwrap_or(usize::MAX));
        from..end
    }

    /// Drops everything up to and with `upto`, and says which indexes that were.
    pub(super) fn purge(&mut self, upto: LogId) -> Range<u64> {
        let first = self.first_index();
        let to = upto.index.saturating_add(1).clamp(first, self.end_index());
        self.entries.drain(..usize::try_from(to - first).unwrap_or(0));
        self.purged = self.purged.max(Some(upto));
        first..to
    }

    /// What `find` makes of the newest entry of which it makes anything.
    pub(super) fn newest<T>(&self, find: impl FnMut(&LogEntry) -> Option<T>) -> Option<T> {
        self.entries.iter().rev().find_map(find)
    }

    /// The entries of a range, as far as they are present.
    pub(super) fn range(&self, range: impl RangeBounds<u64>) -> Vec<LogEntry> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let (first, end) = (self.first_index(), self.end_index());
        let position = |index: u64| usize::try_from(index.clamp(first, end) - first).unwrap_or(0);
        let (from, to) = (position(from), position(to));
        self.entries.range(from..to.max(from)).cloned().collect()
    }
}
