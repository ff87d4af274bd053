//! The one thread that writes the log. Everything that waits when a write ends goes into the next one together.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::backlog::Backlog;
use super::disk::{DiskOp, LogDisk};
use super::layout;
use super::memory::MemoryLog;
use super::synced_index::{SyncedIndex, SyncedIndexFile};
use crate::platform::SimulatedPlatform;
use crate::raft_types::{IoFlushed, LogEntry, LogId, Vote};

/// Most requests in one write; bounds how long the first of them waits.
const GROUP_MAX: usize = 1024;
/// Bytes of records after which no more requests are taken into the same write, for the same reason.
const GROUP_BYTES_MAX: usize = 2 << 20;
/// The committed log id is noted this often at most, with a write if there is one: it only spares a restarted member the
/// wait for a leader, and costs sled a buffer of its own, which is a third of a small write.
const COMMITTED_EVERY: Duration = Duration::from_secs(1);

/// Work for the writer, in the order in which it happened in memory.
pub(super) enum WriteRequest {
    /// Adds entries, then calls back.
    Append { entries: Vec<LogEntry>, done: IoFlushed },
    /// Saves a vote, then calls back.
    Vote { vote: Vote, done: oneshot::Sender<io::Result<()>> },
    /// Removes these indexes from the end; `last` is what is left.
    Truncate { removed: Range<u64>, last: Option<LogId> },
    /// Removes these indexes from the front, up to and with `upto`; `last` is the log's last entry after that.
    Purge { upto: LogId, removed: Range<u64>, last: Option<LogId> },
    /// Notes what is committed; nobody waits for it.
    Committed(LogId),
    /// Nothing: that it is taken is a sign of life.
    Touch,
}

/// Someone who waits for a write.
enum WriteWaiter {
    Append(IoFlushed),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl WriteWaiter {
    fn tell(self, result: io::Result<()>) {
        match self {
            WriteWaiter::Append(done) => done.io_completed(result),
            WriteWaiter::Vote(done) => {
                // A caller that no longer waits has stopped; there is nobody to tell.
                let _: Result<(), io::Result<()>> = done.send(result);
            }
        }
    }
}

/// One write: changes in order, and who waits for it.
#[derive(Default)]
struct WriteGroup {
    ops: Vec<DiskOp>,
    waiters: Vec<WriteWaiter>,
    /// What is durable after it.
    target: SyncedIndex,
    /// Bytes of the entries.
    bytes: usize,
    /// Set when entries are removed from the end: the lowest last entry on the way.
    lowest: Option<Option<LogId>>,
}

/// The state of the writer thread.
pub(super) struct LogWriter<D> {
    disk: D,
    synced: SyncedIndexFile,
    /// What is on the disk may leave it.
    memory: Arc<Mutex<MemoryLog>>,
    /// The most that was ever durable in this process, including entries that a new leader has removed since.
    max_synced: watch::Sender<SyncedIndex>,
    backlog: Arc<Backlog>,
    committed: Option<LogId>,
    /// When the committed log id was last noted.
    noted: Instant,
    failed: Option<(io::ErrorKind, String)>,
}

impl<D: LogDisk> LogWriter<D> {
    pub(super) fn new(disk: D, synced: SyncedIndexFile, memory: Arc<Mutex<MemoryLog>>) -> Self {
        let max_synced = watch::Sender::new(synced.current());
        let backlog = Arc::default();
        Self {
            disk,
            synced,
            memory,
            max_synced,
            backlog,
            committed: None,
            noted: Instant::now(),
            failed: None,
        }
    }

    /// The most that was ever durable in this process.
    pub(super) fn max_synced(&self) -> watch::Receiver<SyncedIndex> {
        self.max_synced.subscribe()
    }

    /// What it was given and has done.
    pub(super) fn backlog(&self) -> Arc<Backlog> {
        self.backlog.clone()
    }

    /// Writes until nobody can ask any more.
    pub(super) fn run(mut self, requests: &Receiver<WriteRequest>) {
        loop {
            let first = match self.committed {
                None => requests.recv().map_err(RecvTimeoutError::from),
                Some(_) => requests.recv_timeout(COMMITTED_EVERY),
            };
            let stop = matches!(first, Err(RecvTimeoutError::Disconnected));
            let (mut group, taken) = self.gather(first, requests);
            if !group.ops.is_empty() {
                let applied = self.apply(&mut group);
                self.finish(group, applied);
            }
            self.backlog.finish(taken);
            if stop {
                return;
            }
        }
    }

    /// The same in a simulation, where the disk takes its time between what is applied and what is synced, until nobody has the log.
    pub(super) async fn run_simulated(
        mut self,
        requests: Receiver<WriteRequest>,
        asked: &Notify,
        platform: &dyn SimulatedPlatform,
    ) {
        let mut stop = false;
        while !stop {
            let next = requests.try_recv();
            let first = match next {
                Ok(request) => Ok(request),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if timeout(COMMITTED_EVERY, asked.notified()).await.is_ok() => {
                    continue;
                }
                Err(TryRecvError::Empty) => Err(RecvTimeoutError::Timeout),
            };
            stop = matches!(first, Err(RecvTimeoutError::Disconnected));
            let (mut group, taken) = self.gather(first, &requests);
            if !group.ops.is_empty() {
                let applied = self.apply(&mut group);
                platform.wait_for_disk().await;
                self.finish(group, applied);
            }
            self.backlog.finish(taken);
        }
    }

    /// Takes what waits into one write; says how many requests that are.
    fn gather(
        &mut self,
        first: Result<WriteRequest, RecvTimeoutError>,
        requests: &Receiver<WriteRequest>,
    ) -> (WriteGroup, usize) {
        let note = first.is_err() || self.noted.elapsed() >= COMMITTED_EVERY;
        let mut group = WriteGroup { target: self.synced.current(), ..WriteGroup::default() };
        let (mut next, mut taken) = (first.ok(), 0);
        while let Some(request) = next {
            self.take(request, &mut group);
            taken += 1;
            let is_full = taken == GROUP_MAX || group.bytes >= GROUP_BYTES_MAX;
            next = if is_full { None } else { requests.try_recv().ok() };
        }
        if note && let Some(id) = self.committed.take() {
            group.ops.push(layout::put_committed(&id));
            self.noted = Instant::now();
        }
        (group, taken)
    }

    fn take(&mut self, request: WriteRequest, group: &mut WriteGroup) {
        let target = &mut group.target;
        match request {
            WriteRequest::Append { entries, done } => {
                target.last = entries.last().map(|entry| entry.log_id).or(target.last);
                for entry in &entries {
                    let (op, bytes) = layout::put_entry(entry);
                    group.bytes += bytes;
                    group.ops.push(op);
                }
                group.waiters.push(WriteWaiter::Append(done));
            }
            WriteRequest::Vote { vote, done } => {
                target.vote = Some(vote);
                group.ops.push(layout::put_vote(&vote));
                group.waiters.push(WriteWaiter::Vote(done));
            }
            WriteRequest::Truncate { removed, last } => {
                target.last = last;
                group.lowest = Some(group.lowest.map_or(last, |lowest| lowest.min(last)));
                // From the end, so that no crash can leave a hole.
                group.ops.extend(removed.rev().map(layout::remove_entry));
            }
            WriteRequest::Purge { upto, removed, last } => {
                target.last = last;
                // First the note, then the entries: what is left of them below the note is swept at the next start.
                group.ops.push(layout::put_purged(&upto));
                group.ops.extend(removed.map(layout::remove_entry));
            }
            WriteRequest::Committed(id) => self.committed = Some(id),
            WriteRequest::Touch => {}
        }
    }

    /// Applies a write to the disk, which need not have it durably yet.
    fn apply(&mut self, group: &mut WriteGroup) -> io::Result<()> {
        if self.failed.is_some() {
            return Ok(());
        }
        let current = self.synced.current();
        if let Some(last) = group.lowest
            && last < current.last
        {
            self.synced.lower(SyncedIndex { last, ..current })?;
        }
        self.disk.apply(std::mem::take(&mut group.ops))
    }

    /// Makes a write durable that was applied, and tells those who wait for it.
    fn finish(&mut self, group: WriteGroup, applied: io::Result<()>) {
        if self.failed.is_none()
            && let Err(e) = applied.and_then(|()| self.sync(group.target))
        {
            // After a failed sync nobody knows what is on the disk, and a second sync that succeeds proves nothing: the
            // kernel may have dropped the dirty pages. So this file is never trusted again by this process.
            tracing::error!(error = %e, "the log cannot be written; this member stops");
            self.failed = Some((e.kind(), e.to_string()));
        }
        for waiter in group.waiters {
            waiter.tell(match &self.failed {
                None => Ok(()),
                Some((kind, text)) => {
                    Err(io::Error::new(*kind, format!("the log cannot be written: {text}")))
                }
            });
        }
    }

    fn sync(&mut self, target: SyncedIndex) -> io::Result<()> {
        self.disk.sync()?;
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).evict(target.last);
        self.synced.advance(target)?;
        // Before anybody is told that it is durable.
        self.max_synced.send_if_modified(|max_synced| {
            let before = *max_synced;
            max_synced.raise(&target);
            *max_synced != before
        });
        Ok(())
    }
}
