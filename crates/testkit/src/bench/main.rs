//! `cargo xtask bench control`: the control plane's figures, measured on real release processes, with etcd in the same
//! run as opponent for the write figures. `cargo xtask bench soak [MINUTES]`: a member at its limits for a long time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod control;
mod etcd;
mod figures;
mod soak;
mod writes;

use std::path::PathBuf;

/// The daemon beside this program, as cargo puts it there.
fn trestled() -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name("trestled");
    assert!(path.is_file(), "{} is not there; start this with cargo xtask bench control", path.display());
    path
}

fn usage() -> ! {
    eprintln!("usage: trestle-bench control | soak [MINUTES]");
    std::process::exit(2);
}

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("control") => control::run(&trestled()).await,
        Some("soak") => {
            let minutes = std::env::args().nth(2).map_or(Ok(20), |minutes| minutes.parse());
            let Ok(minutes) = minutes else { usage() };
            if !soak::run(&trestled(), minutes).await {
                std::process::exit(1);
            }
        }
        _ => usage(),
    }
}
