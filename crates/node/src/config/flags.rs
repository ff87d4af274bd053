//! The command line of `trestled`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use trestle_model::{Invalid, Violation, Violations};

use super::samples::{self, SAMPLE_BACKEND, SAMPLE_CLIENT};
use super::{Config, KEYS, RawConfig, SettingKey, SettingSource};
use crate::vips::CheckExec;

const ABOUT: &str = "A member of a Trestle cluster: a TCP load balancer that is its own cluster";
const AFTER: &str = "A flag goes before the environment variable, that before the file, and that before the default.\n\
                     TRESTLE_LOG sets what is logged, for example info or trestle_consensus=debug.";

/// Why the command line, the environment and the file come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotConfigured {
    /// They have mistakes; all of them.
    #[error(transparent)]
    Mistakes(#[from] Invalid),
    /// The system does not let the file be read. It may later, so this is no mistake in it.
    #[error("--config {} cannot be read: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
}

impl NotConfigured {
    /// The process's exit code, as in sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Mistakes(_) => 64,       // EX_USAGE
            Self::Unreadable { .. } => 66, // EX_NOINPUT
        }
    }
}

/// Where a token is. It is no argument: those are for everybody of the machine to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// In this file.
    File(PathBuf),
    /// On standard input.
    Stdin,
    /// In the variable `TRESTLE_JOIN_TOKEN`.
    Variable,
}

/// The variable that may have a token.
pub const TOKEN_VARIABLE: &str = "TRESTLE_JOIN_TOKEN";

/// Where the token is: what is named, or else the variable if it is set, the file of the configuration, or standard input.
fn token_source(named: Option<&PathBuf>, config: &Config) -> TokenSource {
    match (named, &config.join_token_file) {
        (Some(path), _) if path == Path::new("-") => TokenSource::Stdin,
        (Some(path), _) => TokenSource::File(path.clone()),
        (None, _) if std::env::var_os(TOKEN_VARIABLE).is_some() => TokenSource::Variable,
        (None, Some(path)) => TokenSource::File(path.clone()),
        (None, None) => TokenSource::Stdin,
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a member.
    Run(Box<Config>),
    /// Check the configuration and say what it comes to.
    Check(Box<Config>),
    /// Make a cluster of one from a stopped member's data.
    Recover {
        /// The member.
        config: Box<Config>,
        /// Without asking.
        yes: bool,
    },
    /// Enrol this machine with the cluster of a token, and stop.
    Join {
        /// The member that it becomes.
        config: Box<Config>,
        /// Where the token is.
        token: TokenSource,
    },
    /// Make a new founding token.
    FoundingToken {
        /// The file to write it to, unless that is there; printed if none is given.
        out: Option<PathBuf>,
    },
    /// Ask a running member whether it is ready, and stop.
    HealthCheck(Box<Config>),
    /// Run a sample backend.
    SampleBackend {
        /// What it says that it is called.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
    /// Run a client of a sample backend.
    SampleClient {
        /// What it connects to.
        target: SocketAddr,
    },
    /// Run a cluster of three in this process.
    Dev {
        /// Where to keep its data; a directory that is removed at the end if none is given.
        data_dir: Option<PathBuf>,
    },
    /// Run a check program once; a member calls itself so.
    CheckExec(CheckExec),
    /// Remove what members that are gone left in the kernel.
    Scrub,
}

fn flag(key: &SettingKey) -> String {
    key.name.replace(['_', '.'], "-")
}

fn variable(key: &SettingKey) -> String {
    format!("TRESTLE_{}", key.name.to_uppercase().replace('.', "_"))
}

fn arg(key: &'static SettingKey) -> Arg {
    let arg = Arg::new(key.name)
        .long(flag(key))
        .env(variable(key))
        .hide_env_values(true)
        .value_name(key.value)
        .help(key.help);
    match key.name {
        // `--insecure` alone means true.
        "insecure" | "vip.real_time" => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        _ => arg,
    }
}

/// The command line, from the one table of keys.
pub fn command() -> Command {
    let file = || {
        Arg::new("config")
            .long("config")
            .env("TRESTLE_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("configuration file, in TOML")
    };
    let check = Arg::new("check-config")
        .long("check-config")
        .action(ArgAction::SetTrue)
        .help("check the configuration, print what it comes to, and stop");
    let kept = Arg::new("dev-data-dir")
        .long("data-dir")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .help("keep the data here [default: a directory that is removed at the end]");
    let dev = Command::new("dev")
        .about("Run three members and two sample backends in this process, on 127.0.0.1 to 127.0.0.3; no privileges needed")
        .arg(kept);
    // Between a member and its operator's check; nobody else calls it.
    let check_exec = Command::new("check-exec").hide(true).args([
        Arg::new("limit").required(true).value_parser(clap::value_parser!(u64)),
        Arg::new("member").required(true),
        Arg::new("program").required(true).value_parser(clap::value_parser!(PathBuf)),
    ]);
    let scrub = Command::new("scrub").about(
        "Remove what members that no longer run left in this machine's kernel: tables of nftables, virtual IPs",
    );
    let founding_token = Command::new("founding-token").about(
        "Print a new founding token, which the initial members of a cluster have in a file each (founding_token_file), and stop",
    );
    let out = Arg::new("out")
        .long("out")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("write it to this file, for its owner alone to read; a file that is there stays as it is");
    let founding_token = founding_token.arg(out);
    let health_check = Command::new("healthcheck")
        .about("Ask the member that runs with this configuration whether it is ready, and stop: exit code 0 or 1")
        .arg(file())
        .args(KEYS.iter().map(arg));
    let yes = Arg::new("yes").long("yes").action(ArgAction::SetTrue).help("do it without asking");
    let recover = Command::new("recover")
        .about("Make a cluster of one from the data of this stopped member, when a quorum is lost for good")
        .args([file(), yes])
        .args(KEYS.iter().map(arg));
    let token = Arg::new("token-file")
        .value_name("TOKEN-FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("file with the token, or - for standard input [default: $TRESTLE_JOIN_TOKEN, join_token_file, standard input]");
    let join = Command::new("join")
        .about("Enrol this machine with a cluster by a token of \"trestle token create\", and stop; start trestled after it")
        .args([file(), token])
        .args(KEYS.iter().map(arg));
    Command::new("trestled")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .args_conflicts_with_subcommands(true)
        .args([file(), check])
        .args(KEYS.iter().map(arg))
        .subcommands([join, founding_token, dev, recover, scrub, health_check, check_exec])
        .subcommands(samples::commands())
}

/// Reads what the command line, the environment and the file give.
///
/// # Errors
/// Every mistake in them, or why the file cannot be read.
pub fn invocation(matches: &ArgMatches) -> Result<Invocation, NotConfigured> {
    if let Some(("check-exec", run)) = matches.subcommand() {
        return Ok(Invocation::CheckExec(CheckExec {
            program: run.get_one::<PathBuf>("program").cloned().unwrap_or_default(),
            limit_ms: run.get_one::<u64>("limit").copied().unwrap_or_default(),
            member: run.get_one::<String>("member").cloned().unwrap_or_default(),
        }));
    }
    if let Some(("dev", dev)) = matches.subcommand() {
        return Ok(Invocation::Dev { data_dir: dev.get_one::<PathBuf>("dev-data-dir").cloned() });
    }
    if let Some(("founding-token", made)) = matches.subcommand() {
        return Ok(Invocation::FoundingToken { out: made.get_one::<PathBuf>("out").cloned() });
    }
    if let Some((SAMPLE_BACKEND, given)) = matches.subcommand() {
        let (name, address) = samples::backend(given);
        return Ok(Invocation::SampleBackend { name, address });
    }
    if let Some((SAMPLE_CLIENT, given)) = matches.subcommand() {
        return Ok(Invocation::SampleClient { target: samples::target(given) });
    }
    if let Some(("healthcheck", of)) = matches.subcommand() {
        return Ok(Invocation::HealthCheck(Box::new(config(of)?)));
    }
    if matches.subcommand_matches("scrub").is_some() {
        return Ok(Invocation::Scrub);
    }
    if let Some(("recover", recover)) = matches.subcommand() {
        return Ok(Invocation::Recover { config: Box::new(config(recover)?), yes: recover.get_flag("yes") });
    }
    if let Some(("join", join)) = matches.subcommand() {
        let config = Box::new(config(join)?);
        let token = token_source(join.get_one::<PathBuf>("token-file"), &config);
        return Ok(Invocation::Join { config, token });
    }
    let config = Box::new(config(matches)?);
    Ok(if matches.get_flag("check-config") { Invocation::Check(config) } else { Invocation::Run(config) })
}

/// The configuration that the arguments, the environment and the file come to.
fn config(matches: &ArgMatches) -> Result<Config, NotConfigured> {
    let mut v = Violations::new();
    let mut given = match matches.get_one::<PathBuf>("config") {
        Some(path) => read(path, &mut v)?,
        None => RawConfig::default(),
    };
    for key in KEYS {
        let Some(text) = matches.get_one::<String>(key.name) else {
            continue;
        };
        let source = match matches.value_source(key.name) {
            Some(ValueSource::EnvVariable) => SettingSource::Variable(variable(key)),
            _ => SettingSource::Flag(format!("--{}", flag(key))),
        };
        let texts = if key.list {
            text.split(',').map(|part| part.trim().to_owned()).collect()
        } else {
            vec![text.clone()]
        };
        given.set(key, texts, source);
    }
    Ok(Config::check(&given, v)?)
}

fn read(path: &Path, v: &mut Violations) -> Result<RawConfig, NotConfigured> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(RawConfig::from_toml(path, &text, v)),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NotConfigured::Unreadable { path: path.to_owned(), error })
        }
        Err(error) => {
            let rule = format!("cannot be read: {error}");
            Err(Invalid(vec![Violation::new("--config", path.display(), rule)]).into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn keys_of_tables_have_flags_and_variables_too() {
        let key = KEYS.iter().find(|key| key.name == "vip.check_rise").unwrap();
        assert_eq!(
            (flag(key), variable(key)),
            ("vip-check-rise".to_owned(), "TRESTLE_VIP_CHECK_RISE".to_owned())
        );
    }

    #[test]
    fn a_flag_goes_before_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "name = \"file\"\nworkers = 2\njoin = [\"a:1\", \"b:2\"]\n").unwrap();
        let path = file.path().to_str().unwrap();
        let args = ["trestled", "--config", path, "--name", "flag", "--insecure", "--vip-check-fall", "7"];
        let matches = command().try_get_matches_from(args).unwrap();
        let Invocation::Run(config) = invocation(&matches).unwrap() else { unreachable!() };
        assert_eq!(config.name.as_str(), "flag");
        assert_eq!(config.workers.get(), 2);
        assert_eq!(config.join.len(), 2);
        assert!(config.insecure);
        assert_eq!(config.vip.check_fall.get(), 7);
    }
}
