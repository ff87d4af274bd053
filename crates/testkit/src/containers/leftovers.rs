//! What test processes leave behind that ended before they could remove it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::engine::docker;

/// What names of a test's containers, networks, volumes and images begin with; the number of its process follows.
const PREFIX: &str = "trestle-test-";

/// What the names of this process begin with.
pub(super) fn prefix() -> String {
    format!("{PREFIX}{}", std::process::id())
}

/// Removes all with names that have `$1` in them. Containers go first: others cannot while they are used. What is not there any more
/// is no failure, and neither is what somebody else removes meanwhile.
const REMOVE: &str = "\
    c=$(docker ps -aq --filter name=$1); [ -z \"$c\" ] || docker rm --force --volumes $c
    n=$(docker network ls -q --filter name=$1); [ -z \"$n\" ] || docker network rm $n
    v=$(docker volume ls -q --filter name=$1); [ -z \"$v\" ] || docker volume rm --force $v
    i=$(docker images --format '{{.Repository}}:{{.Tag}}' --filter reference=\"$1*\"); [ -z \"$i\" ] || docker rmi --force $i";

/// A shell that does so when its standard input ends.
fn shell(script: &str, prefix: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", prefix]).stdout(Stdio::null()).stderr(Stdio::null());
    shell
}

/// Removes all of this prefix now.
pub(super) fn remove(prefix: &str) {
    let _ = shell(REMOVE, prefix).stdin(Stdio::null()).status();
}

/// Removes what processes have left that are gone, and has a shell wait for the end of this one. Once for a process.
pub(super) fn watch() {
    static WATCHING: OnceLock<Option<Child>> = OnceLock::new();
    WATCHING.get_or_init(|| {
        remove_orphans();
        let script = format!("trap '' INT TERM HUP; cat >/dev/null\n{REMOVE}");
        // It reads a pipe that nobody writes to, whose other end the kernel closes with this process.
        shell(&script, &format!("{}-", prefix())).stdin(Stdio::piped()).spawn().ok()
    });
}

/// The process that something with this name belongs to.
fn owner(name: &str) -> Option<u32> {
    name.split(PREFIX).nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn remove_orphans() {
    let lists: [&[&str]; 4] = [
        &["ps", "-a", "--format", "{{.Names}}", "--filter", "name=trestle-test-"],
        &["network", "ls", "--format", "{{.Name}}", "--filter", "name=trestle-test-"],
        &["volume", "ls", "--format", "{{.Name}}", "--filter", "name=trestle-test-"],
        &["images", "--format", "{{.Repository}}", "--filter", "reference=trestle-test-*"],
    ];
    let names: String = lists.iter().map(|list| docker(list).unwrap_or_default() + "\n").collect();
    let mut owners: Vec<u32> = names.lines().filter_map(owner).collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in owners.into_iter().filter(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
        remove(&format!("{PREFIX}{owner}-"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_process() {
        for (name, wanted) in [
            ("trestle-test-17-0_m1_1", Some(17)),
            ("trestle-test-170-2", Some(170)),
            ("trestle-test-x", None),
            ("trestle_m1_1", None),
        ] {
            assert_eq!(owner(name), wanted, "{name}");
        }
    }
}
