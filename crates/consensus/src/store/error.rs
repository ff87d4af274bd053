//! Why a data directory cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be opened. No text below is ever a reason to delete files: what is damaged is moved aside.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "data directory {} is in use by another process; stop that one, or give this member a directory of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// The system refused to read or write.
    #[error("cannot {action} {}: {source}; check its owner, its permissions and the free space", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not as it was written.
    #[error(
        "{} is damaged: {what}; this member cannot be trusted with its id any more: move {} aside, run \
         \"trestle member remove {member}\" on another member, and let this one join anew: with \"trestled join\" and a token of \
         \"trestle token create\", or in a cluster without identities start it with an empty data directory, and run \"trestle member \
         add HOST:PORT\" with its peer address and \"trestle member promote {member}\" there",
        .file.display(), .dir.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and where.
        what: String,
        /// The data directory.
        dir: PathBuf,
        /// The member's name, or `NAME` when the file that holds it is the damaged one.
        member: String,
    },
    /// It was written by a newer version.
    #[error(
        "{} has storage format {found}, and this version reads up to {known}; start the version that wrote it, or a newer one",
        .file.display()
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// It was written by an older version, whose format this one does not read.
    #[error(
        "data directory {} has storage format {found}, and this version reads {known} alone; nothing in it was changed. To carry \
         the configuration over, start the version that wrote it and run \"trestle backup FILE\"; then start this version with an \
         empty data directory, found the cluster with \"trestle cluster bootstrap\", and run \"trestle restore FILE\"",
        .dir.display()
    )]
    OlderFormat {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this program reads.
        known: u32,
    },
    /// It is intact, and holds something that this program does not know.
    #[error(
        "{} holds what this version does not know ({what}); a newer version wrote it, and it is intact: upgrade this member to \
         the version that the others run, and start it again",
        .file.display()
    )]
    Unknown {
        /// The file.
        file: PathBuf,
        /// What is not known, and where.
        what: String,
    },
    /// Its parts belong to different members.
    #[error(
        "the log in {} belongs to {stored}, but the identity file says {identity}; put back the files that belong \
         together, or move the directory aside and join with an empty one",
        .dir.display()
    )]
    OtherOwner {
        /// The data directory.
        dir: PathBuf,
        /// Whose log it is.
        stored: String,
        /// What the identity file says.
        identity: String,
    },
}

impl OpenError {
    /// Whether starting again cannot help, because what is on the disk must be changed first. Everything else may pass by
    /// itself: a disk gets room again or is mounted for writing, rights are given, the other process ends.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::NewerFormat { .. }
            | Self::OlderFormat { .. }
            | Self::Unknown { .. }
            | Self::OtherOwner { .. } => true,
            Self::Locked(_) | Self::Io { .. } => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Names the data directory and its member in errors about the files in it.
#[derive(Debug, Clone)]
pub(crate) struct StorageOwner {
    pub(crate) dir: PathBuf,
    pub(crate) member: String,
}

impl StorageOwner {
    pub(crate) fn damaged(&self, file: &Path, what: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            file: file.to_owned(),
            what: what.into(),
            dir: self.dir.clone(),
            member: self.member.clone(),
        }
    }
}
