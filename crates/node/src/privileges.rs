//! What this process may do.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};
use trestle_vip::VipError;

use crate::config::Config;

/// Gives up every capability but the three that virtual IPs and low ports take. To be called before any other thread
/// starts, because rights belong to threads.
///
/// # Errors
/// When the kernel refuses; nothing is worse than before then.
pub fn drop_capabilities(config: &Config) -> Result<(), VipError> {
    if config.vip.real_time {
        // Root may allow itself what a service manager allows with LimitRTPRIO; others are told by the lease thread's facts.
        let _ = setrlimit(Resource::Rtprio, Rlimit { current: Some(1), maximum: Some(1) });
    }
    trestle_vip::drop_other_capabilities()
}

/// Gives everything below a directory to the directory's own owner: what root has written there for a member that runs as
/// somebody else must stay that member's. Does nothing for others than root.
pub(crate) fn give_to_owner(dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(owner) = std::fs::metadata(dir)
        && let Err(error) = give(dir, owner.uid(), owner.gid())
    {
        tracing::warn!(%error, dir = %dir.display(), "files could not be given to the directory's owner; see who owns them");
    }
}

fn give(dir: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
        let entry = entry?;
        if (entry.uid(), entry.gid()) != (uid, gid) {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        }
        if entry.is_dir() {
            give(&path, uid, gid)?;
        }
    }
    Ok(())
}
