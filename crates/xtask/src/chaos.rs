//! `cargo xtask chaos`: runs of tests/chaos one after the other, for as long as one says.

use anyhow::{Context, bail};

use crate::{cargo, write};

/// Minutes unless one says otherwise.
const MINUTES: u64 = 10;

/// The first seed unless one says otherwise.
const SEED: u64 = 1;

/// Runs what the words of the command line mean. After a failure the last line is the command that repeats it.
pub(crate) fn chaos(mut words: &[&str]) -> anyhow::Result<()> {
    let (mut minutes, mut seed) = (MINUTES, SEED);
    while let [name, value, rest @ ..] = words {
        let number = value.parse().with_context(|| format!("{name} {value}: must be a number"))?;
        match *name {
            "--minutes" => minutes = number,
            "--seed" => seed = number,
            other => bail!("\"{other}\" is neither --minutes nor --seed"),
        }
        words = rest;
    }
    if let [word, ..] = words {
        bail!("\"{word}\" needs a number after it, or means nothing here");
    }
    write(&format!("seed {seed} and those after it, for {minutes} minutes"));
    let again = std::env::temp_dir().join(format!("trestle-chaos-{}", std::process::id()));
    let step = "test --release --locked --test chaos -- --ignored --exact long::for_as_long_as_is_asked_for --nocapture";
    let result = cargo(
        &step.split_whitespace().collect::<Vec<_>>(),
        &[
            ("TRESTLE_CHAOS_MINUTES", &minutes.to_string()),
            ("TRESTLE_CHAOS_SEED", &seed.to_string()),
            ("TRESTLE_CHAOS_AGAIN", &again.display().to_string()),
        ],
    );
    if let Ok(command) = std::fs::read_to_string(&again) {
        let _ = std::fs::remove_file(&again);
        bail!("a run failed; this repeats it:\n{command}");
    }
    result
}
