//! File descriptors: each proxied connection takes two.

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
