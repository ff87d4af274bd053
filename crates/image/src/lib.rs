//! The container image as an archive: one layer on nothing, the same bytes from the same files.
//!
//! The archive is an OCI image layout that has Docker's older `manifest.json` too, so every engine loads it.

#![forbid(unsafe_code)]

mod archive;
mod config;
mod layer;

use std::io::{self, Write};
use std::path::PathBuf;

pub use layer::{Content, Entry};

/// An image to write.
#[derive(Debug, Clone)]
pub struct Image {
    /// Names under which engines know it, each with its tag: `trestle:0.2.0`.
    pub names: Vec<String>,
    /// The processor's name in the words of OCI: `amd64`, `arm64`.
    pub architecture: String,
    /// The time of everything in it, in seconds since 1970.
    pub time: u64,
    /// Labels, by name.
    pub labels: Vec<(String, String)>,
    /// What is in it beside what every image has.
    pub entries: Vec<Entry>,
}

impl Image {
    /// What runs in it: the daemon, and the command line under its own name.
    pub fn programs(daemon: impl Into<PathBuf>, command: impl Into<PathBuf>) -> Vec<Entry> {
        vec![Entry::program("trestle", command.into()), Entry::program("trestled", daemon.into())]
    }

    /// Writes the archive; answers the digest by which engines know the image.
    ///
    /// # Errors
    /// When a file cannot be read, or the archive not written.
    pub fn write(&self, to: impl Write) -> io::Result<String> {
        archive::write(self, to)
    }
}
