//! The access log: one line for each connection, at its end.
//!
//! Workers only put what ended into a bounded queue and wait for nothing; a thread of its own makes lines of it and writes
//! them. When that thread falls behind or cannot write, lines are dropped and counted.

mod format;
mod sink;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use trestle_model::MemberName;

use crate::machine::threads;
use crate::observe::close_reason::CloseReason;
use crate::observe::snapshot::ConnectionSnapshot;
use format::Clock;
use sink::Sink;

/// The name of the thread.
const NAME: &str = "trestle-access";

/// Lines that wait to be written: what 160 000 connections a second end in [`GATHER`]. 40 bytes each.
const QUEUE: usize = 16_384;

/// How long lines are gathered before they are written. In that time the thread is not waiting for the queue, so that
/// workers need not wake it for each line.
const GATHER: Duration = Duration::from_millis(100);

/// Bytes that are written at once.
const CHUNK: usize = 64 * 1024;

/// How long the end waits for lines that are still to be written.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// The access log's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The form of the lines.
    pub format: AccessLogFormat,
    /// The file that lines are added to; `None` for standard output.
    pub file: Option<PathBuf>,
    /// This member, which each line names.
    pub member: MemberName,
}

/// The form of the access log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Columns with blanks between them, "-" for nothing.
    Text,
    /// A JSON object.
    Json,
}

/// What the log reads of a connection that has ended, on its own thread.
pub(crate) trait AccessRecord: fmt::Debug + Send + Sync {
    /// The connection as it was at its end.
    fn read(&self) -> ConnectionSnapshot;

    /// Connects that failed and were tried again elsewhere, up to 255.
    fn retries(&self) -> u8;
}

/// A connection that has ended.
#[derive(Debug)]
pub(crate) struct EndedConnection {
    pub(crate) connection: Arc<dyn AccessRecord>,
    pub(crate) reason: CloseReason,
    pub(crate) at: Instant,
}

#[derive(Debug)]
enum LogMessage {
    Ended(EndedConnection),
    /// Look at [`AccessLogQueue::reopen`].
    Reopen,
    /// Tell once everything before this was written.
    Finish(SyncSender<()>),
}

/// What workers and the owner of the data plane hold of the log.
#[derive(Debug)]
pub(crate) struct AccessLogQueue {
    queue: SyncSender<LogMessage>,
    /// Lines that were not written.
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

impl AccessLogQueue {
    /// Starts the thread that writes, which opens the file and ends with this; that it ends earlier is told `ended`. That it
    /// waits, for the reader of a pipe or a slow disk, is its business: lines are dropped meanwhile.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start(settings: AccessLog, ended: &threads::ThreadEnds) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let log = Self { queue, dropped: Arc::default(), reopen: Arc::default() };
        let writer = LogWriter {
            sink: Sink::new(settings.file.clone()),
            settings,
            dropped: log.dropped.clone(),
            told: 0,
            reopen: log.reopen.clone(),
            clock: Clock::new(),
            chunk: Vec::new(),
            lines: 0,
        };
        let watched = ended.thread(NAME);
        Builder::new().name(NAME.to_owned()).spawn(move || {
            let _watched = watched;
            writer.run(&messages);
        })?;
        Ok(log)
    }

    /// Has a line written, unless too many wait already.
    pub(crate) fn push(&self, ended: EndedConnection) {
        if self.queue.try_send(LogMessage::Ended(ended)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that were dropped up to now.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Has the file opened anew, under its name, before the next line is written.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, SeqCst);
        // With a full queue the thread has enough to do and finds the mark by itself.
        let _ = self.queue.try_send(LogMessage::Reopen);
    }

    /// Waits until everything is written, but not long; blocks the thread.
    pub(crate) fn finish(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(LogMessage::Finish(done)).is_ok() {
            let _ = written.recv_timeout(FINISH_LIMIT);
        }
    }
}

/// What the thread works with.
struct LogWriter {
    settings: AccessLog,
    sink: Sink,
    dropped: Arc<AtomicU64>,
    /// Dropped lines that the log itself tells of.
    told: u64,
    reopen: Arc<AtomicBool>,
    clock: Clock,
    chunk: Vec<u8>,
    /// Lines in the chunk.
    lines: u64,
}

impl LogWriter {
    fn run(mut self, messages: &Receiver<LogMessage>) {
        self.sink.open();
        while let Ok(first) = messages.recv() {
            if matches!(first, LogMessage::Ended(_)) {
                std::thread::sleep(GATHER);
            }
            self.clock = Clock::new();
            self.take(first);
            // Bounded, so that a stream of lines without end does not keep what is gathered from being written.
            for message in messages.try_iter().take(QUEUE) {
                self.take(message);
            }
            self.flush();
        }
    }

    fn take(&mut self, message: LogMessage) {
        match message {
            LogMessage::Ended(ended) => {
                self.clock.line(&self.settings, &ended, &mut self.chunk);
                self.lines += 1;
                if self.chunk.len() >= CHUNK {
                    self.flush();
                }
            }
            LogMessage::Reopen => self.flush(),
            LogMessage::Finish(done) => {
                self.flush();
                // Fails only when nobody waits any more.
                let _ = done.try_send(());
            }
        }
    }

    fn flush(&mut self) {
        if self.reopen.swap(false, SeqCst) {
            self.sink.reopen();
        }
        if self.chunk.is_empty() {
            return;
        }
        let dropped = self.dropped.load(Relaxed);
        if dropped > self.told {
            let mut notice = Vec::new();
            self.clock.dropped(&self.settings, dropped - self.told, &mut notice);
            if self.sink.write(&notice).is_ok() {
                self.told = dropped;
            }
        }
        if let Err(unwritten) = self.sink.write(&self.chunk) {
            let lines = unwritten.min(self.lines);
            self.dropped.fetch_add(lines, Relaxed);
        }
        self.chunk.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_end_of_the_writer_is_told() {
        let ended = threads::ThreadEnds::default();
        let member = MemberName::parse("m1").unwrap();
        let file = Some(PathBuf::from("/dev/null"));
        let log =
            AccessLogQueue::start(AccessLog { format: AccessLogFormat::Text, file, member }, &ended).unwrap();
        drop(log);
        let told = tokio::time::timeout(Duration::from_secs(60), ended.first()).await.unwrap();
        assert_eq!(told, "thread trestle-access has ended");
    }
}
