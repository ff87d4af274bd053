#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod faults;
mod kill;
mod pieces;
mod reopen;
mod suite;

use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use trestle_model::{
    BackendAddress, BackendName, BackendSpec, ClusterId, Command, MemberId, MemberName, PoolName, Proposal,
};

use super::OpenError;
use super::log_store::{LogClosed, LogStore, create, open};
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::raft_types::{IoFlushed, LeaderId, LogEntry, LogId, Payload, TypeConfig, Vote};

pub(crate) fn identity() -> Identity {
    Identity {
        cluster_id: ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap(),
        member_id: MemberId(7),
        name: MemberName::parse("east-1").unwrap(),
        removed: false,
        recovery: Default::default(),
        former: Vec::new(),
    }
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 7 }, index)
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, node_id: 7 }, committed: true }
}

/// An entry whose content depends on its index.
fn entry(term: u64, index: u64) -> LogEntry {
    let command = Command::create((
        PoolName::parse("web").unwrap(),
        BackendName::parse(&format!("b{index}")).unwrap(),
        BackendSpec::at(BackendAddress::parse("10.0.0.1:80").unwrap()),
    ));
    LogEntry {
        log_id: log_id(term, index),
        payload: Payload::Normal(Proposal { origin: None, request: None, command }.into()),
    }
}

/// An entry with so many bytes of content, which depend on its index.
fn large_entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let bytes: Vec<u8> = (0..bytes).map(|at| (at as u64 * 31 + index) as u8).collect();
    let command = Command::StagePiece { upload: index, number: 0, bytes: bytes.into() };
    let proposal = Proposal { origin: None, request: None, command };
    LogEntry { log_id: log_id(term, index), payload: Payload::Normal(proposal.into()) }
}

/// A log store that is closed, files and all, when [`close`](Self::close) returns.
struct Opened {
    log: LogStore,
    closed: LogClosed,
}

impl Opened {
    fn create(dir: &Path) -> Self {
        let dir = Arc::new(DataDir::open(dir).unwrap());
        let (log, closed) = create(&dir, &identity()).unwrap();
        Self { log, closed }
    }

    fn open(dir: &Path) -> Result<Self, OpenError> {
        let dir = Arc::new(DataDir::open(dir)?);
        let (log, closed) = open(&dir, &identity())?;
        Ok(Self { log, closed })
    }

    async fn append(
        &mut self,
        entries: impl IntoIterator<Item = LogEntry, IntoIter: Send> + Send,
    ) -> io::Result<()> {
        let (done, flushed) = TypeConfig::oneshot();
        self.log.append(entries, IoFlushed::signal(done)).await?;
        flushed.await.unwrap()
    }

    /// Everything that openraft can read.
    async fn content(&mut self) -> (Option<LogId>, Option<LogId>, Option<Vote>, Vec<LogEntry>) {
        let state = self.log.get_log_state().await.unwrap();
        let mut reader = self.log.get_log_reader().await;
        let entries = reader.try_get_log_entries(..).await.unwrap();
        (state.last_purged_log_id, state.last_log_id, reader.read_vote().await.unwrap(), entries)
    }

    async fn close(self) {
        drop(self.log);
        self.closed.wait().await;
    }
}

/// What an open log on a good directory says.
async fn content_of(dir: &Path) -> (Option<LogId>, Option<LogId>, Option<Vote>, Vec<LogEntry>) {
    let mut opened = Opened::open(dir).unwrap();
    let content = opened.content().await;
    opened.close().await;
    content
}
