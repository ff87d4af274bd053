//! Programs that some tests need, and what happens without them.

use std::path::PathBuf;
use std::process::Command;

/// Set by CI, where every tool is there: a skipped test would be a gap that nobody sees.
const ALL: &str = "TRESTLE_TEST_ALL";

/// Says that the calling test cannot run here, and why. The caller returns.
///
/// # Panics
/// When the environment variable `TRESTLE_TEST_ALL` is `1`.
pub fn skip(why: &str) {
    assert!(std::env::var(ALL).as_deref() != Ok("1"), "{ALL} is set, but {why}");
    eprintln!("skipped: {why}");
}

/// Whether the test may do what root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where a program on PATH is.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Whether all these programs are on PATH; if not, [`skip`]s with their names.
pub fn has_tools(names: &[&str]) -> bool {
    let missing: Vec<&str> = names.iter().filter(|name| tool(name).is_none()).copied().collect();
    if !missing.is_empty() {
        skip(&format!("{} not installed; .ci/run names the Debian packages", missing.join(", ")));
    }
    missing.is_empty()
}

/// A Python that can import grpc: `TRESTLE_TEST_PYTHON`, Debian's, or the one on PATH. Without one, [`skip`]s.
pub fn python_with_grpc() -> Option<String> {
    let named = std::env::var("TRESTLE_TEST_PYTHON").ok();
    let candidates = named.into_iter().chain(["/usr/bin/python3", "python3"].map(str::to_owned));
    let works = |python: &String| {
        let output = Command::new(python).args(["-c", "import grpc, google.protobuf"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().find(works);
    if found.is_none() {
        skip("no Python with grpc is installed; .ci/run names the Debian packages");
    }
    found
}
