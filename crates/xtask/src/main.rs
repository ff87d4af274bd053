//! Project chores: `cargo xtask verify` is what CI runs and never writes; `cargo xtask fix` writes; `cargo xtask bench
//! control` and its like print figures; `cargo xtask fuzz` looks for inputs that break a parser. It depends on nothing that takes time to build, so it starts at once.

#![forbid(unsafe_code)]

mod chaos;
mod fuzz;
mod image;

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  verify           format check, clippy with warnings as errors, all tests; writes nothing
  fix              format, and what clippy can mend by itself
  bench control    build the programs as they are shipped and print the control plane's figures
  bench identities what it costs that members and callers prove who they are, beside the same without
  bench relay      the data plane's figures beside HAProxy's and nginx's; --pairs N for more rounds
  bench failover   what faults of a virtual IP's holder cost, beside keepalived and HAProxy; --trials N for more, as root
  bench calm       30 minutes (or as many as you say) of full load, in which the virtual IP should not move; as root
  bench attacks    what a well-behaved client notices of attacks on a member's ports; a word of an attack's name for it alone
  bench soak       20 minutes (or as many as you say) of a member at its limit of open files
  chaos            faults by a seed in clusters of real members, for ten minutes; --minutes N for longer, --seed S for others; as root
  simulate         whole clusters under one clock, by a seed: --seeds N (10000), --from S (1), --trace to see what happens in them
  fuzz             changed inputs for each parser of bytes from outside, for a minute; --seconds N for longer, and a target's name
                   for that one alone; what fails is in target/fuzz/failures
  image            the container image, without a base image: static programs, an archive in target/image, which Docker loads

Arguments after a command go to its last step: cargo xtask verify -- --nocapture";

/// One step: cargo with these arguments.
type Step<'a> = Vec<&'a str>;

fn verify() -> Vec<Step<'static>> {
    vec![
        vec!["fmt", "--all", "--check"],
        vec!["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        vec!["test", "--workspace", "--locked"],
    ]
}

fn fix() -> Vec<Step<'static>> {
    vec![
        vec!["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"],
        vec!["fmt", "--all"],
    ]
}

fn bench(what: &str) -> Vec<Step<'_>> {
    vec![
        vec!["build", "--profile", "dist", "--locked", "--bin", "trestled", "--bin", "trestle"],
        vec![
            "run",
            "--profile",
            "dist",
            "--locked",
            "--package",
            "trestle-testkit",
            "--bin",
            "trestle-bench",
            "--",
            what,
        ],
    ]
}

/// The simulation, optimised; `whole` without a number of seeds.
fn simulate(whole: bool) -> Vec<Step<'static>> {
    let mut step: Step<'static> =
        vec!["test", "--release", "--locked", "--package", "trestle-simulation", "--test", "simulate", "--"];
    if whole {
        step.extend(["--seeds", "10000"]);
    }
    vec![step]
}

fn run<'a>(mut steps: Vec<Step<'a>>, more: &'a [String]) -> anyhow::Result<()> {
    if let Some(last) = steps.last_mut() {
        last.extend(more.iter().map(String::as_str));
    }
    for step in steps {
        cargo(&step, &[])?;
    }
    Ok(())
}

/// Runs cargo at the top of the repository, with more in its environment.
fn cargo(step: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    // Set by cargo when it runs this program; the same cargo then does the work.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let line = format!("cargo {}", step.join(" "));
    write(&line);
    let mut command = Command::new(&cargo);
    command.args(step).envs(environment.iter().copied());
    let status = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).status();
    let status = status.with_context(|| format!("cannot start \"{line}\""))?;
    if !status.success() {
        bail!("\"{line}\" failed: {status}");
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command-line tool talks to its user")]
fn write(line: &str) {
    eprintln!("{line}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["fuzz", rest @ ..] = words.as_slice() {
        return exit(fuzz::fuzz(rest));
    }
    if let ["image"] = words.as_slice() {
        return exit(image::image());
    }
    if let ["chaos", rest @ ..] = words.as_slice() {
        return exit(chaos::chaos(rest));
    }
    let (steps, used) = match words.as_slice() {
        ["verify", ..] => (verify(), 1),
        ["fix", ..] => (fix(), 1),
        [
            "bench",
            what @ ("control" | "identities" | "relay" | "failover" | "calm" | "soak" | "attacks"),
            ..,
        ] => (bench(what), 2),
        ["simulate", ..] => (simulate(arguments.len() == 1), 1),
        _ => {
            write(USAGE);
            return ExitCode::from(2);
        }
    };
    exit(run(steps, &arguments[used..]))
}

fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            write(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
