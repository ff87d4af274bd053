//! `trestle completions`.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Cli;
use crate::error::Error;
use crate::session::Session;

/// Options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    shell: Known,
}

/// Shells that there are scripts for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

impl CompletionsArgs {
    pub(super) fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let shell = match self.shell {
            Known::Bash => Shell::Bash,
            Known::Zsh => Shell::Zsh,
            Known::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        // Into memory first: the generator panics when its writer fails.
        // They are hidden from help alone.
        let mut command = Cli::command().mut_args(|arg| arg.hide(false));
        clap_complete::generate(shell, &mut command, "trestle", &mut script);
        session.terminal.data(&String::from_utf8_lossy(&script))
    }
}
