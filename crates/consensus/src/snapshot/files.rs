//! Snapshot files: written beside the old ones, made durable, then renamed; the newest two are kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;
use sha2::{Digest as _, Sha256};
use trestle_model::Machine;

use super::payload;
use crate::data_dir::{DataDir, replace_file};
use crate::platform::Platform;
use crate::raft_types::{LogId, SnapshotMeta};
use crate::store::{OpenError, StorageOwner};

const MAGIC: [u8; 8] = *b"TRSTSNAP";
const FORMAT: u32 = 1;
/// Magic, format, length, SHA-256.
const HEADER: usize = 8 + 4 + 8 + 32;
const KEPT: usize = 2;

/// The directory with the snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotFiles {
    dir: PathBuf,
    platform: Platform,
    owner: StorageOwner,
}

/// A snapshot that was read.
#[derive(Debug)]
pub(crate) struct RestoredSnapshot {
    /// What it contains.
    pub(crate) meta: SnapshotMeta,
    /// The state machine.
    pub(crate) machine: Machine,
}

fn header(payload: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_be_bytes());
    header[12..20].copy_from_slice(&(payload.len() as u64).to_be_bytes());
    // The sum covers the header before it too, so that no changed bit passes.
    let sum = Sha256::new().chain_update(&header[..20]).chain_update(payload).finalize();
    header[20..].copy_from_slice(&sum);
    header
}

impl SnapshotFiles {
    /// Opens the directory, creating it if there is none.
    pub(crate) fn open(dir: &DataDir, owner: StorageOwner) -> Result<Self, OpenError> {
        let path = dir.join("snapshots");
        fs::create_dir_all(&path).map_err(OpenError::io("create", &path))?;
        Ok(Self { dir: path, platform: dir.platform().clone(), owner })
    }

    /// What the member runs on.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Snapshots by index and term, the newest first.
    fn list(&self) -> io::Result<Vec<(u64, u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let parts = name.strip_suffix(".snap").and_then(|name| name.split_once('-'));
            if let Some((Ok(term), Ok(index))) = parts.map(|(term, index)| (term.parse(), index.parse())) {
                found.push((index, term, path));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn path(&self, id: &LogId) -> PathBuf {
        self.dir.join(format!("{}-{}.snap", id.leader_id.term, id.index))
    }

    /// Writes a snapshot, durably, and removes all but the newest two. One that contains no log entry is not written: a
    /// restart has that state without it.
    pub(crate) fn save(&self, meta: &SnapshotMeta, payload: &[u8]) -> io::Result<()> {
        let Some(id) = &meta.last_log_id else { return Ok(()) };
        replace_file(&self.path(id), &[&header(payload), payload])?;
        for (_, _, path) in self.list()?.into_iter().skip(KEPT) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Reads and checks the payload of a file.
    fn read(&self, path: &Path) -> Result<Bytes, OpenError> {
        let mut content = Bytes::from(fs::read(path).map_err(OpenError::io("read", path))?);
        let damaged = |what: String| self.owner.damaged(path, what);
        if content.len() < HEADER {
            return Err(damaged(format!("it has {} bytes, less than its header of {HEADER}", content.len())));
        }
        let found = content.split_to(HEADER);
        let format = found[8..12].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let expected = header(&content);
        if found[..] == expected[..] {
            return Ok(content);
        }
        let sum = Sha256::new().chain_update(&found[..20]).chain_update(&content).finalize();
        if found[..8] == MAGIC && format > FORMAT && sum[..] == found[20..] {
            return Err(OpenError::NewerFormat { file: path.to_owned(), found: format, known: FORMAT });
        }
        Err(damaged("its checksum does not hold".to_owned()))
    }

    fn restore(&self, path: &Path) -> Result<RestoredSnapshot, OpenError> {
        let content = self.read(path)?;
        let (meta, machine) = payload::decode(&content)
            .map_err(|e| OpenError::Unknown { file: path.to_owned(), what: e.to_string() })?;
        Ok(RestoredSnapshot { meta, machine })
    }

    /// Reads the payload of the snapshot that ends with this log entry.
    pub(crate) fn load(&self, id: &LogId) -> Result<Bytes, OpenError> {
        self.read(&self.path(id))
    }

    /// Whether there is a file for the snapshot that ends with this log entry.
    pub(crate) fn has(&self, id: &LogId) -> bool {
        self.path(id).exists()
    }

    /// Reads the newest snapshot from which the log goes on; `purged` is the last entry that the log no longer has. A
    /// damaged one is passed over when the log still reaches back to the one before.
    ///
    /// # Errors
    /// When the log has been purged and no snapshot is left that reaches so far.
    pub(crate) fn newest(&self, purged: Option<LogId>) -> Result<Option<RestoredSnapshot>, OpenError> {
        let reaches = |index: u64| purged.is_none_or(|purged| index >= purged.index);
        let files = self.list().map_err(OpenError::io("read", &self.dir))?;
        let mut passed_over = None;
        for (_, _, path) in files.into_iter().filter(|(index, ..)| reaches(*index)) {
            match self.restore(&path) {
                Ok(restored) => {
                    if let Some(error) = passed_over {
                        tracing::warn!(%error, used = %path.display(), "passing over a snapshot; the log makes up for it");
                    }
                    return Ok(Some(restored));
                }
                Err(error @ (OpenError::NewerFormat { .. } | OpenError::Unknown { .. })) => {
                    return Err(error);
                }
                Err(error) => passed_over = passed_over.or(Some(error)),
            }
        }
        match (passed_over, purged) {
            (Some(error), Some(_)) => Err(error),
            (Some(error), None) => {
                tracing::warn!(%error, "passing over a snapshot; the log has everything");
                Ok(None)
            }
            (None, None) => Ok(None),
            (None, Some(purged)) => Err(self.owner.damaged(
                &self.dir,
                format!("no snapshot reaches entry {}, and the log begins after it", purged.index),
            )),
        }
    }
}
