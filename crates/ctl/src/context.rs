//! Contexts: which cluster to call, and as whom. They are in a file that only its owner may read, several in one. Keys and certificates
//! are in it as PEM, each from the beginning of a line and the user's own first, so that programs that read PEM can be given the file
//! itself (RFC 7468 section 2 has them pass over the rest).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trestle_api::transport::Transport;
use trestle_identity::tls::ClientTls;
use trestle_identity::{lock_directory, read_private, write_private};
use trestle_model::{ClusterId, Invalid, Secret, UserName, Violation};

use crate::args::Global;
use crate::endpoint;
use crate::error::Error;
use crate::kept_context::KeptContext;

/// One context.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Admin addresses of members, HOST:PORT.
    pub(crate) endpoints: Vec<String>,
    /// The user's certificate, with those between it and its authority; empty while it is not signed yet.
    #[serde(default)]
    pub(crate) certificate: String,
    /// Its key.
    #[serde(deserialize_with = "secret")]
    pub(crate) key: Secret<String>,
    /// Certificates of the authorities that are believed.
    pub(crate) ca: String,
    /// Whom an authority outside of the cluster signs for, as a SPIFFE ID; `None` where the cluster itself signs.
    #[serde(default)]
    pub(crate) signed_for: Option<String>,
    /// When its certificate could not be renewed, as RFC 3339 has it: it is tried again hours later.
    #[serde(default)]
    pub(crate) renewal_failed: Option<String>,
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// What a file has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used where none is named.
    #[serde(default)]
    pub(crate) current: Option<String>,
    /// All of them by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A string of TOML on one line: the escapes are those of JSON (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// PEM as a string of several lines. It has no character that would need an escape.
fn block(out: &mut String, key: &str, pem: &str) {
    let clean: String =
        pem.lines().filter(|line| !line.contains(['"', '\\'])).map(|line| format!("{line}\n")).collect();
    let _ = write!(out, "{key} = \"\"\"\n{clean}\"\"\"\n");
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Contexts {
    /// Reads a file; one that is not there has none.
    ///
    /// # Errors
    /// When it cannot be read, or breaks a rule.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let file = || path.display().to_string();
        let text = read_private(path).map_err(|cause| Error::File { action: "read", file: file(), cause })?;
        // What TOML says of a mistake shows the line, which may be a key.
        let wrong = |error: toml::de::Error| {
            let rule = format!(
                "must be a file of contexts, as \"trestle user create --out\" writes it: {}",
                error.message()
            );
            Error::from(Invalid(vec![Violation::new("the file of contexts", file(), rule)]))
        };
        text.map_or(Ok(Self::default()), |text| toml::from_str(&text).map_err(wrong))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let written = write_private(path, self.render().expose().as_bytes());
        written.map_err(|cause| Error::File { action: "write", file: path.display().to_string(), cause })
    }

    /// Changes the file, reading it anew, while no other process does: what one has written is not lost by what another one writes.
    ///
    /// # Errors
    /// When it cannot be read or written, or the change is refused.
    pub(crate) fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // A directory that is not there yet has nobody else in it.
        let _lock = lock_directory(directory(path), true).ok().flatten();
        let mut contexts = Self::read(path)?;
        let done = change(&mut contexts)?;
        contexts.write(path)?;
        Ok(done)
    }

    /// The file's text.
    pub(crate) fn render(&self) -> Secret<String> {
        let mut out = String::new();
        if let Some(current) = &self.current {
            let _ = writeln!(out, "current = {}", quoted(current));
        }
        for (name, context) in &self.contexts {
            let endpoints: Vec<String> = context.endpoints.iter().map(|endpoint| quoted(endpoint)).collect();
            let separator = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{separator}[contexts.{}]", quoted(name));
            let _ = writeln!(out, "endpoints = [{}]", endpoints.join(", "));
            if let Some(name) = &context.signed_for {
                let _ = writeln!(out, "signed_for = {}", quoted(name));
            }
            if let Some(time) = &context.renewal_failed {
                let _ = writeln!(out, "renewal_failed = {}", quoted(time));
            }
            if !context.certificate.is_empty() {
                block(&mut out, "certificate", &context.certificate);
            }
            block(&mut out, "key", context.key.expose());
            block(&mut out, "ca", &context.ca);
        }
        Secret::new(out)
    }

    /// The context of that name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn named(&self, label: &str, name: &str) -> Result<&Context, Error> {
        let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let rule = match known.is_empty() {
            true => "must be a context, and the file of contexts has none; an admin makes one with \"trestle user create\"".to_owned(),
            false => format!("must be one of {}", known.join(", ")),
        };
        self.contexts.get(name).ok_or_else(|| Invalid(vec![Violation::new(label, name, rule)]).into())
    }

    /// The current context of the file that was named in place of a context.
    fn current_of(&self, file: &str) -> Result<(&String, &Context), Error> {
        let found = self.current.as_ref().and_then(|name| self.contexts.get_key_value(name));
        let rule =
            "must be a file of contexts with a current one, as \"trestle user create --out\" writes it";
        found.ok_or_else(|| Invalid(vec![Violation::new("--context", file, rule)]).into())
    }

    /// Where the context is that is meant, and its name: of that name, the current one of that file, or the current one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(meant: Option<&str>) -> Result<(PathBuf, String), Error> {
        let current = |path: PathBuf, label: &str| {
            let name = Self::read(&path)?.current_of(label)?.0.clone();
            Ok((path, name))
        };
        match meant {
            Some(file) if file.contains('/') => current(PathBuf::from(file), file),
            Some(name) => {
                let path = default_path()?;
                Self::read(&path)?.named("CONTEXT", name)?;
                Ok((path, name.to_owned()))
            }
            None => {
                let path = default_path()?;
                let label = path.display().to_string();
                current(path, &label)
            }
        }
    }

    /// The context of the only one whose certificate is yet to be signed.
    pub(crate) fn unsigned(&self) -> Option<&str> {
        let mut unsigned = self.contexts.iter().filter(|(_, context)| context.certificate.is_empty());
        unsigned.next().map(|(name, _)| name.as_str())
    }

    /// Adds a context, in place of one of that name, and makes it the current one where there is none.
    pub(crate) fn add(&mut self, name: String, context: Context) {
        self.current.get_or_insert_with(|| name.clone());
        self.contexts.insert(name, context);
    }
}

impl Context {
    /// Who calls, and whom the calls are believed to reach.
    ///
    /// # Errors
    /// When a part of it cannot be used.
    pub(crate) fn identity(&self, name: &str) -> Result<ClientTls, Error> {
        let identity = match self.certificate.is_empty() {
            true => Err(format!(
                "has no certificate yet: have what \"trestle context request {name}\" prints signed, and put it in with \"trestle context \
                 install FILE {name}\""
            )),
            false => ClientTls::new(&self.ca, &self.certificate, self.key.expose()),
        };
        identity.map_err(|rule| Invalid(vec![Violation::new("context", name, rule)]).into())
    }
}

/// What a context of this user of a cluster is called.
pub(crate) fn context_name(user: &UserName, cluster: &ClusterId) -> String {
    let cluster = cluster.as_str();
    format!("{user}@{}", cluster.get(..8).unwrap_or(cluster))
}

/// Where contexts are looked for (XDG Base Directory Specification).
///
/// # Errors
/// When the environment says neither of a home.
pub(crate) fn default_path() -> Result<PathBuf, Error> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let rule = "must be set, or XDG_CONFIG_HOME: contexts are kept below it";
    let base = base.ok_or_else(|| Invalid(vec![Violation::new("HOME", "", rule)]))?;
    Ok(base.join("trestle").join("config.toml"))
}

/// The context by which members are called, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct UsedContext {
    /// The file.
    pub(crate) file: PathBuf,
    /// Its name there.
    pub(crate) name: String,
    /// What it says.
    pub(crate) context: Context,
    /// The user that it is of.
    pub(crate) identity: ClientTls,
}

impl UsedContext {
    /// Puts other authorities into the context, in PEM. What else is in the file stays, as it is by now.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn believe(&self, authorities: String) -> Result<(), Error> {
        if self.context.ca == authorities {
            return Ok(());
        }
        Contexts::change(&self.file, |contexts| {
            if let Some(context) = contexts.contexts.get_mut(&self.name) {
                context.ca = authorities;
            }
            Ok(())
        })
    }
}

/// How members are called.
pub(crate) struct Way {
    /// Admin addresses, tried in order.
    pub(crate) endpoints: Vec<String>,
    /// Plain, or as a user.
    pub(crate) transport: Transport,
    /// The context, where it is one.
    pub(crate) context: Option<UsedContext>,
    /// The context whose endpoints they are, if it is the user's own.
    pub(crate) kept: Option<KeptContext>,
}

impl Way {
    /// Without a context: what is named, or this machine's member.
    pub(crate) fn plain(given: &[String]) -> Result<Self, Error> {
        let transport = Transport::plain();
        Ok(Self { endpoints: endpoint::named(given)?, transport, context: None, kept: None })
    }

    /// The way that the arguments and the environment name: a context, at its own endpoints or at those that are named; without one,
    /// the endpoints that are named; without these, this machine's admin socket if the caller may use it, the current context, or
    /// this machine's admin port.
    ///
    /// # Errors
    /// When a context is named that cannot be used, or an endpoint is none.
    pub(crate) fn find(global: &Global) -> Result<Self, Error> {
        let given = &global.endpoint;
        match &global.context {
            Some(file) if file.contains('/') => {
                let path = Path::new(file);
                let contexts = Contexts::read(path)?;
                let (name, context) = contexts.current_of(file)?;
                Self::of((Path::new(file), name), context, given)
            }
            Some(name) => {
                let path = default_path()?;
                Self::of((&path, name), Contexts::read(&path)?.named("--context", name)?, given)
            }
            None if !given.is_empty() || endpoint::has_socket() => Self::plain(given),
            None => {
                // Without a home there are no contexts.
                let Ok(path) = default_path() else { return Self::plain(given) };
                let contexts = Contexts::read(&path)?;
                match &contexts.current {
                    Some(name) => Self::of((&path, name), contexts.named("current", name)?, given),
                    None => Self::plain(given),
                }
            }
        }
    }

    fn of((file, name): (&Path, &str), context: &Context, given: &[String]) -> Result<Self, Error> {
        let identity = context.identity(name)?;
        let endpoints = if given.is_empty() { &context.endpoints } else { given };
        if endpoints.is_empty() {
            let rule = "must have at least one of the endpoints of the members, HOST:PORT";
            return Err(Invalid(vec![Violation::new("context", name, rule)]).into());
        }
        let used = UsedContext {
            file: file.to_owned(),
            name: name.to_owned(),
            context: context.clone(),
            identity: identity.clone(),
        };
        let kept = if given.is_empty() { KeptContext::of(file, name) } else { None };
        let (endpoints, transport) = (endpoint::named(endpoints)?, Transport::tls(identity));
        Ok(Self { endpoints, transport, context: Some(used), kept })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn context(endpoint: &str) -> Context {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nMA==\n-----END {label}-----\n");
        Context {
            endpoints: vec![endpoint.to_owned(), "m2.example:7480".to_owned()],
            certificate: pem("CERTIFICATE"),
            key: Secret::new(pem("PRIVATE KEY")),
            ca: pem("CERTIFICATE").repeat(2),
            signed_for: None,
            renewal_failed: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_pem_begins_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trestle").join("config.toml");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        let mut contexts = Contexts::default();
        contexts.add("bob@0b".to_owned(), context("10.0.0.1:7480"));
        let failed = Some("2027-01-15T08:00:00Z".to_owned());
        contexts
            .add("alice@0a".to_owned(), Context { renewal_failed: failed, ..context("[2001:db8::1]:7480") });
        contexts.write(&path).unwrap();
        assert_eq!(Contexts::read(&path).unwrap(), contexts);
        assert_eq!(contexts.current.as_deref(), Some("bob@0b"));
        assert_eq!(contexts.current_of("./config.toml").unwrap().1.endpoints[0], "10.0.0.1:7480");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("-----BEGIN ")).count(), 8, "{text}");
        let shown = format!("{contexts:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn processes_that_change_the_file_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trestle").join("config.toml");
        Contexts::default().write(&path).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..5 {
                        let add = |contexts: &mut Contexts| {
                            contexts.add(format!("u{number}-{round}"), context("10.0.0.1:7480"));
                            Ok(())
                        };
                        Contexts::change(path, add).unwrap();
                    }
                });
            }
        });
        assert_eq!(Contexts::read(&path).unwrap().contexts.len(), 40);
    }

    #[test]
    fn a_broken_file_is_told_without_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "current = \"a\"\n[contexts.a]\nkey = s3cret\n").unwrap();
        let told = Contexts::read(&path).unwrap_err().render();
        assert!(told.contains("must be a file of contexts") && !told.contains("s3cret"), "{told}");
        let told = Contexts::default().current_of("./none.toml").unwrap_err().render();
        assert!(told.contains("./none.toml") && told.contains("trestle user create --out"), "{told}");
        let told = Contexts::default().named("--context", "x").unwrap_err().render();
        assert!(told.contains("the file of contexts has none"), "{told}");
    }
}
