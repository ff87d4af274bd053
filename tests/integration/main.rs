//! Real members, real clients, real servers: what users do, and what goes wrong while they do it.
//!
//! A new test belongs in the file whose first line says what it shows. Each test has loopback addresses of its own, so
//! all of them may run at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod access_log;
mod addresses;
mod authorities;
mod automation;
mod balancing;
mod callers;
mod checks;
mod clocks;
mod command_line;
mod concurrent_updates;
mod connections;
mod control_plane;
mod databases;
mod deployed;
mod dev;
mod endpoints;
mod events;
mod failover;
mod failure;
mod formats;
mod founding;
mod greetings;
mod guests;
mod haproxy;
mod hostile_members;
mod identities;
mod initial_members;
mod joining;
mod listeners;
mod local_socket;
mod membership;
mod metadata;
mod observing;
mod outside;
mod places;
mod policies;
mod ports;
mod programs;
mod recipes;
mod recovering;
mod refusals;
mod removal;
mod resources;
mod resting;
mod scale;
mod scripts;
mod secrets;
mod securing;
mod shutdown;
mod startup;
mod status;
mod store;
mod top;
mod transport;
mod vips;
mod waiting;
mod watched;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The daemon under test.
fn trestled() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_trestled"))
}

/// Where both programs are, for PATH.
fn programs() -> PathBuf {
    trestled().parent().unwrap().to_owned()
}

/// What a finished program left.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Finished {
    /// # Panics
    /// When the program failed.
    fn expect_success(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs the command line against these endpoints.
fn trestle(endpoints: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    finish(command.env("TRESTLE_ENDPOINT", endpoints).args(arguments))
}

/// Copies files, with the directories that they are in.
fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &place),
            false => drop(std::fs::copy(entry.path(), place).unwrap()),
        }
    }
}
