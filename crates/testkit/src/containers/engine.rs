//! The engine, by its own command: tests do what users do.

use std::process::Command;
use std::sync::OnceLock;

use super::leftovers;
use crate::tools::{has_tools, skip};

/// Runs `docker`; answers what it printed.
///
/// # Errors
/// What it said.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    said(Command::new("docker").args(arguments))
}

/// Runs a command to its end; answers what it printed.
///
/// # Errors
/// What it said.
pub(super) fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{command:?}: {}\n{}\n{}", output.status, text(&output.stderr), text(&output.stdout)))
}

/// Compose's command: a part of Docker's own from its second version on, and a program of its own before.
pub(super) fn compose() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let answers = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        match () {
            () if answers("docker", &["compose", "version"]) => Some("docker compose"),
            () if answers("docker-compose", &["version"]) => Some("docker-compose"),
            () => None,
        }
    })
}

/// Whether there are an engine, Compose, and root, whom frames can be seen by; if not, [`skip`]s with the reason.
pub fn is_available() -> bool {
    if !has_tools(&["docker", "ldd", "strip", "tcpdump"]) {
        return false;
    }
    if !crate::is_root() {
        skip("seeing who answers in a network of containers takes root");
        return false;
    }
    if let Err(why) = docker(&["version", "--format", "{{.Server.Version}}"]) {
        skip(&format!("no Docker engine answers: {why}"));
        return false;
    }
    if compose().is_none() {
        skip("neither \"docker compose\" nor docker-compose is installed; .ci/run names the Debian package");
        return false;
    }
    leftovers::watch();
    true
}
