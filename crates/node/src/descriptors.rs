//! File descriptors: how many this process may have, and how many of them the data plane may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit of open files to the most that the system allows it, and answers the limit; `None` for
/// no limit. What cannot be raised stays as it is: the data plane pauses accepting when descriptors run out.
pub fn raise_limit() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let most = Rlimit { current: now.maximum, maximum: now.maximum };
        // Refused only where the limit changed in between.
        let _ = setrlimit(Resource::Nofile, most);
    }
    getrlimit(Resource::Nofile).current
}

/// Bounds of what is kept for everything but the data plane's sockets: checks have at most 1024 at a time, peers, API
/// clients, files and runtimes seldom more than 200.
const RESERVE_MIN: u64 = 256;
const RESERVE_MAX: u64 = 2048;

/// How many of `limit` descriptors listening sockets and proxied connections may have: all but a twentieth, of which 256
/// to 2048 make a reserve, and never less than half.
pub(crate) fn for_connections(limit: u64) -> usize {
    let reserve = (limit / 20).clamp(RESERVE_MIN, RESERVE_MAX).min(limit / 2);
    usize::try_from(limit - reserve).unwrap_or(usize::MAX)
}

/// As [`for_connections`], with this process's limit as it is now; `None` for no limit.
pub(crate) fn budget() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(for_connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept() {
        for (limit, connections) in [(0, 0), (100, 50), (1024, 768), (20_000, 19_000), (1_048_576, 1_046_528)]
        {
            assert_eq!(for_connections(limit), connections, "of {limit}");
        }
    }
}
