//! Arguments that commands share.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::duration::DURATION_RULE;

/// Options that every command takes. They are hidden, because [`crate::help`] shows them once.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Admin addresses of members, or unix:/PATH of an admin socket, tried in order until one answers [default: those of the
    /// context, else unix:/run/trestle/admin.sock where you may use that, else 127.0.0.1:7480; or TRESTLE_ENDPOINT]
    #[arg(
        long,
        global = true,
        env = "TRESTLE_ENDPOINT",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        hide = true
    )]
    pub(crate) endpoint: Vec<String>,
    /// Who to be, by TLS, and in which cluster; with a slash, a file of contexts, of which the current one is taken [default: the
    /// current context of ~/.config/trestle/config.toml unless endpoints are named; or TRESTLE_CONTEXT]
    #[arg(long, global = true, env = "TRESTLE_CONTEXT", value_name = "NAME|FILE", hide = true)]
    pub(crate) context: Option<String>,
    /// Form of the output: table, json or yaml
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table", hide = true)]
    pub(crate) output: Format,
    /// How long one call may take, with all its attempts
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = timeout,
        hide = true
    )]
    pub(crate) timeout: Duration,
}

/// No heading. clap puts options below the heading that others before them have set, unless they set their own.
pub(crate) const NO_HEADING: Option<&str> = None;

/// Options of commands that change a pool, backend or listener.
#[derive(Debug, Args)]
#[command(next_help_heading = NO_HEADING)]
pub(crate) struct WriteArgs {
    /// Wait until every member that can be reached has the change in force
    #[arg(long)]
    pub(crate) wait: bool,
    /// Say what would happen and change nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    /// Name of this request, a random one unless given: repeated with the same id, it is applied once
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

/// Options of commands that create something.
#[derive(Debug, Args)]
#[command(next_help_heading = NO_HEADING)]
pub(crate) struct CreateArgs {
    /// Succeed, and change nothing, where it is there already with the settings that are given; fail with exit code 4 where a
    /// setting differs
    #[arg(long)]
    pub(crate) if_absent: bool,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
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

/// The form that a command line asks for, when it could not be parsed.
pub(crate) fn format_of(args: &[OsString]) -> Format {
    let mut args = args.iter().skip(1).map_while(|arg| arg.to_str()).take_while(|arg| *arg != "--");
    let mut format = Format::Table;
    while let Some(arg) = args.next() {
        let value = match arg {
            "-o" | "--output" => args.next(),
            _ => arg
                .strip_prefix("--output=")
                .or_else(|| arg.strip_prefix("-o="))
                .or_else(|| arg.strip_prefix("-o")),
        };
        format = value.and_then(|value| Format::from_str(value, false).ok()).unwrap_or(format);
    }
    format
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(DURATION_RULE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_known_though_the_rest_is_wrong() {
        let format = |line: &str| format_of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in [
            "trestle -o json x",
            "trestle x -ojson",
            "trestle --output=json",
            "trestle --output json -o=json",
        ] {
            assert_eq!(format(line), Format::Json, "{line}");
        }
        for line in ["trestle x", "trestle -o", "trestle -o nothing", "trestle -- -o json"] {
            assert_eq!(format(line), Format::Table, "{line}");
        }
        assert_eq!(format("trestle frobnicate -o yaml"), Format::Yaml);
    }
}
