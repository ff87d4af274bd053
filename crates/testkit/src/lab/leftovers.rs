//! What labs leave behind whose process was killed.

use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use super::host::PREFIX;
use super::{freezer, host};

/// Whether `name` belongs to a lab whose process is gone.
pub(super) fn is_orphan(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    id.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
}

/// Removes namespaces, disks and control groups of labs whose process is gone, with the processes in them.
pub(super) fn remove() {
    let entries = |dir: &Path| {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_orphan(name))
    };
    for namespace in entries(Path::new("/run/netns")) {
        for id in host::inhabitants(&namespace) {
            // It may have ended by itself.
            let _ = kill_process(id, Signal::KILL);
        }
        // Two labs that start at once may both try.
        let _ = Command::new("ip").args(["netns", "delete", &namespace]).output();
    }
    crate::faults::remove_orphans();
    if let Some(root) = freezer::root() {
        entries(&root).for_each(|group| freezer::dissolve(&root, &root.join(group)));
    }
}
