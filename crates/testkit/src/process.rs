//! A process that ends with its handle, and whose output is kept.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

/// Lines of a log that a failing test prints.
const TAIL: usize = 60;

/// A running process, or one that has run.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it writes is appended to the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(what: impl Into<String>, command: &mut Command, log: &Path) -> Self {
        let what = what.into();
        let out = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Self { what, child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many files it may have open: the soft limit, as it is now.
    pub fn open_files_max(&self) -> u64 {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap_or(u64::MAX)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        // Fails only when it has been waited for already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.what));
    }

    /// Asks it to stop with SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops it with SIGSTOP: it lives and does nothing, while the kernel still takes its connections.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// As [`Process::freeze`], unless it has ended.
    pub fn freeze_if_running(&mut self) {
        if self.status().is_none() {
            self.freeze();
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When `limit` passes.
    pub fn exited(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("end of {}", self.what);
        wait_for(&what, limit, || self.child.try_wait().unwrap().ok_or("it still runs"))
    }

    /// The exit status, once it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// All that it has written.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The id of a child that was not waited for cannot belong to another process.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            eprintln!("--- end of the output of {} ---\n{}\n---", self.what, tail.join("\n"));
        }
    }
}
