//! What is known of the log without reading the disk: the id and the size of each entry, and the last entries themselves.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use trestle_model::TransportSecurity;
use trestle_model::defaults::FEATURE_LEVEL_FIRST;

use crate::raft_types::{
    LeaderId, LogEntry, LogId, Membership, Payload, Vote, named_transport, needed_level,
};

/// Memory that the last entries may take, as [`memory_of`] counts it. Followers are sent entries a moment after they were
/// appended, so what is older is only read for a member that lags, and after a start.
const TAIL_MAX: usize = 4 << 20;

/// What an entry takes in memory, more or less: its encoding is compact, and its parts are allocations of their own.
fn memory_of(size: u32) -> usize {
    512 + 2 * size as usize
}

/// The log, as far as it is in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryLog {
    /// Last entry that was purged.
    pub(super) purged: Option<LogId>,
    /// The vote as it is on disk.
    pub(super) vote: Option<Vote>,
    /// The last entry that is known to be committed.
    pub(super) committed: Option<LogId>,
    /// By the index of the first one: who led when the entries from there on were proposed.
    leaders: BTreeMap<u64, LeaderId>,
    /// Encoded size of each entry that is not purged.
    sizes: VecDeque<u32>,
    /// Sum of the sizes.
    bytes: u64,
    /// Index of the first entry that is not purged.
    first: u64,
    /// The memberships among the entries.
    memberships: BTreeMap<u64, Membership>,
    /// The feature levels that entries need, where that is more than the first.
    levels: BTreeMap<u64, u32>,
    /// What entries say that ports accept.
    transports: BTreeMap<u64, TransportSecurity>,
    /// The last entries, in any case those that are not on the disk yet.
    tail: VecDeque<LogEntry>,
    /// Memory that they take.
    tail_memory: usize,
}

/// Entries of a range.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// Those that are only on the disk, which come first.
    pub(super) on_disk: Vec<LogId>,
    /// Those in memory.
    pub(super) in_memory: Vec<LogEntry>,
}

impl MemoryLog {
    /// A log without entries.
    pub(super) fn new(vote: Option<Vote>, purged: Option<LogId>) -> Self {
        Self { purged, vote, first: purged.map_or(0, |id| id.index + 1), ..Self::default() }
    }

    /// The last entry, or the last that was purged.
    pub(super) fn last(&self) -> Option<LogId> {
        self.end().checked_sub(1).and_then(|last| self.log_id(last)).or(self.purged)
    }

    /// Bytes of all entries that are not purged, as they are on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn end(&self) -> u64 {
        self.first + self.sizes.len() as u64
    }

    /// Identity of the entry at an index, if it is present.
    pub(super) fn log_id(&self, index: u64) -> Option<LogId> {
        if index < self.first || index >= self.end() {
            return None;
        }
        self.leaders.range(..=index).next_back().map(|(_, leader)| LogId::new(*leader, index))
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it would leave a hole or cover another entry; openraft truncates first.
    pub(super) fn append(&mut self, entry: LogEntry) -> io::Result<()> {
        let id = entry.log_id;
        let next = self.last().map_or(id.index, |last| last.index + 1);
        if id.index != next {
            let text = format!("log entry {id} does not follow the log, whose next index is {next}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.sizes.is_empty() {
            self.first = id.index;
        }
        if self.leaders.values().next_back() != Some(&id.leader_id) {
            self.leaders.insert(id.index, id.leader_id);
        }
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.insert(id.index, membership.clone());
        }
        let level = needed_level(&entry);
        if level > FEATURE_LEVEL_FIRST {
            self.levels.insert(id.index, level);
        }
        if let Some(transport) = named_transport(&entry) {
            self.transports.insert(id.index, transport);
        }
        let size = entry_size(&entry);
        self.sizes.push_back(size);
        self.bytes += u64::from(size);
        self.tail.push_back(entry);
        self.tail_memory += memory_of(size);
        Ok(())
    }

    /// Lets go of the entries that the memory has no room for. Those after `written`, which is the last one on the disk, stay.
    pub(super) fn evict(&mut self, written: Option<LogId>) {
        while self.tail_memory > TAIL_MAX
            && let Some(oldest) = self.tail.pop_front_if(|entry| Some(entry.log_id) <= written)
        {
            self.tail_memory = self.tail_memory.saturating_sub(memory_of(entry_size(&oldest)));
        }
        if self.tail.capacity() > 4 * self.tail.len().max(64) {
            self.tail.shrink_to(2 * self.tail.len());
        }
    }

    /// Drops what comes after `kept`, and says which indexes that were.
    pub(super) fn truncate_after(&mut self, kept: Option<LogId>) -> Range<u64> {
        let end = self.end();
        let from = kept.map_or(0, |id| id.index + 1).clamp(self.first, end);
        self.bytes -= self.sizes.drain(as_usize(from - self.first)..).map(u64::from).sum::<u64>();
        self.leaders.split_off(&from);
        self.memberships.split_off(&from);
        self.levels.split_off(&from);
        self.transports.split_off(&from);
        while let Some(entry) = self.tail.pop_back_if(|entry| entry.log_id.index >= from) {
            self.tail_memory = self.tail_memory.saturating_sub(memory_of(entry_size(&entry)));
        }
        from..end
    }

    /// Drops everything up to and with `upto`, and says which indexes that were.
    pub(super) fn purge(&mut self, upto: LogId) -> Range<u64> {
        let first = self.first;
        let to = upto.index.saturating_add(1).clamp(first, self.end());
        self.bytes -= self.sizes.drain(..as_usize(to - first)).map(u64::from).sum::<u64>();
        self.purged = self.purged.max(Some(upto));
        self.first = to;
        // The run that the first entry belongs to may have begun before it.
        let leader = self.leaders.range(..=to).next_back().map(|(_, leader)| *leader);
        self.leaders = self.leaders.split_off(&to);
        if let Some(leader) = leader.filter(|_| to < self.end()) {
            self.leaders.insert(to, leader);
        } else {
            self.leaders.clear();
        }
        self.memberships = self.memberships.split_off(&to);
        self.levels = self.levels.split_off(&to);
        self.transports = self.transports.split_off(&to);
        while let Some(entry) = self.tail.pop_front_if(|entry| entry.log_id.index < to) {
            self.tail_memory = self.tail_memory.saturating_sub(memory_of(entry_size(&entry)));
        }
        first..to
    }

    /// The newest membership among the entries.
    pub(super) fn membership(&self) -> Option<&Membership> {
        self.memberships.values().next_back()
    }

    /// The highest feature level that an entry needs, with the entry's index; `None` when none needs more than the first.
    pub(super) fn highest_level(&self) -> Option<(u64, u32)> {
        self.levels.iter().map(|(index, level)| (*index, *level)).max_by_key(|(_, level)| *level)
    }

    /// What ports accept by the newest entry that says so; it need not be committed.
    pub(super) fn transport(&self) -> Option<TransportSecurity> {
        self.transports.values().next_back().copied()
    }

    /// Index up to which the entries can go so that those left take no more than `bytes`; `None` when they do already.
    pub(super) fn excess(&self, bytes: u64) -> Option<u64> {
        let mut rest = self.bytes;
        let mut excess = None;
        for (index, size) in (self.first..).zip(&self.sizes) {
            if rest <= bytes {
                break;
            }
            rest -= u64::from(*size);
            excess = Some(index);
        }
        excess
    }

    /// The entries of a range, as far as they are present: one, and then as long as all together have at most `max` bytes.
    pub(super) fn locate(&self, range: &impl RangeBounds<u64>, max: u64) -> Located {
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
        let (from, to) = (from.max(self.first), to.min(self.end()));
        let tail_from = self.end() - self.tail.len() as u64;
        let mut located = Located::default();
        let mut bytes = 0;
        for index in from..to {
            let size = self.sizes.get(as_usize(index - self.first)).copied().unwrap_or(0);
            bytes += u64::from(size);
            if bytes > max && index > from {
                break;
            }
            match index.checked_sub(tail_from).and_then(|at| self.tail.get(as_usize(at))) {
                Some(entry) => located.in_memory.push(entry.clone()),
                None => located.on_disk.extend(self.log_id(index)),
            }
        }
        located
    }
}

/// Encoded size of an entry, which need not be exact.
fn entry_size(entry: &LogEntry) -> u32 {
    match &entry.payload {
        Payload::Blank => 32,
        Payload::Normal(command) => command.size.saturating_add(32),
        Payload::Membership(membership) => {
            let nodes = membership.nodes().map(|(_, node)| node.peer_address.len() + 32).sum::<usize>();
            u32::try_from(nodes + 64).unwrap_or(u32::MAX)
        }
    }
}

/// An index into what is in memory; it is as large as that at the most.
fn as_usize(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use trestle_model::{Command, PoolName, PoolSpec, Proposal};

    use super::*;
    use crate::raft_types::LogCommand;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: 1 }, index)
    }

    fn entry(term: u64, index: u64, size: u32) -> LogEntry {
        let name = PoolName::parse(&format!("p{index}")).unwrap();
        let command = Command::create((name, PoolSpec::default()));
        let command = LogCommand { size, ..Proposal { origin: None, request: None, command }.into() };
        LogEntry { log_id: id(term, index), payload: Payload::Normal(command) }
    }

    #[test]
    fn only_entries_that_are_on_the_disk_leave_the_memory() {
        let mut log = MemoryLog::default();
        (0..10).for_each(|index| log.append(entry(1, index, 1 << 20)).unwrap());
        log.evict(Some(id(1, 3)));
        let located = log.locate(&.., u64::MAX);
        assert_eq!(located.on_disk, (0..4).map(|index| id(1, index)).collect::<Vec<_>>());
        assert_eq!(located.in_memory.len(), 6);
        // Another leader's entries are not those that were written in their places.
        log.truncate_after(Some(id(1, 5)));
        (6..10).for_each(|index| log.append(entry(2, index, 1 << 20)).unwrap());
        log.evict(Some(id(1, 9)));
        assert_eq!(log.locate(&.., u64::MAX).on_disk.last(), Some(&id(1, 5)));
        log.evict(Some(id(2, 9)));
        assert_eq!(log.locate(&(7..), u64::MAX).on_disk.first(), Some(&id(2, 7)));
        assert!(log.tail_memory <= TAIL_MAX);
        assert_eq!(log.log_id(5), Some(id(1, 5)));
        assert_eq!(log.purge(id(1, 4)), 0..5);
        assert_eq!((log.log_id(4), log.log_id(5), log.log_id(6)), (None, Some(id(1, 5)), Some(id(2, 6))));
        assert_eq!(log.purge(id(2, 9)), 5..10);
        assert_eq!((log.last(), log.bytes(), log.tail_memory), (Some(id(2, 9)), 0, 0));
    }

    #[test]
    fn the_newest_entry_that_is_left_says_what_ports_accept() {
        use TransportSecurity::{Accept, Require};
        let mut log = MemoryLog::default();
        let set = |transport, index| {
            let command = Command::SetTransport(transport);
            let command = LogCommand { size: 10, ..Proposal { origin: None, request: None, command }.into() };
            LogEntry { log_id: id(1, index), payload: Payload::Normal(command) }
        };
        assert_eq!(log.transport(), None);
        for entry in [entry(1, 0, 10), set(Accept, 1), set(Require, 2), entry(1, 3, 10)] {
            log.append(entry).unwrap();
        }
        assert_eq!(log.transport(), Some(Require));
        log.truncate_after(Some(id(1, 1)));
        assert_eq!(log.transport(), Some(Accept));
        log.purge(id(1, 1));
        assert_eq!(log.transport(), None);
    }

    #[test]
    fn a_range_ends_where_it_becomes_too_large() {
        let mut log = MemoryLog::default();
        (0..10).for_each(|index| log.append(entry(1, index, 1000)).unwrap());
        let count = |range: Range<u64>, max| log.locate(&range, max).in_memory.len();
        assert_eq!(
            (count(0..10, u64::MAX), count(2..10, 3200), count(2..10, 0), count(4..4, 0)),
            (10, 3, 1, 0)
        );
        assert_eq!((log.excess(u64::MAX), log.excess(2100), log.excess(0)), (None, Some(7), Some(9)));
    }
}
