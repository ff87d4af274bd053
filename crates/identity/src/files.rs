//! Files that nobody else may read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Largest file of keys that is read, in bytes: contexts of some hundred clusters.
const FILE_MAX: u64 = 1024 * 1024;

/// Replaces a file so that after a crash it has the old content or the new one, and after this returns the new one. Only its owner
/// may read it; directories that are missing are made, for the owner alone.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // One that is left from a crash may be anybody's to read.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // What is left is of no use, and the error is told already.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Keeps other processes of this program from changing the files of a directory for as long as the answer lives. With `wait` it waits for
/// one that does; otherwise `None` says that there is one. Where the system has no such locks for the directory, as over NFS, everybody
/// gets one.
///
/// # Errors
/// What the system says of the directory.
pub fn lock_directory(directory: &Path, wait: bool) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    if wait {
        // A lock that cannot be had is none.
        let _ = file.lock();
        return Ok(Some(file));
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Reads such a file; `None` if there is none.
///
/// # Errors
/// What the system says, and when it is no text or too large.
pub fn read_private(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("the file has more than {FILE_MAX} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_may_read_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca").join("1.key");
        assert_eq!(read_private(&path).unwrap(), None);
        for content in ["one", "two"] {
            write_private(&path, content.as_bytes()).unwrap();
            assert_eq!(read_private(&path).unwrap().as_deref(), Some(content));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert!(read_private(&path).is_err());
    }
}
