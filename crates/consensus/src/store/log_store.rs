//! The log store as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt, stream};
use openraft::storage::RaftLogStorage;
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use trestle_model::TransportSecurity;

use super::backlog::{Backlog, UntilEnd};
use super::disk::{DiskReader, LogDisk};
use super::error::{OpenError, StorageOwner};
use super::layout;
use super::log_probe::LogProbe;
use super::memory::{Located, MemoryLog};
use super::recovery::{Recovered, recover};
use super::sled_disk::{SledDisk, db_file};
use super::synced_index::{SyncedIndex, SyncedIndexFile};
use super::writer::{LogWriter, WriteRequest};
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::platform::Platform;
use crate::raft_types::{IoFlushed, LogEntry, LogId, Membership, TypeConfig, Vote};

/// Most bytes of entries that are read at once, but for one that is larger: what a follower is sent in one message, and what
/// the state machine is given at a time.
const READ_MAX: u64 = 2 << 20;

/// Bytes of entries above which the log is to be made smaller.
const LOG_MAX: u64 = 32 << 20;

/// How long a reader looks again for entries that the memory says are on the disk and that are not found there: they are
/// being replaced at that moment.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

/// Reads the log: its end from memory, the rest from the disk.
#[derive(Clone)]
pub(crate) struct LogReader {
    memory: Arc<Mutex<MemoryLog>>,
    disk: Arc<dyn DiskReader>,
    platform: Platform,
    /// Woken while the log has more than [`LOG_MAX`] bytes.
    oversized: Arc<Notify>,
}

/// Reads the entries from index `first` to index `last` from the disk. Blocks.
pub(super) fn read_entries(disk: &dyn DiskReader, first: u64, last: u64) -> io::Result<Vec<LogEntry>> {
    let records = disk.read(&layout::entry_key(first), &layout::entry_key(last))?;
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let decoded = records.iter().map(|(key, record)| {
        let index =
            layout::entry_index(key).ok_or_else(|| damaged("a log record has a wrong key".to_owned()))?;
        layout::decode_entry(index, record).map_err(|e| damaged(format!("in log entry {index}, {e}")))
    });
    decoded.collect()
}

impl Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl LogReader {
    fn log(&self) -> MutexGuard<'_, MemoryLog> {
        // Nothing panics while it holds this lock; were it so, the log would still be whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all entries, as they are on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.log().bytes()
    }

    /// Waits until an entry was appended to a log that has too many bytes.
    pub(crate) async fn oversized(&self) {
        self.oversized.notified().await;
    }

    /// Index up to which entries can be purged so that those left take no more than `bytes`; `None` when they do already.
    pub(crate) fn excess(&self, bytes: u64) -> Option<u64> {
        self.log().excess(bytes)
    }

    /// The entries of a range, as far as they are present, up to about `max` bytes.
    async fn read(&self, range: impl RangeBounds<u64> + Send, max: u64) -> io::Result<Vec<LogEntry>> {
        let deadline = Instant::now() + REPLACED_WITHIN;
        loop {
            let Located { on_disk, in_memory } = self.log().locate(&range, max);
            let (Some(first), Some(last)) = (on_disk.first(), on_disk.last()) else { return Ok(in_memory) };
            let (disk, first, last) = (self.disk.clone(), first.index, last.index);
            let read = move || read_entries(&*disk, first, last);
            let runtime = Handle::current();
            let found = self.platform.blocking(&runtime, read).await;
            let mut found = found.map_err(io::Error::other)??;
            if found.iter().map(|entry| entry.log_id).eq(on_disk.iter().copied()) {
                found.extend(in_memory);
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let text = format!("log entries {first} to {last} are not on the disk any more");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            tokio::time::sleep(REPLACED_WITHIN / 100).await;
        }
    }

    /// The first of `ids`, which a leader says to have, that differs from what this member knows to be committed. No leader
    /// of this cluster can have it.
    pub(crate) fn contradicted(&self, ids: impl IntoIterator<Item = LogId>) -> Option<LogId> {
        let log = self.log();
        let committed = log.committed?.index;
        let differs = |id: &LogId| {
            let here = log.log_id(id.index);
            id.index <= committed && here.is_some_and(|here| here != *id)
        };
        ids.into_iter().find(differs)
    }
}

/// The log. Dropping it and its clones ends the writer thread; [`LogClosed`] tells when that is done.
#[derive(Debug)]
pub(crate) struct LogStore {
    reader: LogReader,
    writer: Sender<WriteRequest>,
    /// Wakes a simulated writer; the thread needs no waking.
    waiting: Option<Arc<Notify>>,
    max_synced: watch::Receiver<SyncedIndex>,
    backlog: Arc<Backlog>,
}

/// Resolves when the writer thread has ended and the files are closed.
#[derive(Debug)]
pub(crate) struct LogClosed(oneshot::Receiver<()>);

impl LogClosed {
    /// Waits for it. Drop Raft and the [`LogStore`] first.
    pub(crate) async fn wait(self) {
        // The other end is only ever dropped, by the thread as it ends.
        let _: Result<(), oneshot::error::RecvError> = self.0.await;
    }
}

/// Opens the disk of the log.
fn open_disk(dir: &DataDir, store: &Path, owner: &StorageOwner) -> Result<Box<dyn LogDisk>, OpenError> {
    Ok(match dir.platform() {
        Platform::System => Box::new(SledDisk::open(store, owner)?),
        Platform::Simulated(simulated) => simulated.open_log(),
    })
}

/// Creates the log of a member that joins or founds a cluster. A log that an earlier attempt left behind may be there
/// when nothing is in it.
pub(crate) fn create(dir: &Arc<DataDir>, identity: &Identity) -> Result<(LogStore, LogClosed), OpenError> {
    let owner = identity.owner(dir);
    let store = dir.join("store");
    let file = db_file(&store);
    let created = !dir.platform().has_log(&file);
    let mut disk = open_disk(dir, &store, &owner)?;
    if !created {
        let synced = if SyncedIndexFile::exists(dir) {
            SyncedIndexFile::open(dir, &owner)?.current()
        } else {
            SyncedIndex::default()
        };
        let Recovered { log, owner: stored, .. } = recover(&disk, synced, &file, &owner)?;
        if log.last().is_some() || log.vote.is_some() {
            let stored = stored.map_or_else(|| "an unknown member".to_owned(), |stored| stored.to_string());
            return Err(OpenError::OtherOwner {
                dir: dir.path().to_owned(),
                stored,
                identity: "that there is no member yet".to_owned(),
            });
        }
    }
    let wrote = disk.apply(vec![layout::put_owner(identity)]).and_then(|()| disk.sync());
    wrote.map_err(OpenError::io("write", &file))?;
    let synced = SyncedIndexFile::create(dir)?;
    start(dir, disk, synced, MemoryLog::default())
}

/// Opens the log of a member that has an identity.
pub(crate) fn open(dir: &Arc<DataDir>, identity: &Identity) -> Result<(LogStore, LogClosed), OpenError> {
    let (_, disk, synced, log) = read(dir, identity)?;
    start(dir, disk, synced, log)
}

/// Reads and checks the log of a member that has an identity, and makes what was read durable.
pub(super) fn read(
    dir: &Arc<DataDir>,
    identity: &Identity,
) -> Result<(PathBuf, Box<dyn LogDisk>, SyncedIndexFile, MemoryLog), OpenError> {
    let owner = identity.owner(dir);
    let store = dir.join("store");
    let file = db_file(&store);
    if !dir.platform().has_log(&file) {
        return Err(owner.damaged(&file, "it is missing"));
    }
    let mut disk = open_disk(dir, &store, &owner)?;
    let mut synced = SyncedIndexFile::open(dir, &owner)?;
    let Recovered { log, owner: stored, sweep } = recover(&disk, synced.current(), &file, &owner)?;
    let stored = stored.ok_or_else(|| owner.damaged(&file, "it does not say whose log it is"))?;
    if !stored.is_same_member(identity) {
        let (stored, identity) = (stored.to_string(), identity.to_string());
        return Err(OpenError::OtherOwner { dir: dir.path().to_owned(), stored, identity });
    }
    // What was read may so far be in the page cache only, if the last process was killed; openraft takes it as durable.
    let wrote = disk.apply(sweep).and_then(|()| disk.sync());
    let wrote = wrote.and_then(|()| synced.advance(SyncedIndex { last: log.last(), vote: log.vote }));
    wrote.map_err(OpenError::io("write", &file))?;
    Ok((file, disk, synced, log))
}

pub(super) fn start(
    dir: &Arc<DataDir>,
    disk: impl LogDisk,
    synced: SyncedIndexFile,
    log: MemoryLog,
) -> Result<(LogStore, LogClosed), OpenError> {
    let (writer, requests) = mpsc::channel();
    let (ended, closed) = oneshot::channel::<()>();
    let held = dir.clone();
    let memory = Arc::new(Mutex::new(log));
    let reader = LogReader {
        memory: memory.clone(),
        disk: disk.reader(),
        platform: dir.platform().clone(),
        oversized: Arc::default(),
    };
    let writing = LogWriter::new(disk, synced, memory);
    let (max_synced, backlog) = (writing.max_synced(), writing.backlog());
    let until_end = UntilEnd(backlog.clone());
    let waiting = match dir.platform() {
        Platform::System => {
            let run = move || {
                let _until_end = until_end;
                writing.run(&requests);
                drop(held);
                drop(ended);
            };
            let thread = thread::Builder::new().name("trestle-log".to_owned()).spawn(run);
            thread.map_err(OpenError::io("start a thread to write", dir.path()))?;
            None
        }
        Platform::Simulated(simulated) => {
            let (waiting, simulated) = (Arc::new(Notify::new()), simulated.clone());
            let asked = waiting.clone();
            tokio::spawn(async move {
                let _until_end = until_end;
                writing.run_simulated(requests, &asked, &*simulated).await;
                drop(held);
                drop(ended);
            });
            Some(waiting)
        }
    };
    Ok((LogStore { reader, writer, waiting, max_synced, backlog }, LogClosed(closed)))
}

fn writer_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the thread that writes the log has ended")
}

impl LogStore {
    /// A reader, for as long as it is needed.
    pub(crate) fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// The last log entry that is only in a snapshot any more.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.reader.log().purged
    }

    /// The most that was ever durable in this process: what was found at its start, and what was written since.
    pub(crate) fn max_synced(&self) -> watch::Receiver<SyncedIndex> {
        self.max_synced.clone()
    }

    /// The highest feature level that an entry of the log needs, with its index; `None` when none needs more than the first.
    pub(crate) fn highest_level(&self) -> Option<(u64, u32)> {
        self.reader.log().highest_level()
    }

    /// What ports accept by the newest entry of the log that says so; `None` when none does.
    pub(crate) fn transport(&self) -> Option<TransportSecurity> {
        self.reader.log().transport()
    }

    /// The newest membership in the log, with each member's peer address; `None` when it is only in a snapshot.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.reader.log().membership().cloned()
    }

    /// What asks the writer for a sign of life.
    pub(crate) fn probe(&self) -> LogProbe {
        LogProbe { backlog: self.backlog.clone(), writer: self.writer.clone() }
    }

    fn ask(&self, request: WriteRequest) -> io::Result<()> {
        self.backlog.give();
        self.writer.send(request).map_err(|_| writer_gone())?;
        if let Some(waiting) = &self.waiting {
            waiting.notify_one();
        }
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        self.read(range, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read(start..end, READ_MAX).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let chunks =
            stream::try_unfold((self.clone(), range.start_bound().cloned()), move |(reader, start)| {
                let range = (start, range.end_bound().cloned());
                async move {
                    let entries = reader.read(range, READ_MAX).await?;
                    let next = entries.last().map(|last| Bound::Excluded(last.log_id.index));
                    Ok::<_, io::Error>(
                        next.map(|next| (stream::iter(entries.into_iter().map(Ok)), (reader, next))),
                    )
                }
            });
        Box::pin(chunks.try_flatten())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.reader.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = oneshot::channel();
        self.ask(WriteRequest::Vote { vote: *vote, done })?;
        saved.await.map_err(|_| writer_gone())??;
        self.reader.log().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.reader.log().committed = committed;
        committed.map_or(Ok(()), |committed| self.ask(WriteRequest::Committed(committed)))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.reader.log().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        {
            let mut log = self.reader.log();
            for entry in &entries {
                log.append(entry.clone())?;
            }
            if log.bytes() > LOG_MAX {
                self.reader.oversized.notify_one();
            }
        }
        self.ask(WriteRequest::Append { entries, done: callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let (removed, last) = {
            let mut log = self.reader.log();
            (log.truncate_after(last_log_id), log.last())
        };
        self.ask(WriteRequest::Truncate { removed, last })
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let (removed, last) = {
            let mut log = self.reader.log();
            (log.purge(log_id), log.last())
        };
        self.ask(WriteRequest::Purge { upto: log_id, removed, last })
    }
}
