//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Permissions of a new file: it names clients, which is not for everybody to read.
const MODE: u32 = 0o640;

/// Least time between two complaints about the same file.
const COMPLAIN: Duration = Duration::from_secs(60);

/// A file or standard output. Whatever goes wrong is told in the daemon's log now and then, and stops nothing.
pub(super) struct Sink {
    path: Option<PathBuf>,
    file: Option<File>,
    /// The last write ended within a line.
    torn: bool,
    complained: Option<Instant>,
}

impl Sink {
    /// `None` for standard output. Opens nothing yet.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, file: None, torn: false, complained: None }
    }

    /// Opens the file, so that it is there before the first line; waits until a named pipe has a reader.
    pub(super) fn open(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| self.file.is_none()) else { return };
        match OpenOptions::new().append(true).create(true).mode(MODE).open(path) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            Err(error) => self.complain("opened", &error),
        }
    }

    /// Opens what is at the path now.
    pub(super) fn reopen(&mut self) {
        self.file = None;
        self.open();
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// How many of them were not written to their ends.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), u64> {
        self.open();
        let (written, result) = match (&self.path, &mut self.file) {
            (None, _) => write_all(&mut io::stdout().lock(), self.torn, lines),
            (_, Some(file)) => write_all(file, self.torn, lines),
            // The complaint was made when it could not be opened.
            (_, None) => return Err(line_breaks(lines)),
        };
        if written > 0 {
            self.torn = lines.get(written - 1) != Some(&b'\n');
        }
        let Err(error) = result else { return Ok(()) };
        self.complain("written to", &error);
        // Opened anew for the next lines: a pipe may have another reader by then.
        self.file = None;
        Err(line_breaks(lines.get(written..).unwrap_or_default()))
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if self.complained.is_some_and(|last| last.elapsed() < COMPLAIN) {
            return;
        }
        self.complained = Some(Instant::now());
        let path = self.path.as_ref().map_or_else(|| "standard output".into(), |path| path.to_string_lossy());
        tracing::warn!(%path, %error, "the access log cannot be {what}; lines are dropped until it can");
    }
}

fn line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Writes `lines`, after a line break where the one before was `torn`, and says how many of their bytes were taken.
fn write_all(out: &mut impl Write, torn: bool, lines: &[u8]) -> (usize, io::Result<()>) {
    if torn && let Err(error) = out.write_all(b"\n") {
        return (0, Err(error));
    }
    let mut written = 0;
    while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, out.flush())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match bytes.len().min(self.1 - self.0.len()) {
                0 => Err(io::ErrorKind::StorageFull.into()),
                count => {
                    self.0.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_says_how_far_it_came() {
        let mut disk = Disk(Vec::new(), 6);
        let (written, result) = write_all(&mut disk, false, b"one\ntwo\n");
        assert_eq!((written, result.unwrap_err().kind()), (6, io::ErrorKind::StorageFull));
        disk.1 = 100;
        assert!(write_all(&mut disk, true, b"three\n").1.is_ok());
        assert_eq!(disk.0, b"one\ntw\nthree\n");
    }

    #[test]
    fn a_file_that_was_moved_is_left_to_its_mover() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access"), dir.path().join("access.1"));
        let mut sink = Sink::new(Some(path.clone()));
        sink.write(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        sink.write(b"two\n").unwrap();
        sink.reopen();
        sink.write(b"three\n").unwrap();
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/there");
        let mut sink = Sink::new(Some(path.clone()));
        assert_eq!(sink.write(b"one\ntwo\n"), Err(2));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(sink.write(b"three\n"), Ok(()));
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        // Every write to this device fails with ENOSPC (full(4)).
        assert_eq!(Sink::new(Some("/dev/full".into())).write(b"a\nb\n"), Err(2));
    }
}
