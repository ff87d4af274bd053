//! The files of the image.

use std::fs;
use std::io;
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};

/// What every image has: where a member keeps its data and its admin socket, and a place for temporary files. Whichever user the
/// container runs as may write there, as in `/tmp`; no other user is in it.
const DIRECTORIES: [(&str, u32); 6] = [
    ("run/", 0o755),
    ("run/trestle/", 0o1777),
    ("tmp/", 0o1777),
    ("var/", 0o755),
    ("var/lib/", 0o755),
    ("var/lib/trestle/", 0o1777),
];

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the image, without the slash that it begins with.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A file with what this one has.
    File(PathBuf),
}

impl Entry {
    /// A program at this path.
    pub fn program(path: impl Into<String>, from: PathBuf) -> Self {
        Self { path: path.into(), mode: 0o755, content: Content::File(from) }
    }

    /// A file to read at this path.
    pub fn file(path: impl Into<String>, from: PathBuf) -> Self {
        Self { path: path.into(), mode: 0o644, content: Content::File(from) }
    }

    /// A directory.
    pub fn directory(path: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o755, content: Content::Directory }
    }
}

fn header(kind: EntryType, mode: u32, size: u64, time: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The layer with these entries and what every image has, in the order of paths, so that directories come before what is in them.
pub(crate) fn layer(entries: &[Entry], time: u64) -> io::Result<Vec<u8>> {
    let fixed = DIRECTORIES.iter().map(|(path, mode)| Entry { mode: *mode, ..Entry::directory(*path) });
    let mut all: Vec<Entry> = fixed.chain(entries.iter().cloned()).collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all.dedup_by(|later, first| later.path == first.path && later.content == Content::Directory);
    let mut tar = Builder::new(Vec::new());
    for entry in &all {
        match &entry.content {
            Content::Directory => {
                let mut header = header(EntryType::Directory, entry.mode, 0, time);
                tar.append_data(&mut header, &entry.path, io::empty())?;
            }
            Content::File(from) => {
                let bytes = fs::read(from).map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot read {}: {error}", from.display()))
                })?;
                let mut header = header(EntryType::Regular, entry.mode, bytes.len() as u64, time);
                tar.append_data(&mut header, &entry.path, bytes.as_slice())?;
            }
        }
    }
    tar.into_inner()
}

/// One file of an archive.
pub(crate) fn append(
    tar: &mut Builder<impl io::Write>,
    path: &str,
    bytes: &[u8],
    time: u64,
) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64, time);
    tar.append_data(&mut header, path, bytes)
}
