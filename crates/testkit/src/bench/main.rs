//! `cargo xtask bench control`: the control plane's figures, measured on real release processes, with etcd in the same
//! run as opponent for the write figures. `cargo xtask bench identities`: what TLS costs it. `cargo xtask bench relay`: the data plane's, with HAProxy and nginx. `cargo xtask
//! bench soak [MINUTES]`: a member at its limits for a long time. `cargo xtask bench attacks [NAME]`: what others notice of attacks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod attacks;
mod calm;
mod control;
mod etcd;
mod failover;
mod figures;
mod identities;
mod relay;
mod soak;
mod writes;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The daemon beside this program, as cargo puts it there.
fn trestled() -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name("trestled");
    assert!(path.is_file(), "{} is not there; start this with cargo xtask bench control", path.display());
    path
}

/// A program in `dir` that runs `trestled` with so many open files.
fn limited(trestled: &Path, open_files: usize, dir: &Path) -> PathBuf {
    let path = dir.join("trestled");
    let script = format!("#!/bin/sh\nulimit -n {open_files}\nexec {} \"$@\"\n", trestled.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// On one thread, so that a load does not run on both cores of a small machine at once.
fn alone<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn usage() -> ! {
    eprintln!(
        "usage: trestle-bench control | identities | relay [--pairs N] [--only PART] | soak [MINUTES] | failover [--trials N] [--only FAULT] | calm [MINUTES] | attacks [NAME]"
    );
    std::process::exit(2);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (what, rest) = arguments.split_first().map_or(("", &[][..]), |(what, rest)| (what.as_str(), rest));
    match what {
        "control" => tokio::runtime::Runtime::new().unwrap().block_on(control::run(&trestled())),
        "identities" => tokio::runtime::Runtime::new().unwrap().block_on(identities::run(&trestled())),
        "relay" => tokio::runtime::Runtime::new().unwrap().block_on(relay::run(&trestled(), rest)),
        "failover" => failover::run(&trestled(), rest),
        // The two ends of the relay's figures, which this program starts itself.
        "relay-backend" => alone(relay::backend::serve(rest[0].parse().unwrap())),
        "relay-client" => alone(relay::load::run(rest)),
        "calm" => {
            let Ok(minutes) = rest.first().map_or(Ok(30), |minutes| minutes.parse()) else { usage() };
            if !calm::run(&trestled(), minutes) {
                std::process::exit(1);
            }
        }
        "attacks" => {
            if !attacks::run(&trestled(), rest.first().map(String::as_str)) {
                std::process::exit(1);
            }
        }
        "soak" => {
            let minutes = rest.first().map_or(Ok(20), |minutes| minutes.parse());
            let Ok(minutes) = minutes else { usage() };
            if !tokio::runtime::Runtime::new().unwrap().block_on(soak::run(&trestled(), minutes)) {
                std::process::exit(1);
            }
        }
        _ => usage(),
    }
}
