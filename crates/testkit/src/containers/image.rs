//! The image that tests run: the shipped one where it is named, and else one of the programs that were built with the tests.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use trestle_image::{Entry, Image};

use super::engine::{docker, said};
use super::leftovers;

/// Names an image that is there already, such as the one of `cargo xtask image`.
const NAMED: &str = "TRESTLE_TEST_IMAGE";

/// The name of an image with `daemon` and the command beside it. It is made once for a process.
///
/// # Panics
/// When it cannot be made.
pub fn test_image(daemon: &Path) -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| match std::env::var(NAMED) {
        Ok(name) => {
            docker(&["image", "inspect", &name]).unwrap_or_else(|why| panic!("{NAMED}={name}: {why}"));
            name
        }
        Err(_) => make(daemon),
    })
}

/// Libraries and the loader that a program looks for, as ldd(1) finds them.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let found = said(Command::new("ldd").arg(program)).unwrap();
    // "NAME => PATH (ADDRESS)", and "PATH (ADDRESS)" for the loader.
    let paths = found.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

fn make(daemon: &Path) -> String {
    let dir = TempDir::with_prefix("trestle-image-").unwrap();
    let command = daemon.with_file_name("trestle");
    // What is for debuggers is most of them.
    let stripped = |program: &Path| {
        let small = dir.path().join(program.file_name().unwrap());
        said(Command::new("strip").arg("--strip-debug").arg("-o").args([&small, program])).unwrap();
        small
    };
    let mut entries = Image::programs(stripped(daemon), stripped(&command));
    let libraries = libraries(daemon).into_iter().chain(libraries(&command)).collect::<BTreeSet<_>>();
    for library in libraries {
        let path = library.strip_prefix("/").unwrap().display().to_string();
        entries.push(Entry::program(path, library));
    }
    let name = format!("{}-image:latest", leftovers::prefix());
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned();
    let image = Image { names: vec![name.clone()], architecture, time: 0, labels: Vec::new(), entries };
    let archive = dir.path().join("image.tar");
    image.write(BufWriter::new(File::create(&archive).unwrap())).unwrap();
    docker(&["load", "--input", archive.to_str().unwrap()]).unwrap();
    name
}
