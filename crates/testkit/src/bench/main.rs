//! `cargo xtask bench control`: the control plane's figures, measured on real release processes, with etcd in the same
//! run as opponent for the write figures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod control;
mod etcd;
mod figures;
mod writes;

use std::path::PathBuf;

/// The daemon beside this program, as cargo puts it there.
fn trestled() -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name("trestled");
    assert!(path.is_file(), "{} is not there; start this with cargo xtask bench control", path.display());
    path
}

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("control") => control::run(&trestled()).await,
        _ => {
            eprintln!("usage: trestle-bench control");
            std::process::exit(2);
        }
    }
}
