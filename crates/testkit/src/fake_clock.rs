//! A clock that shows what a test wants, by libfaketime. Monotonic time stays what it is: timers of Raft go by that, and a machine whose
//! clock is set has the same.

use std::ffi::OsString;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::tools::skip;

/// The clock of whatever runs with its variables.
#[derive(Debug)]
pub struct FakeClock {
    dir: TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that is right. Without libfaketime, [`skip`]s.
    pub fn new() -> Option<Self> {
        // Debian has it below the directory of the architecture.
        let below = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library = below.map(|entry| entry.path().join("faketime").join("libfaketimeMT.so.1"));
        let Some(library) = library.into_iter().find(|library| library.is_file()) else {
            skip("faketime is not installed; .ci/run names the Debian packages");
            return None;
        };
        let clock = Self { dir: TempDir::new().unwrap(), library };
        clock.set(0);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }

    /// Sets it so many seconds before or behind the right time. Processes that run notice within a second or two.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, ahead: i64) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("{ahead:+}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// What the environment of a process must have.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}
