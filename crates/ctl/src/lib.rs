//! The `trestle` command: its arguments, its output, and the way it finds a member that answers.
//!
//! The binary only calls [`run`]. Everything below is private, so that the command line is the interface.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod document;
mod duration;
mod endpoint;
mod error;
mod escape;
mod exit;
mod help;
mod hint;
mod input;
mod kept_context;
mod output;
mod pages;
mod session;
mod table;
mod top;
mod view;
mod wait;
mod write;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::commands::Cli;
use crate::context::{UsedContext, Way};
use crate::error::{Error, usage_document};
use crate::exit::Exit;
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
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = help::command();
    let parsed = command.try_get_matches_from_mut(&args);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(refused) => {
            terminal.format = args::format_of(&args);
            return explain(&refused, hint::hint(&args).as_deref(), &mut terminal).into();
        }
    };
    terminal.format = cli.global.output;
    let exit = match execute(cli, &mut terminal) {
        Ok(()) => Exit::Done,
        Err(Error::Output(cause)) if cause.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            let document = error.document(terminal.request_id.take());
            terminal.fail(&error.render(), &document);
            error.exit()
        }
    };
    exit.into()
}

fn execute(cli: Cli, terminal: &mut Terminal) -> Result<(), Error> {
    let way = if cli.command.calls() { Way::find(&cli.global)? } else { Way::plain(&[])? };
    let used = way.context.clone();
    let mut session = Session::new(&cli.global, way, terminal);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(async {
        let done = Box::pin(cli.command.run(&mut session)).await;
        if let Some(used) = used.filter(|_| session.has_old_authorities()) {
            Box::pin(learn_authorities(&mut session, &used)).await;
        }
        if done.is_ok() {
            Box::pin(session.renew_certificate()).await;
        }
        done
    })
}

/// Keeps the authorities of today in the context. The member that answered was believed, and so is what it says of them. What was asked for is
/// done either way.
async fn learn_authorities(session: &mut Session<'_>, used: &UsedContext) {
    let learned = match commands::believed(session).await {
        Ok(authorities) => used.believe(authorities),
        Err(error) => Err(error),
    };
    if let Err(error) = learned {
        session.terminal.note(format_args!(
            "warning: the cluster believes other authorities by now than the context of user {}, where they are not put in: {error}",
            used.identity.user()
        ));
    }
}

/// Prints clap's own answer: help and version are data, mistakes are not.
fn explain(refused: &clap::Error, hint: Option<&str>, terminal: &mut Terminal) -> Exit {
    let mut text = refused.render().to_string();
    if refused.use_stderr() {
        if let Some(hint) = hint {
            text = text.replacen("\n\nUsage:", &format!("\n\n  tip: {hint}\n\nUsage:"), 1);
        }
        terminal.fail(&text, &usage_document(refused, hint));
        return Exit::Usage;
    }
    // A reader that has gone away wants no help any more, and there is nobody else to tell.
    let _ = write!(terminal.out, "{text}").and_then(|()| terminal.out.flush());
    Exit::Done
}
