//! The `trestle` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    trestle_ctl::run(std::env::args_os())
}
