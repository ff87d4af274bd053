//! Members whose logs nobody reads: a pipe that is full takes no more, and whoever waits for it waits for ever.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use trestle_testkit::lab::Trestle;

use crate::findings::{Findings, Invariant};

/// What a pipe holds (pipe(7)).
const CAPACITY: usize = 65_536;
/// Linux's number for an open that does not wait.
const O_NONBLOCK: i32 = 0o4000;

/// Pipes that take the members' logs.
#[derive(Debug)]
pub(crate) struct BlockedSinks {
    dir: TempDir,
    pipes: Vec<File>,
}

impl BlockedSinks {
    /// Makes a program that writes its log to a pipe beside its configuration file.
    pub(crate) fn new(daemon: &Path) -> Self {
        let dir = TempDir::with_prefix("trestle-sinks-").unwrap();
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in --config) exec {0} \"$@\" >\"$2.pipe\" 2>&1 ;; esac\nexec {0} \"$@\"\n",
            daemon.display()
        );
        let sinks = Self { dir, pipes: Vec::new() };
        std::fs::write(sinks.daemon(), script).unwrap();
        std::fs::set_permissions(sinks.daemon(), Permissions::from_mode(0o755)).unwrap();
        symlink(daemon.with_file_name("trestle"), sinks.dir.path().join("trestle")).unwrap();
        sinks
    }

    /// The program.
    pub(crate) fn daemon(&self) -> PathBuf {
        self.dir.path().join("trestled")
    }

    /// Makes the pipes of members that have not been started, and has them say a lot.
    pub(crate) fn open(&mut self, product: &mut Trestle) {
        for member in &mut product.members {
            let pipe = member.config().with_extension("toml.pipe");
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            // Open for both, so that a writer finds a reader, and for reading only in the end.
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(O_NONBLOCK);
            self.pipes.push(options.open(pipe).unwrap());
            member.log("debug");
        }
    }

    /// Reads what the pipes hold: as much as they can, or it was not shown that anybody could have waited.
    pub(crate) fn were_full(&mut self, findings: &mut Findings) {
        for pipe in &mut self.pipes {
            let mut held = vec![0; CAPACITY];
            // Writes are of whole lines, of which the last one may not have found room.
            let count = pipe.read(&mut held).unwrap_or_default();
            if count < CAPACITY - 4096 {
                findings.add(Invariant::WholeAgain, format!("a pipe holds {count} bytes and was not full"));
            }
        }
    }
}
