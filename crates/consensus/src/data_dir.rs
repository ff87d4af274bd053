//! The data directory: who may use it, where things are, and how a file is replaced so that a crash leaves the old one
//! or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::platform::Platform;
use crate::store::OpenError;

/// How long [`DataDir::open`] waits for the one who had the directory: a member that was just stopped closes its files
/// within milliseconds, a running one never does.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The file that is locked.
const LOCK: &str = "lock";

/// Beginning of the names of directories with the data of removed members.
pub(crate) const ASIDE: &str = "removed-member-";

/// A data directory that this process has for itself, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    platform: Platform,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if there is none, and locks it. Blocks up to one second while another process has it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_on(path, Platform::System)
    }

    /// The same on a platform, which has the log.
    pub(crate) fn open_on(path: &Path, platform: Platform) -> Result<Self, OpenError> {
        // Only this member's user has any business in it.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(OpenError::io("create the data directory", path))?;
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&lock_path).map_err(OpenError::io("open", &lock_path))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), platform, _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
                Err(TryLockError::Error(e)) => return Err(OpenError::io("lock", &lock_path)(e)),
            }
        }
    }

    /// Moves what a member that was removed has here into a directory of its own beside it, so that another member can begin in
    /// this one, and answers where it is. `last` is moved last: while it is here nothing has begun, and the call can be repeated
    /// after a crash.
    pub(crate) fn set_aside(&self, name: &str, last: &str) -> io::Result<PathBuf> {
        let aside = self.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&aside)?;
        let stays = |file: &str| [LOCK, last, name].contains(&file) || file.starts_with(ASIDE);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let file = entry.file_name();
            // A socket is of the process that runs, and no data.
            if !stays(&file.to_string_lossy()) && !entry.file_type()?.is_socket() {
                fs::rename(self.path.join(&file), aside.join(&file))?;
            }
        }
        sync_directory(&aside)?;
        sync_directory(&self.path)?;
        fs::rename(self.join(last), aside.join(last))?;
        sync_directory(&aside)?;
        sync_directory(&self.path)?;
        Ok(aside)
    }

    /// What the member runs on.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
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
    fn what_a_removed_member_had_is_kept_beside_what_the_next_one_has() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let name = |id: u64| format!("{ASIDE}{id}");
        for id in [3, 9] {
            fs::create_dir(dir.join("store")).unwrap();
            fs::write(dir.join("store").join("db"), [id as u8]).unwrap();
            fs::write(dir.join("identity"), [id as u8]).unwrap();
            assert_eq!(dir.set_aside(&name(id), "identity").unwrap(), place.path().join(name(id)));
        }
        for id in [3, 9] {
            assert_eq!(fs::read(dir.join(&name(id)).join("store").join("db")).unwrap(), [id as u8]);
            assert_eq!(fs::read(dir.join(&name(id)).join("identity")).unwrap(), [id as u8]);
        }
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", "removed-member-3", "removed-member-9"]);
        // A crash left some of it here.
        fs::create_dir_all(dir.join(&name(12)).join("store")).unwrap();
        fs::write(dir.join("identity"), [12]).unwrap();
        fs::write(dir.join("mark"), [12]).unwrap();
        dir.set_aside(&name(12), "identity").unwrap();
        assert_eq!(fs::read_dir(dir.join(&name(12))).unwrap().count(), 3);
    }

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
