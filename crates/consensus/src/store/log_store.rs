//! The log store as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use openraft::storage::RaftLogStorage;
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::{oneshot, watch};

use super::backlog::{Backlog, LogProbe, UntilEnd};
use super::disk::LogDisk;
use super::error::OpenError;
use super::layout;
use super::memory::MemoryLog;
use super::recovery::{Recovered, recover};
use super::sled_disk::{SledDisk, db_file};
use super::synced_index::{SyncedIndex, SyncedIndexFile};
use super::writer::{LogWriter, WriteRequest};
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::raft_types::{IoFlushed, LogEntry, LogId, Membership, Payload, TypeConfig, Vote};

/// Reads the log from memory.
#[derive(Debug, Clone)]
pub(crate) struct LogReader(Arc<Mutex<MemoryLog>>);

impl LogReader {
    fn log(&self) -> MutexGuard<'_, MemoryLog> {
        // Nothing panics while it holds this lock; were it so, the log would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of `ids`, which a leader says to have, that differs from what this member knows to be committed. No leader
    /// of this cluster can have it.
    pub(crate) fn contradicted(&self, ids: impl IntoIterator<Item = LogId>) -> Option<LogId> {
        let log = self.log();
        let committed = log.committed?.index;
        let differs = |id: &LogId| {
            let here = log.get(id.index).map(|entry| entry.log_id);
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

/// Creates the log of a member that joins or founds a cluster. A log that an earlier attempt left behind may be there
/// when nothing is in it.
pub(crate) fn create(dir: &Arc<DataDir>, identity: &Identity) -> Result<(LogStore, LogClosed), OpenError> {
    let owner = identity.owner(dir);
    let store = dir.join("store");
    let file = db_file(&store);
    let created = !file.exists();
    let mut disk = SledDisk::open(&store, &owner)?;
    if !created {
        let synced_at_least = SyncedIndexFile::path(dir.path()).exists();
        let synced = if synced_at_least {
            SyncedIndexFile::open(dir.path(), &owner)?.current()
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
    let synced = SyncedIndexFile::create(dir.path())?;
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
) -> Result<(PathBuf, SledDisk, SyncedIndexFile, MemoryLog), OpenError> {
    let owner = identity.owner(dir);
    let store = dir.join("store");
    let file = db_file(&store);
    if !file.exists() {
        return Err(owner.damaged(&file, "it is missing"));
    }
    let mut disk = SledDisk::open(&store, &owner)?;
    let mut synced = SyncedIndexFile::open(dir.path(), &owner)?;
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
    let writing = LogWriter::new(disk, synced);
    let (max_synced, backlog) = (writing.max_synced(), writing.backlog());
    let until_end = UntilEnd(backlog.clone());
    let run = move || {
        let _until_end = until_end;
        writing.run(&requests);
        drop(held);
        drop(ended);
    };
    let thread = thread::Builder::new().name("trestle-log".to_owned()).spawn(run);
    thread.map_err(OpenError::io("start a thread to write", dir.path()))?;
    let reader = LogReader(Arc::new(Mutex::new(log)));
    Ok((LogStore { reader, writer, max_synced, backlog }, LogClosed(closed)))
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

    /// The newest membership in the log, with each member's peer address; `None` when it is only in a snapshot.
    pub(crate) fn membership(&self) -> Option<Membership> {
        let log = self.reader.log();
        log.newest(|entry| match &entry.payload {
            Payload::Membership(membership) => Some(membership.clone()),
            _ => None,
        })
    }

    /// What asks the writer for a sign of life.
    pub(crate) fn probe(&self) -> LogProbe {
        LogProbe { backlog: self.backlog.clone(), writer: self.writer.clone() }
    }

    fn ask(&self, request: WriteRequest) -> io::Result<()> {
        self.backlog.give();
        self.writer.send(request).map_err(|_| writer_gone())
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        Ok(self.log().range(range))
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
