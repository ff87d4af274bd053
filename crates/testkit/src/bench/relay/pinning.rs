//! Which processor everybody runs on.
//!
//! Where the scheduler puts three busy processes on two processors decides more than what the proxy does: two HAProxys of
//! one configuration then differed by 20 % in what bulk costs them, and by 4 % once they were pinned.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::Duration;

use trestle_testkit::{tool, wait_for};

/// The proxies', which take turns there, and, but for bulk, the backend's.
pub(super) const SERVERS: &str = "0";
/// The clients', which are never what the others wait for. With the backend beside them both processors were busy: the faster
/// a proxy was, the fewer events it found at a time, and what it cost followed the pace of the clients. One of 13.5 calls for
/// each connection then took 15.5.
pub(super) const CLIENTS: &str = "1";

static POSSIBLE: LazyLock<bool> =
    LazyLock::new(|| tool("taskset").is_some() && available_parallelism().is_ok_and(|count| count.get() > 1));

/// Whether this machine has two processors, and taskset(1) to choose between them.
pub(super) fn is_possible() -> bool {
    *POSSIBLE
}

/// Keeps all threads of a process on `processor`, if that is possible.
pub(super) fn pin(id: u32, processor: &str) {
    if !is_possible() {
        return;
    }
    // It fails when a thread ends meanwhile.
    wait_for("pinning", Duration::from_secs(5), || {
        let output =
            Command::new("taskset").args(["-a", "-c", "-p", processor, &id.to_string()]).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
}

/// A command that runs on `processor`, if that is possible.
pub(super) fn command(program: impl AsRef<OsStr>, processor: &str) -> Command {
    if !is_possible() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", processor]).arg(program);
    command
}
