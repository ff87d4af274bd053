//! What checks read from files of this member: certificates with their keys, and tokens. Files are read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use trestle_model::Secret;

use super::check_error::CheckError;
use crate::machine::shortage::Shortage;

/// For this time the files are not examined again. With thousands of backends in a pool, each check would otherwise start a
/// thread to ask for their dates.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Largest file that is read, in bytes; a chain of ten large certificates has 20 KiB.
const FILE_MAX: u64 = 256 * 1024;

/// One file: what it is for, in words that an error begins with, and where it is.
pub(super) type NamedFile = (&'static str, Arc<str>);

/// Makes a value from the contents of the files.
type Make<T> = Arc<dyn Fn(&[Secret<Vec<u8>>]) -> Result<T, String> + Send + Sync>;

/// A value made from files, as they are now or were a second ago.
pub(super) struct FromFiles<T> {
    files: Arc<[NamedFile]>,
    /// The directory that all of them must be below.
    directory: Arc<Path>,
    make: Make<T>,
    seen: Mutex<Seen<T>>,
}

impl<T> std::fmt::Debug for FromFiles<T> {
    /// The value is left out, because it is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FromFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

struct Seen<T> {
    last: Option<(Instant, Look<T>)>,
    /// A read that is under way. It outlives the check that began it, so that files on a disk that does not answer hold one
    /// thread and not one for each check.
    looking: Option<JoinHandle<Look<T>>>,
}

/// What was in the files, and how to tell that they have not changed.
#[derive(Clone)]
struct Look<T> {
    /// `None` when the files could not be read, and must be read again.
    stamps: Option<Vec<Stamp>>,
    made: Result<T, CheckError>,
}

/// What changes when a file or its permissions are written or replaced: inode, size, and the time of the last change (seconds
/// and nanoseconds).
type Stamp = [i64; 4];

impl<T: Clone + Send + 'static> FromFiles<T> {
    /// Reads nothing yet.
    pub(super) fn new(
        files: impl Into<Arc<[NamedFile]>>,
        directory: Arc<Path>,
        make: impl Fn(&[Secret<Vec<u8>>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        let seen = Mutex::new(Seen { last: None, looking: None });
        Self { files: files.into(), directory, make: Arc::new(make), seen }
    }

    /// What is made from the files.
    ///
    /// # Errors
    /// What is wrong with them, or what this member lacks to read them.
    pub(super) async fn get(&self) -> Result<T, CheckError> {
        let mut seen = self.seen.lock().await;
        let last = seen.last.as_ref().filter(|(at, _)| at.elapsed() < LOOK_AGAIN);
        let look = match last {
            Some((_, look)) => look.clone(),
            None => {
                let known = seen.last.as_ref().map(|(_, look)| look.clone());
                let (files, directory, make) =
                    (self.files.clone(), self.directory.clone(), self.make.clone());
                let look = seen
                    .looking
                    .get_or_insert_with(|| spawn_blocking(move || look(&files, &directory, &make, known)))
                    .await;
                seen.looking = None;
                let look = look
                    .map_err(|_| CheckError::Backend("a file of the check could not be read".to_owned()))?;
                seen.last = Some((Instant::now(), look.clone()));
                look
            }
        };
        look.made
    }
}

fn look<T: Clone>(files: &[NamedFile], directory: &Path, make: &Make<T>, known: Option<Look<T>>) -> Look<T> {
    // The dates are taken before the files are read, so that what is written meanwhile is found the next time.
    let stamps: Result<Vec<_>, _> = files.iter().map(|file| stamp(file, directory)).collect();
    let stamps = match stamps {
        Ok(stamps) => stamps,
        Err(error) => return Look { stamps: None, made: Err(error) },
    };
    if let Some(known) = known.filter(|known| known.stamps.as_ref() == Some(&stamps)) {
        return known;
    }
    let contents: Result<Vec<_>, _> = files.iter().map(read).collect();
    match contents {
        Err(error) => Look { stamps: None, made: Err(error) },
        Ok(contents) => Look { stamps: Some(stamps), made: make(&contents).map_err(CheckError::from) },
    }
}

fn unreadable((what, path): &NamedFile, error: &io::Error) -> CheckError {
    if let Some(shortage) = Shortage::of(error) {
        return CheckError::Own(shortage);
    }
    CheckError::Backend(match error.kind() {
        io::ErrorKind::NotFound => format!("{what} {path}: no such file"),
        io::ErrorKind::PermissionDenied => format!("{what} {path}: permission denied"),
        _ => format!("{what} {path}: {error}"),
    })
}

/// Whether a path, as it is written, is below the directory. Links below it lead where this machine's owner wants. This is
/// checked before the file is opened: a user who may write pools must not learn which files exist elsewhere.
fn is_below(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory) && !path.components().any(|part| part == Component::ParentDir)
}

fn stamp(file: &NamedFile, directory: &Path) -> Result<Stamp, CheckError> {
    let (what, path) = file;
    if !is_below(Path::new(&**path), directory) {
        let directory = directory.display();
        return Err(CheckError::Backend(format!(
            "{what} {path}: is not below {directory}, the check_directory of this member's configuration"
        )));
    }
    let about = std::fs::metadata(&**path).map_err(|error| unreadable(file, &error))?;
    if !about.is_file() {
        return Err(format!("{what} {path}: not a file").into());
    }
    if about.len() > FILE_MAX {
        return Err(format!("{what} {path}: has over {FILE_MAX} bytes").into());
    }
    Ok([about.ino().cast_signed(), about.size().cast_signed(), about.ctime(), about.ctime_nsec()])
}

fn read(file: &NamedFile) -> Result<Secret<Vec<u8>>, CheckError> {
    let mut contents = Vec::new();
    let read = File::open(&*file.1).and_then(|file| file.take(FILE_MAX).read_to_end(&mut contents));
    read.map_err(|error| unreadable(file, &error))?;
    Ok(Secret::new(contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_member_lacks_to_read_a_file_is_no_fault_of_the_file() {
        let file: NamedFile = ("HTTP: token", "/etc/trestle/checks/token".into());
        let error = |number| unreadable(&file, &io::Error::from_raw_os_error(number));
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert!(matches!(error(number), CheckError::Own(_)), "{number}");
        }
        for (number, words) in [
            (libc::ENOENT, "HTTP: token /etc/trestle/checks/token: no such file"),
            (libc::EACCES, "HTTP: token /etc/trestle/checks/token: permission denied"),
            (libc::EIO, "HTTP: token /etc/trestle/checks/token: Input/output error (os error 5)"),
        ] {
            assert!(matches!(error(number), CheckError::Backend(said) if said == words), "{number}");
        }
    }

    #[test]
    fn a_path_is_below_the_directory_as_it_is_written() {
        let below = |path: &str| is_below(Path::new(path), Path::new("/etc/trestle/checks"));
        assert!(below("/etc/trestle/checks/a.pem") && below("/etc/trestle/checks/x/../a").eq(&false));
        for path in ["/etc/shadow", "/etc/trestle/checks/../key", "/etc/trestle/checksum", "checks/a", ""] {
            assert!(!below(path), "{path}");
        }
    }
}
