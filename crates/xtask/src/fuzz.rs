//! `cargo xtask fuzz`: the fuzz targets of the crates, each for as long as one says, led by the compiler's counters of edges.

use anyhow::{Context, bail};

use crate::cargo;

/// Seconds for each target unless one says otherwise.
const SECONDS: u64 = 60;

/// Each target, and the package that has a test `fuzz_` and its name.
const TARGETS: &[(&str, &str)] = &[
    ("client_hello", "trestle-engine"),
    ("proxy", "trestle-engine"),
    ("http_answer", "trestle-dataplane"),
    ("nft_answers", "trestle-vip"),
    ("route_answers", "trestle-vip"),
    ("claims", "trestle-vip"),
    ("stored_proposal", "trestle-api"),
    ("stored_machine", "trestle-api"),
    ("user_certificate", "trestle-identity"),
    ("join_token", "trestle-identity"),
    ("founding_token", "trestle-identity"),
];

/// What makes the compiler count edges. SanitizerCoverage is a pass of LLVM, which stable Rust lets one name.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Ccodegen-units=1 -Cdebug-assertions=yes";

/// Runs the targets that the words of the command line mean.
pub(crate) fn fuzz(words: &[&str]) -> anyhow::Result<()> {
    let (seconds, names): (u64, &[&str]) = match words {
        ["--seconds", seconds, names @ ..] => {
            (seconds.parse().with_context(|| format!("--seconds {seconds}"))?, names)
        }
        names => (SECONDS, names),
    };
    let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("no target is called \"{unknown}\"; there are {}", known.join(", "));
    }
    let chosen = TARGETS.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
    for (name, package) in chosen {
        // Build scripts and macros are made for the host and not instrumented, because a target is named; and all of it
        // lies beside the other builds.
        let step = format!(
            "test --locked --package {package} --target host-tuple --target-dir target/fuzz/build \
             --config profile.dev.opt-level=2 -- --test-threads=1 --nocapture fuzz_{name}"
        );
        let step: Vec<&str> = step.split_whitespace().collect();
        cargo(&step, &[("RUSTFLAGS", RUSTFLAGS), ("TRESTLE_FUZZ_SECONDS", &seconds.to_string())])?;
    }
    Ok(())
}
