//! The mark: a small file that says up to where the log is durable.
//!
//! sled drops a damaged tail without a word, which is right for what was never synced and a loss of acknowledged
//! entries for what was. The mark tells the two apart. It is overwritten in place after each sync of the log, and is
//! itself synced only where it must not be found too high, which is before entries are truncated: an older mark is
//! merely a weaker check. It is shorter than a sector, so it is never half new.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use openraft::LogId as RaftLogId;
use openraft::vote::leader_id_adv;

use super::error::{OpenError, StorageOwner};
use crate::data_dir::{DataDir, sync_directory};
use crate::platform::Platform;
use crate::raft_types::{LeaderId, LogId, Vote};

const MAGIC: [u8; 4] = *b"TRM1";
const CONTENT: usize = MAGIC.len() + 8 * 8;
const LENGTH: usize = CONTENT + 4;

/// What a member's disk has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SyncedIndex {
    /// The last entry of the log.
    pub(crate) last: Option<LogId>,
    /// The vote.
    pub(crate) vote: Option<Vote>,
}

impl SyncedIndex {
    /// What a disk has whose last entry is of `term` at `index`, and whose vote is for member 2 in `voted`.
    #[cfg(test)]
    pub(crate) fn sample(term: u64, index: u64, voted: u64) -> SyncedIndex {
        let leader = |term| LeaderId { term, node_id: 2 };
        let vote = Vote { leader_id: leader(voted), committed: false };
        SyncedIndex { last: Some(LogId::new(leader(term), index)), vote: Some(vote) }
    }

    /// Whom the vote is for. Whether a quorum granted it is not compared: a leader that restarts does not take itself for
    /// one any more.
    pub(crate) fn candidate(&self) -> Option<LeaderId> {
        self.vote.map(|vote| vote.leader_id)
    }

    /// Takes over whatever of `other` is later.
    pub(crate) fn raise(&mut self, other: &SyncedIndex) {
        self.last = self.last.max(other.last);
        if other.candidate() > self.candidate() {
            self.vote = other.vote;
        }
    }

    /// Whether a disk with this can once have had `other`, as long as it did not go back in time.
    pub(crate) fn reaches(&self, other: &SyncedIndex) -> bool {
        self.last >= other.last && self.candidate() >= other.candidate()
    }

    fn encode(&self) -> [u8; LENGTH] {
        let last = self.last.map_or([0; 4], |id| [1, id.leader_id.term, id.leader_id.node_id, id.index]);
        let vote = self
            .vote
            .map_or([0; 4], |v| [if v.committed { 2 } else { 1 }, v.leader_id.term, v.leader_id.node_id, 0]);
        let mut bytes = [0; LENGTH];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        for (slot, number) in bytes[MAGIC.len()..CONTENT].chunks_exact_mut(8).zip(last.iter().chain(&vote)) {
            slot.copy_from_slice(&number.to_be_bytes());
        }
        let crc = crc32fast::hash(&bytes[..CONTENT]);
        bytes[CONTENT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes: &[u8; LENGTH] =
            bytes.try_into().map_err(|_| format!("it has {} bytes instead of {LENGTH}", bytes.len()))?;
        let (content, crc) = bytes.split_at(CONTENT);
        if crc32fast::hash(content).to_be_bytes() != crc {
            return Err("its checksum does not hold".to_owned());
        }
        let number = |at: usize| {
            let at = MAGIC.len() + at * 8;
            content[at..at + 8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let leader =
            |at: usize| -> LeaderId { leader_id_adv::LeaderId { term: number(at), node_id: number(at + 1) } };
        match (content.starts_with(&MAGIC), number(0), number(4)) {
            (true, last @ 0..=1, vote @ 0..=2) => Ok(Self {
                last: (last == 1).then(|| RaftLogId::new(leader(1), number(3))),
                vote: (vote > 0).then(|| Vote { leader_id: leader(5), committed: vote == 2 }),
            }),
            _ => Err("it is not a mark of this version".to_owned()),
        }
    }
}

/// Where the mark is written.
pub trait MarkFile: Send + 'static {
    /// Writes the mark over the one that is there.
    ///
    /// # Errors
    /// When the disk refuses.
    fn write(&self, mark: &[u8]) -> io::Result<()>;

    /// Makes it survive a loss of power.
    ///
    /// # Errors
    /// When the disk refuses.
    fn sync(&self) -> io::Result<()>;
}

impl MarkFile for File {
    fn write(&self, mark: &[u8]) -> io::Result<()> {
        self.write_all_at(mark, 0)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The file with the mark.
pub(super) struct SyncedIndexFile {
    file: Box<dyn MarkFile>,
    current: SyncedIndex,
}

impl SyncedIndexFile {
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("synced")
    }

    /// Whether there is one.
    pub(super) fn exists(dir: &DataDir) -> bool {
        match dir.platform() {
            Platform::System => Self::path(dir.path()).exists(),
            Platform::Simulated(simulated) => simulated.has_mark(),
        }
    }

    /// Creates the file, durably.
    pub(super) fn create(dir: &DataDir) -> Result<Self, OpenError> {
        let path = Self::path(dir.path());
        if let Platform::Simulated(simulated) = dir.platform() {
            let file = simulated.open_mark();
            let written = file.write(&SyncedIndex::default().encode()).and_then(|()| file.sync());
            written.map_err(OpenError::io("create", &path))?;
            return Ok(Self { file, current: SyncedIndex::default() });
        }
        let create = || {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            file.write_all_at(&SyncedIndex::default().encode(), 0)?;
            file.sync_all()?;
            sync_directory(dir.path())?;
            Ok(Self { file: Box::new(file), current: SyncedIndex::default() })
        };
        create().map_err(OpenError::io("create", &path))
    }

    /// Opens the file and reads the mark.
    pub(super) fn open(dir: &DataDir, owner: &StorageOwner) -> Result<Self, OpenError> {
        let path = Self::path(dir.path());
        let content = match dir.platform() {
            Platform::System => std::fs::read(&path),
            Platform::Simulated(simulated) => simulated.read_mark(),
        };
        let content = content.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => owner.damaged(&path, "it is missing, and there is a log beside it"),
            _ => OpenError::io("read", &path)(e),
        })?;
        let current = SyncedIndex::decode(&content).map_err(|what| owner.damaged(&path, what))?;
        let file: Box<dyn MarkFile> = match dir.platform() {
            Platform::System => {
                Box::new(OpenOptions::new().write(true).open(&path).map_err(OpenError::io("open", &path))?)
            }
            Platform::Simulated(simulated) => simulated.open_mark(),
        };
        Ok(Self { file, current })
    }

    /// The mark as it was last written or read.
    pub(super) fn current(&self) -> SyncedIndex {
        self.current
    }

    /// Moves the mark after a sync of the log.
    pub(super) fn advance(&mut self, synced: SyncedIndex) -> io::Result<()> {
        if synced != self.current {
            self.file.write(&synced.encode())?;
            self.current = synced;
        }
        Ok(())
    }

    /// Moves the mark down, durably, before entries are truncated.
    pub(super) fn lower(&mut self, synced: SyncedIndex) -> io::Result<()> {
        self.advance(synced)?;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn marks_round_trip_and_no_changed_bit_passes() {
        let leader = LeaderId { term: 3, node_id: 258 };
        let last = Some(RaftLogId::new(leader, u64::MAX - 1));
        let vote = |committed| Some(Vote { leader_id: leader, committed });
        for synced in [
            SyncedIndex::default(),
            SyncedIndex { last, vote: None },
            SyncedIndex { last: None, vote: vote(false) },
            SyncedIndex { last, vote: vote(true) },
        ] {
            let bytes = synced.encode();
            assert_eq!(SyncedIndex::decode(&bytes), Ok(synced));
            for bit in 0..LENGTH * 8 {
                let mut changed = bytes;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(SyncedIndex::decode(&changed).is_err(), "bit {bit}");
            }
        }
        assert!(SyncedIndex::decode(&[]).is_err());
    }
}
