//! The process between this member and the operator's check program: `trestled check-exec`.
//!
//! Processes that a program leaves behind are adopted by the process that is their subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)),
//! whatever group or session they are in by then. So each run has a process of its own: when the run is over, every child that
//! this process still has was left by the program, and is killed. The process also gives up every right for good, which the
//! member itself cannot do.

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
/// Soft limit of file descriptors, as after a login. A member raises its own limit, and some programs close every descriptor that
/// they could have.
const DESCRIPTORS: u64 = 1024;
/// How long killed processes may take to end.
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
    /// Runs the program, and writes to standard output why it failed, or nothing when it succeeded. Ends the run early when
    /// standard input ends, because then the member has ended. Only a process that does nothing else may call this.
    pub fn run(&self) -> ExitCode {
        if let Err(why) = self.outcome() {
            // Writing fails only when the member has ended.
            let _ = write!(std::io::stdout(), "{why}");
        }
        // The end of this process closes standard output, after everything that the program has left is gone.
        ExitCode::SUCCESS
    }

    fn outcome(&self) -> Result<(), String> {
        let rights =
            |error: &dyn std::fmt::Display| format!("was not run: rights cannot be given up: {error}");
        set_child_subreaper(Some(getpid())).map_err(|error| rights(&error))?;
        drop_all_capabilities().map_err(|error| rights(&error))?;
        let limit = getrlimit(Resource::Nofile);
        let current = Some(limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS)));
        // The program has a higher limit then, which does no harm.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
        let mut child = self.start(&self.program).map_err(|error| format!("cannot be run: {error}"))?;
        let ended = ended_in_time(&child, Duration::from_millis(self.limit_ms));
        // No other process can have its number before it has been waited for.
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

/// Waits for the end of a process. False when the time runs out first, or the member ends.
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

/// Kills and reaps what the program has left, and again what that has left in turn.
fn end_children() {
    let deadline = Instant::now() + KILLED_MAX;
    loop {
        for child in reaper::children() {
            let _ = kill_process(child.process, Signal::KILL);
        }
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            // No child is left, or one cannot be killed now.
            Ok(None) | Err(_) => return,
        }
    }
}
