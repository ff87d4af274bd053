//! The passphrase under which a key is sealed: asked for on the terminal, or read from a file.

use std::path::{Path, PathBuf};

use clap::Args;
use trestle_identity::PASSPHRASE_MIN;
use trestle_model::{Invalid, Secret, Violation};

use crate::error::Error;

/// Where the passphrase comes from.
#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// File whose first line is the passphrase, in place of asking for it on the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

fn asked(prompt: &str) -> Result<Secret<String>, Error> {
    let typed = rpassword::prompt_password(prompt).map(Secret::new);
    typed.map_err(|cause| Error::File { action: "ask on", file: "the terminal".to_owned(), cause })
}

fn invalid(label: &str, rule: impl Into<String>) -> Error {
    // The value is the secret.
    Invalid(vec![Violation::new(label, "(not shown)", rule)]).into()
}

fn read(path: &Path) -> Result<Secret<String>, Error> {
    let text = std::fs::read_to_string(path);
    let text =
        text.map_err(|cause| Error::File { action: "read", file: path.display().to_string(), cause })?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}

impl PassphraseArgs {
    /// One for a new secret, which is asked for twice.
    ///
    /// # Errors
    /// When it cannot be had, is too short, or was typed in two ways.
    pub(crate) fn new_one(&self) -> Result<Secret<String>, Error> {
        let label = if self.passphrase_file.is_some() { "--passphrase-file" } else { "passphrase" };
        let first = match &self.passphrase_file {
            Some(path) => read(path)?,
            None => asked("Passphrase of the authority's key: ")?,
        };
        let characters = first.expose().chars().count();
        if characters < PASSPHRASE_MIN {
            let rule = format!("must have at least {PASSPHRASE_MIN} characters, and has {characters}");
            return Err(invalid(label, rule));
        }
        if self.passphrase_file.is_none() && asked("The same once more: ")?.expose() != first.expose() {
            return Err(invalid(label, "must be typed twice in the same way"));
        }
        Ok(first)
    }

    /// The one of a secret that there is.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) fn known_one(&self) -> Result<Secret<String>, Error> {
        match &self.passphrase_file {
            Some(path) => read(path),
            None => asked("Passphrase of the authority's key: "),
        }
    }
}
