//! Where output goes and in which form.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::error::{Error, ErrorDocument};

/// Where data and everything else go.
pub(crate) struct Terminal {
    /// Data.
    pub(crate) out: Box<dyn Write>,
    /// Progress, warnings, errors.
    pub(crate) err: Box<dyn Write>,
    /// A person sits before it: keys come in, and the process's standard output is a screen.
    pub(crate) interactive: bool,
    /// The form of what goes to `err`.
    pub(crate) format: Format,
    /// Name of the write that was sent last, for its failure.
    pub(crate) request_id: Option<String>,
}

/// A line on standard error for programs.
#[derive(Serialize)]
struct Note {
    note: String,
}

impl Terminal {
    /// Streams that nobody sits before.
    pub(crate) fn new(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            interactive: false,
            format: Format::Table,
            request_id: None,
        }
    }

    /// The process's own streams.
    pub(crate) fn standard() -> Self {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        Self { interactive, ..Self::new(io::stdout(), io::stderr()) }
    }

    /// How many columns a person sees; `None` where output goes elsewhere, and is not to be broken.
    pub(crate) fn width(&self) -> Option<usize> {
        let size = self.interactive.then(ratatui::crossterm::terminal::size)?;
        size.ok().map(|(columns, _)| usize::from(columns)).filter(|columns| *columns > 0)
    }

    /// Tells something that is not data: a line of text, a line of JSON, or a comment of YAML.
    pub(crate) fn note(&mut self, text: impl std::fmt::Display) {
        let text = text.to_string();
        let line = match self.format {
            Format::Table => text,
            Format::Json => one_line(&Note { note: text }).unwrap_or_default(),
            Format::Yaml => format!("# {}", text.replace('\n', "\n# ")),
        };
        // When nobody listens to warnings, the command goes on all the same.
        let _ = writeln!(self.err, "{line}");
    }

    /// Tells why the command failed: as text, as a line of JSON, or as a document of YAML.
    pub(crate) fn fail(&mut self, text: &str, document: &ErrorDocument) {
        let told = match self.format {
            Format::Table => Ok(text.to_owned()),
            Format::Json => one_line(document),
            Format::Yaml => serde_saphyr::to_string(document).map_err(|e| Error::Encode(e.to_string())),
        };
        let _ = writeln!(self.err, "{}", told.as_deref().unwrap_or(text).trim_end());
    }

    /// Writes data at once, so that a reader of a stream sees each piece as it comes.
    ///
    /// # Errors
    /// When the reader went away or the disk is full.
    pub(crate) fn data(&mut self, text: &str) -> Result<(), Error> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Error::Output)
    }
}

/// A document of JSON on one line, without a line break.
///
/// # Errors
/// When the encoder refuses the value.
pub(crate) fn one_line<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::Encode(e.to_string()))
}

/// Renders a value in a form, with a line break at the end; `text` is its form as a table.
///
/// # Errors
/// When the encoder refuses the value.
pub(crate) fn render<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce() -> String,
) -> Result<String, Error> {
    match format {
        Format::Table => Ok(text()),
        Format::Json => {
            let json = serde_json::to_string_pretty(value).map_err(|e| Error::Encode(e.to_string()))?;
            Ok(json + "\n")
        }
        Format::Yaml => serde_saphyr::to_string(value).map_err(|e| Error::Encode(e.to_string())),
    }
}
