//! Arguments that commands share.

use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::commands::Command;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "trestle",
    version,
    about = "Manages a Trestle cluster through any of its members",
    disable_help_subcommand = true,
    color = clap::ColorChoice::Never,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Admin addresses of members, tried in order until one answers
    #[arg(
        long,
        global = true,
        env = "TRESTLE_ENDPOINT",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7480",
        help_heading = "Global options"
    )]
    pub(crate) endpoint: Vec<String>,
    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
    /// How long one call may take, with all its attempts
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = timeout,
        help_heading = "Global options"
    )]
    pub(crate) timeout: Duration,
}

/// Options of commands that change a pool, backend or listener.
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Wait until every member that can be reached has the change in force
    #[arg(long)]
    pub(crate) wait: bool,
    /// Say what would happen and change nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    /// Name of this request: repeated with the same id, it is applied once [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

/// Options of commands that change who is a member.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until every member that can be reached has the change in force
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Options of commands that read.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Take what the member that answers knows: works without a leader, and may be stale
    #[arg(long)]
    pub(crate) local: bool,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    Table,
    /// A JSON document
    Json,
    /// A YAML document
    Yaml,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(crate::input::DURATION_RULE.to_owned()),
    }
}
