//! Freezes processes by a control group: unlike SIGSTOP, nothing that they or their parents do can undo or see it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::host::{Host, PREFIX};
use crate::wait::wait_for;

/// A control group with all processes of one host, which can be frozen.
#[derive(Debug)]
pub struct Freezer {
    root: PathBuf,
    group: PathBuf,
}

/// Where control groups of the second version are mounted.
pub(super) fn root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mount.filter(|words| words.get(2) == Some(&"cgroup2")).find_map(|words| words.get(1).map(PathBuf::from))
}

/// Thaws a group, moves its processes back to `root`, and removes it. Whatever fails was not there any more.
pub(super) fn dissolve(root: &Path, group: &Path) {
    let _ = std::fs::write(group.join("cgroup.freeze"), "0");
    for id in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        let _ = std::fs::write(root.join("cgroup.procs"), id);
    }
    let _ = std::fs::remove_dir(group);
}

impl Freezer {
    /// Puts all processes of a host into a group of their own, which still runs.
    ///
    /// # Errors
    /// Why control groups cannot be used here.
    ///
    /// # Panics
    /// When a process cannot be put into the group.
    pub fn around(host: &Host) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = root().ok_or("control groups of the second version are not mounted")?;
        let name = format!("{PREFIX}{}-f{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let group = root.join(name);
        std::fs::create_dir(&group).map_err(|error| format!("cannot make {}: {error}", group.display()))?;
        let freezer = Self { root, group };
        if !freezer.group.join("cgroup.freeze").exists() {
            return Err(format!("{} cannot be frozen", freezer.group.display()));
        }
        for id in host.processes() {
            std::fs::write(freezer.group.join("cgroup.procs"), id.to_string()).unwrap();
        }
        Ok(freezer)
    }

    /// Freezes the group and returns when it stands still, or lets it go on.
    ///
    /// # Panics
    /// When the kernel does not within 10 s.
    pub fn freeze(&self, frozen: bool) {
        let state = u8::from(frozen);
        std::fs::write(self.group.join("cgroup.freeze"), state.to_string()).unwrap();
        wait_for("the control group's state", Duration::from_secs(10), || {
            let events = std::fs::read_to_string(self.group.join("cgroup.events")).unwrap();
            if events.lines().any(|line| line == format!("frozen {state}")) { Ok(()) } else { Err(events) }
        });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        dissolve(&self.root, &self.group);
    }
}
