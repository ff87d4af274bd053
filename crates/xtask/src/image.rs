//! `cargo xtask image`: the container image of static programs alone, from the same sources the same bytes.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use trestle_image::{Entry, Image};

use crate::{cargo, write};

/// Where licences are in the image.
const DOCUMENTS: &str = "usr/share/doc/trestle";

/// Builds the programs, writes the image, and gives it to the engine.
pub(crate) fn image() -> anyhow::Result<()> {
    let root = root()?;
    let programs = programs(&root)?;
    let version = env!("CARGO_PKG_VERSION");
    let names = vec!["trestle:latest".to_owned(), format!("trestle:{version}")];
    let image = Image {
        names: names.clone(),
        architecture: architecture()?.to_owned(),
        time: time(&root),
        labels: labels(&root, version),
        entries: entries(&root, &programs),
    };
    let folder = target(&root)?.join("image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let archive = folder.join(format!("trestle-{version}.tar"));
    let file = File::create(&archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let id = image.write(BufWriter::new(file)).context("the image cannot be written")?;
    write(&format!("image {id} in {}", archive.display()));
    load(&archive)?;
    write(&format!("loaded as {}", names.join(" and ")));
    Ok(())
}

/// The top of the repository.
fn root() -> anyhow::Result<PathBuf> {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .context("the repository is not where it was")
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> anyhow::Result<PathBuf> {
    let set = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    std::path::absolute(&set).with_context(|| format!("no path: {}", set.display()))
}

fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images are made on x86_64 and aarch64, and this is {other}"),
    }
}

/// Builds both programs without libraries that they would look for, and without the paths of this machine in them; answers their folder.
fn programs(root: &Path) -> anyhow::Result<PathBuf> {
    // The C library of GNU can be linked in; names are then resolved by what is in it.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = target(root)?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    // Of several that fit the last counts.
    for (from, to) in [(Some(root.to_owned()), "/src"), (Some(target.clone()), "/target"), (home, "/cargo")] {
        let Some(from) = from else { continue };
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    let step = [
        "build",
        "--locked",
        "--profile",
        "dist",
        "--target",
        &triple,
        "--bin",
        "trestled",
        "--bin",
        "trestle",
    ];
    // Unlike RUSTFLAGS, these may have spaces in them.
    cargo(&step, &[("CARGO_ENCODED_RUSTFLAGS", &flags.join("\u{1f}"))])?;
    Ok(target.join(triple).join("dist"))
}

/// What git answers, where this is a repository of git.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").arg("-C").arg(root).args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The time of the last commit; the sources' own, not that of the build.
fn time(root: &Path) -> u64 {
    git(root, &["log", "-1", "--format=%ct"]).and_then(|time| time.parse().ok()).unwrap_or_default()
}

/// Labels of the OCI image specification (annotations.md).
fn labels(root: &Path, version: &str) -> Vec<(String, String)> {
    let changed = git(root, &["status", "--porcelain"]).is_some();
    let revision = git(root, &["rev-parse", "HEAD"]);
    let revision = revision.map(|commit| if changed { format!("{commit}-changed") } else { commit });
    let source = Some(env!("CARGO_PKG_REPOSITORY").to_owned()).filter(|source| !source.is_empty());
    let known = [
        ("title", Some("trestle".to_owned())),
        ("description", Some("A TCP load balancer that is its own cluster".to_owned())),
        ("version", Some(version.to_owned())),
        ("revision", revision),
        ("source", source),
        ("licenses", Some("MIT OR Apache-2.0".to_owned())),
    ];
    let label =
        |(name, value): (&str, Option<String>)| Some((format!("org.opencontainers.image.{name}"), value?));
    known.into_iter().filter_map(label).collect()
}

fn entries(root: &Path, programs: &Path) -> Vec<Entry> {
    let mut entries = Image::programs(programs.join("trestled"), programs.join("trestle"));
    let mut path = String::new();
    for part in DOCUMENTS.split('/') {
        path += &format!("{part}/");
        entries.push(Entry::directory(path.clone()));
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        entries.push(Entry::file(format!("{DOCUMENTS}/{licence}"), root.join(licence)));
    }
    entries
}

/// Gives the archive to Docker, or what is called so.
fn load(archive: &Path) -> anyhow::Result<()> {
    let done = Command::new("docker")
        .args(["load", "--quiet", "--input"])
        .arg(archive)
        .stdout(Stdio::null())
        .status();
    let hint = || format!("\"docker load\" has not taken it; the image is in {}", archive.display());
    if !done.with_context(hint)?.success() {
        bail!(hint());
    }
    Ok(())
}
