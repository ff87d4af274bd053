//! The process between this member and the operator's check program: `trestled check-exec`.
//!
//! What a program leaves behind is adopted by whoever calls itself its reaper (PR_SET_CHILD_SUBREAPER, prctl(2)), wherever it
//! has moved to meanwhile. A process of its own can do that for one run: when the run is over, everything that it still has
//! as a child is the program's, and is killed. It also gives up every right for good, which the member itself cannot.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getpid, getrlimit, kill_process,
    kill_process_group, pidfd_open, set_child_subreaper, setrlimit, wait,
};
use trestle_vip::drop_all_capabilities;

use crate::reaper;

/// Where programs that a script calls are looked for; as in systemd.exec(5).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Soft limit of file descriptors, as a login has: a member raises its own, and some programs close all that they may have.
const DESCRIPTORS: u64 = 1024;
/// How long what was killed may take to go.
const KILLED_MAX: Duration = Duration::from_secs(1);

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckExec {
    /// The program.
    pub program: PathBuf,
    /// How long it may run, in milliseconds.
    pub limit_ms: u64,
    /// The name of the member.
    pub member: String,
}

impl CheckExec {
    /// Runs the program, and writes to standard output why it failed; nothing when it did not. Ends the run early when
    /// standard input ends, because then the member has ended. To be called by a process that does nothing else.
    pub fn run(&self) -> ExitCode {
        if let Err(why) = self.outcome() {
            // The member has ended when it cannot be told.
            let _ = write!(std::io::stdout(), "{why}");
        }
        // Standard output is closed by the end of this process, after everything that the program has left.
        ExitCode::SUCCESS
    }

    fn outcome(&self) -> Result<(), String> {
        let rights =
            |error: &dyn std::fmt::Display| format!("was not run: rights cannot be given up: {error}");
        set_child_subreaper(Some(getpid())).map_err(|error| rights(&error))?;
        drop_all_capabilities().map_err(|error| rights(&error))?;
        let limit = getrlimit(Resource::Nofile);
        let current = Some(limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS)));
        // It may have more then, which is no harm.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
        let mut child = self.start(&self.program).map_err(|error| format!("cannot be run: {error}"))?;
        let ended = ended_in_time(&child, Duration::from_millis(self.limit_ms));
        // While it has not been waited for, nobody else can have its number.
        if let Some(group) = pid(&child) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait();
        end_children();
        match (ended, status) {
            (true, Ok(status)) if status.success() => Ok(()),
            (true, Ok(status)) => Err(format!("ended with {status}")),
            (false, _) => Err(format!("did not end within {:?}", Duration::from_millis(self.limit_ms))),
            (true, Err(error)) => Err(format!("cannot be waited for: {error}")),
        }
    }

    fn start(&self, program: &Path) -> std::io::Result<Child> {
        Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .env("PATH", PATH)
            .env("TRESTLE_MEMBER", &self.member)
            .current_dir("/")
            .process_group(0)
            .spawn()
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Waits for the end of a process; false when the time is over before, or the member has ended.
fn ended_in_time(child: &Child, limit: Duration) -> bool {
    let Some(Ok(process)) = pid(child).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    let (member, deadline) = (std::io::stdin(), Instant::now() + limit);
    loop {
        let mut events =
            [PollFd::new(&process, PollFlags::IN), PollFd::from_borrowed_fd(member.as_fd(), PollFlags::IN)];
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut events, Some(&left)) {
            Ok(0) => return false,
            Ok(_) if !events[0].revents().is_empty() => return true,
            Ok(_) if !events[1].revents().is_empty() => return false,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills and reaps what the program has left, as often as that has left something in turn.
fn end_children() {
    let deadline = Instant::now() + KILLED_MAX;
    loop {
        for child in reaper::children() {
            let _ = kill_process(child.process, Signal::KILL);
        }
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            // None is left, or one cannot be killed now.
            Ok(None) | Err(_) => return,
        }
    }
}
