//! The data directory: who may use it, where things are, and how a file is replaced so that a crash leaves the old one
//! or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::OpenError;

/// How long [`DataDir::open`] waits for the one who had the directory: a member that was just stopped closes its files
/// within milliseconds, a running one never does.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A data directory that this process has for itself, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if there is none, and locks it. Blocks up to one second while another process has it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        // Only this member's user has any business in it.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(OpenError::io("create the data directory", path))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&lock_path).map_err(OpenError::io("open", &lock_path))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
                Err(TryLockError::Error(e)) => return Err(OpenError::io("lock", &lock_path)(e)),
            }
        }
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file or directory in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Replaces a file so that after a crash it has the old content or the new one, and after this returns the new one.
pub(crate) fn replace_file(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_one_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let second = DataDir::open(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(second, OpenError::Locked(_)), "{second}");
        assert!(second.to_string().contains("another process"), "{second}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }
}
