//! The `trestle` command: its arguments, its output, and the way it finds a member that answers.
//!
//! The binary only calls [`run`]. Everything below is private, so that the command line is the interface.

mod args;
mod commands;
mod document;
mod endpoint;
mod error;
mod escape;
mod input;
mod output;
mod pages;
mod session;
mod table;
mod top;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::error::Error;
use crate::output::Terminal;
use crate::session::Session;

/// Runs the command with these arguments, the first of which is the program's name. Data goes to standard output,
/// everything else to standard error.
///
/// The exit code is 0 when it was done (or when the reader of the output went away), 1 when it failed, 2 when the arguments
/// are wrong and nothing was sent, and 4 when what was to be made is there already.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_on(args, Terminal::standard())
}

fn run_on(args: impl IntoIterator<Item = OsString>, mut terminal: Terminal) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(refused) => return explain(&refused, &mut terminal),
    };
    match execute(cli, &mut terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Output(cause)) if cause.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            terminal.note(error.render());
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(cli: Cli, terminal: &mut Terminal) -> Result<(), Error> {
    let mut session = Session::new(&cli.global, terminal)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(Box::pin(cli.command.run(&mut session)))
}

/// Prints clap's own answer: help and version are data, mistakes are not.
fn explain(refused: &clap::Error, terminal: &mut Terminal) -> ExitCode {
    let text = refused.render();
    // A reader that has gone away wants no help any more, and there is nobody else to tell.
    if refused.use_stderr() {
        let _ = write!(terminal.err, "{text}");
        return ExitCode::from(error::USAGE);
    }
    let _ = write!(terminal.out, "{text}").and_then(|()| terminal.out.flush());
    ExitCode::SUCCESS
}
