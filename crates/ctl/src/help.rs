//! Help as it is shown: examples for each noun, global options once and not below every command, and no defaults where what
//! is not given stays as it is.

use clap::{Command, CommandFactory};

use crate::commands::Cli;
use crate::exit::Exit;

/// Below the help of every command but the first.
const FOLDED: &str = "Global options: see \"trestle --help\"";

/// Examples, by command.
const EXAMPLES: [(&str, &[&str]); 28] = [
    (
        "trestle pool",
        &[
            "trestle pool create web",
            "trestle pool create kube-api --health https --health-path /readyz --if-absent",
            "trestle pool update kube-api --health-path /livez --wait",
            "trestle pool get web -o yaml",
        ],
    ),
    ("trestle pool create", &["trestle pool create kube-api --algorithm least-connections --health tls"]),
    ("trestle pool update", &["trestle pool update web --slow-start 30s --on-down keep"]),
    (
        "trestle backend",
        &[
            "trestle backend add web/a 10.0.0.1:8080",
            "trestle backend list web",
            "trestle backend drain web/a --deadline 5m",
            "trestle backend enable web/a",
        ],
    ),
    ("trestle backend add", &["trestle backend add web/a 10.0.0.1:8080 --weight 2 --if-absent"]),
    ("trestle backend drain", &["trestle backend drain web/a --deadline 5m --wait"]),
    (
        "trestle listener",
        &[
            "trestle listener create front --bind 0.0.0.0:443 --pool web --wait",
            "trestle listener create api --bind api:6443 --pool kube-api    # on the virtual IP \"api\"",
            "trestle listener update front --bind 0.0.0.0:443,[::]:443",
            "trestle listener list",
        ],
    ),
    (
        "trestle listener create",
        &["trestle listener create edge --bind :443 --pool web --route '*.a.example=a'"],
    ),
    (
        "trestle vip",
        &[
            "trestle vip create 10.0.3.100/24 --name api",
            "trestle vip list",
            "trestle vip move --to m2",
            "trestle vip history",
        ],
    ),
    (
        "trestle vip create",
        &[
            "trestle vip create 10.0.3.100/24 --name api --prefer m1,m2",
            "trestle vip create 2001:db8::100/64 --interface eth0 --interface-on m2=enp3s0",
        ],
    ),
    ("trestle vip move", &["trestle vip move --to m2 --wait"]),
    (
        "trestle member",
        &[
            "trestle member add 10.0.0.2:7481    # the new member's peer address",
            "trestle member promote m2",
            "trestle member drain m1",
            "trestle member list",
        ],
    ),
    ("trestle member drain", &["trestle member drain m1 --deadline 5m --wait"]),
    (
        "trestle connection",
        &[
            "trestle connection list --pool web --client 10.0.0.0/8",
            "trestle connection close --backend web/a --min-age 1h --dry-run",
        ],
    ),
    (
        "trestle connection close",
        &[
            "trestle connection close m1/17",
            "trestle connection close --backend web/a --min-age 1h --dry-run",
            "trestle connection close --backend mqtt/b2 --share 33% --rate 20/s",
        ],
    ),
    (
        "trestle cluster",
        &["sudo trestle cluster bootstrap    # on the first member's machine", "trestle cluster secure"],
    ),
    (
        "trestle cluster bootstrap",
        &[
            "sudo trestle cluster bootstrap",
            "sudo trestle cluster bootstrap --user alice --out alice.toml",
            "trestle --endpoint 127.0.0.1:7480 cluster bootstrap    # in a lab, of a member with insecure = true",
        ],
    ),
    (
        "trestle cluster secure",
        &[
            "trestle cluster secure              # who is ready",
            "trestle cluster secure --prepare",
            "trestle cluster secure --enforce --dry-run",
        ],
    ),
    ("trestle leader", &["trestle leader show", "trestle leader transfer --to m2"]),
    (
        "trestle user",
        &[
            "trestle user create alice --role admin --out alice.toml",
            "trestle user list",
            "trestle user rotate alice --out alice.toml",
            "trestle user delete alice",
        ],
    ),
    ("trestle user create", &["trestle user create ci --role operator --ttl 30d --out ci.toml"]),
    (
        "trestle token",
        &[
            "trestle token create    # then, on the machine that joins: sudo trestled join, with it on standard input",
            "trestle token create --uses 2 --ttl 10m",
            "trestle token list",
            "trestle token revoke 0123456789abcdef",
        ],
    ),
    (
        "trestle ca",
        &[
            "trestle ca list",
            "trestle ca rotate",
            "trestle ca retire 1    # once \"ca rotate\" is done",
            "trestle ca add company-ca.pem    # an authority outside of the cluster",
        ],
    ),
    (
        "trestle certificate",
        &[
            "sudo trestle certificate request    # what the authority is to sign",
            "sudo trestle certificate install m1.pem    # what it has signed",
        ],
    ),
    (
        "trestle context",
        &[
            "trestle context list",
            "trestle context use alice@1f0c22ab",
            "trestle context request ./alice.toml    # where an authority outside of the cluster signs",
            "trestle context install alice.pem ./alice.toml",
        ],
    ),
    ("trestle status", &["trestle status", "trestle status -o json | jq -e '.problems == []'"]),
    (
        "trestle backup",
        &[
            "trestle backup trestle.json",
            "trestle backup --with-ca-key sealed.json    # asks for a passphrase",
        ],
    ),
    (
        "trestle restore",
        &[
            "trestle restore trestle.json --dry-run",
            "trestle restore trestle.json --replace",
            "sudo trestle restore --ca-key-only sealed.json",
        ],
    ),
];

/// The command line with its help.
pub(crate) fn command() -> Command {
    let command = Cli::command();
    let options = global_options(&command);
    let command = nested(command, "trestle");
    command.after_help(format!(
        "{options}\n\n{}\n\nErrors are told on standard error; with -o json, as a line {{\"error\": {{...}}}} with code, message and \
         violations.",
        Exit::table()
    ))
}

fn nested(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let path = format!("{path} {name}");
        command = command.mut_subcommand(&name, |sub| {
            let sub = if name == "update" { sub.mut_args(without_default) } else { sub };
            let sub = match wait_help(&path) {
                Some(help) => sub.mut_arg("wait", |arg| arg.help(help)),
                None => sub,
            };
            let examples = examples(&path);
            nested(sub, &path).after_help(format!("{examples}{FOLDED}"))
        });
    }
    command
}

/// What `--wait` waits for beyond the change being in force.
fn wait_help(path: &str) -> Option<&'static str> {
    match path {
        "trestle backend drain" => Some(
            "Wait until no connection is left or the deadline has closed them, however long that takes; Ctrl-C leaves the drain in \
             force",
        ),
        "trestle member drain" => Some(
            "Wait until no connection is left or the deadline has closed them, however long that takes; fail when the member still \
             takes connections after that time because it cannot hand over; Ctrl-C leaves the drain in force",
        ),
        "trestle listener create" | "trestle listener update" => Some(
            "Wait until every member that can be reached has the change in force and the listener bound; fail where one has not",
        ),
        _ => None,
    }
}

fn examples(path: &str) -> String {
    let Some((_, lines)) = EXAMPLES.iter().find(|(of, _)| *of == path) else { return String::new() };
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("Examples:\n{lines}\n")
}

/// What is not given in an update stays as it is, whatever it is at first.
fn without_default(arg: clap::Arg) -> clap::Arg {
    let Some(help) = arg.get_help().map(ToString::to_string) else { return arg };
    match help.split_once(" [default: ") {
        Some((before, after)) => {
            let rest = after.split_once(']').map_or("", |(_, rest)| rest).to_owned();
            arg.help(format!("{before}{rest}"))
        }
        None => arg,
    }
}

/// The options that every command takes. They are hidden, so that they do not fill each command's help.
fn global_options(command: &Command) -> String {
    let line = |arg: &clap::Arg| {
        let value = arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
        let short = arg.get_short().map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        // One that is found out says so in its help.
        let default = arg.get_default_values().first().and_then(|value| value.to_str());
        let default = default.map(|value| format!(" [default: {value}]")).unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let option = format!("{short}--{} <{value}>", arg.get_id());
        format!("  {option:<30}{help}{default}")
    };
    let lines: Vec<String> = command.get_arguments().filter(|arg| arg.is_global_set()).map(line).collect();
    format!("Global options, which every command takes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    fn find<'c>(command: &'c Command, path: &str) -> &'c Command {
        path.split(' ').skip(1).fold(command, |command, name| {
            command.find_subcommand(name).unwrap_or_else(|| panic!("{path}: no command {name}"))
        })
    }

    #[test]
    fn examples_are_commands_that_there_are() {
        let command = command();
        for (path, examples) in EXAMPLES {
            find(&command, path);
            for example in examples {
                let line = example.split(" | ").next().unwrap_or_default();
                let line = line.split(" #").next().unwrap_or_default().trim().replace('\'', "");
                let words = line.split_whitespace().filter(|word| *word != "sudo");
                let parsed = command.clone().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.map(|_| ()).unwrap_err());
            }
        }
    }

    #[test]
    fn every_noun_has_examples() {
        let command = command();
        for noun in command.get_subcommands().filter(|noun| noun.has_subcommands()) {
            let path = format!("trestle {}", noun.get_name());
            assert!(!examples(&path).is_empty(), "{path} has no examples");
        }
    }

    #[test]
    fn no_update_shows_a_default_and_creations_do() {
        let command = command();
        for noun in command.get_subcommands() {
            let Some(update) = noun.find_subcommand("update") else { continue };
            let help = update.clone().render_long_help().to_string();
            assert!(!help.contains("[default"), "{} update: {help}", noun.get_name());
        }
        let create = find(&command, "trestle pool create").clone().render_help().to_string();
        assert!(create.contains("[default: round-robin]"), "{create}");
    }

    /// Options below each heading, and those below none that every command of their kind has.
    fn belongs(option: &str, heading: Option<&str>) -> bool {
        let of_all = ["etag", "if_absent", "wait", "dry_run", "request_id", "local", "help"];
        match heading {
            Some("Health check") => option == "health" || option.starts_with("health_"),
            Some("Metadata") => ["owner", "annotation"].contains(&option),
            Some(_) => !option.starts_with("health") && !of_all.contains(&option),
            None => !option.starts_with("health_") && !["owner", "annotation"].contains(&option),
        }
    }

    fn check_headings(command: &Command, path: &str, seen: &mut usize) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let (option, heading) = (arg.get_id().as_str(), arg.get_help_heading());
            assert!(belongs(option, heading), "{path}: {option} is below {heading:?}");
            *seen += 1;
        }
        for sub in command.get_subcommands() {
            check_headings(sub, &format!("{path} {}", sub.get_name()), seen);
        }
    }

    #[test]
    fn every_option_is_below_its_own_heading() {
        let mut seen = 0;
        check_headings(&command(), "trestle", &mut seen);
        assert!(seen > 100, "{seen} options");
    }

    #[test]
    fn global_options_are_told_once() {
        let command = command();
        let all = command.clone().render_help().to_string();
        for option in ["--endpoint <HOST:PORT>", "-o, --output <FORMAT>", "--timeout <DURATION>"] {
            assert!(all.contains(option), "{all}");
        }
        let mut built = command;
        built.build();
        for noun in built.get_subcommands() {
            let help = noun.clone().render_help().to_string();
            assert!(!help.contains("--endpoint <") && help.contains(FOLDED), "{help}");
        }
    }
}
