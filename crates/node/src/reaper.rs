//! A member that is process 1 of its container inherits every process whose parent has ended, and must wait for them: nobody
//! else does, and each that has ended keeps its number for ever otherwise (pid_namespaces(7)).

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

/// Signals of several children may come as one, so it looks from time to time all the same.
const LOOK: Duration = Duration::from_secs(1);

/// The children that somebody else waits for.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process that its caller waits for, and then [`forget`]s.
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    // Held over the start, so that nobody takes it for an orphan before it is known.
    let mut own = own();
    let child = command.spawn()?;
    own.extend(child.id().and_then(|id| i32::try_from(id).ok()));
    Ok(child)
}

/// It has been waited for.
pub(crate) fn forget(process: Pid) {
    own().remove(&process.as_raw_nonzero().get());
}

/// Reaps orphans for as long as this process runs; returns at once where it is not process 1.
pub async fn reap_orphans() {
    if getpid().as_raw_nonzero().get() != 1 {
        return;
    }
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return warn!(%error, "the ends of other processes are not heard of"),
    };
    loop {
        reap();
        let _ = tokio::time::timeout(LOOK, ended.recv()).await;
    }
}

/// Reaps the orphans that have ended.
fn reap() {
    let own = own();
    let orphans = children().into_iter().filter(|child| !own.contains(&child.process.as_raw_nonzero().get()));
    for orphan in orphans.filter(|child| child.has_ended) {
        // It is nobody else's to wait for.
        let _ = waitpid(Some(orphan.process), WaitOptions::NOHANG);
    }
}

/// A process whose parent is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildProcess {
    pub(crate) process: Pid,
    /// It waits to be waited for.
    pub(crate) has_ended: bool,
}

/// All processes whose parent is this one.
pub(crate) fn children() -> Vec<ChildProcess> {
    let me = getpid();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let child = |entry: std::fs::DirEntry| {
        let process = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        // One that has been waited for meanwhile has none.
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (state, parent) = state_and_parent(&stat)?;
        (parent == me.as_raw_nonzero().get()).then_some(ChildProcess { process, has_ended: state == "Z" })
    };
    processes.flatten().filter_map(child).collect()
}

/// Two fields of proc_pid_stat(5). The name of the program before them stands in parentheses and may have any in it.
fn state_and_parent(stat: &str) -> Option<(&str, i32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn state_and_parent_are_found_behind_any_name() {
        assert_eq!(state_and_parent("12 (a) S) Z) R 7 12 12 0"), Some(("R", 7)));
        assert_eq!(state_and_parent("12 (a"), None);
    }

    #[test]
    fn a_child_is_seen_until_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let found = || children().into_iter().find(|c| c.process.as_raw_nonzero().get() == id);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !found().unwrap().has_ended {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(found(), None);
    }
}
