//! The configuration as it was given: text from file, environment and flags, each with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use trestle_model::Violations;

use super::{KEYS, SettingKey};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// A line of the file.
    File {
        /// Path of the file as it was given.
        path: String,
        /// Line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingSource::File { path, line } => write!(f, "{path}:{line}"),
            SettingSource::Variable(name) => write!(f, "${name}"),
            SettingSource::Flag(name) => f.write_str(name),
            SettingSource::Default => f.write_str("default"),
        }
    }
}

/// Values by key, with where each came from. A list has several texts, anything else one.
#[derive(Debug, Clone, Default)]
pub struct RawConfig(BTreeMap<&'static str, (Vec<String>, SettingSource)>);

impl RawConfig {
    /// Reads the keys of a TOML file, noting unknown keys and values of the wrong kind.
    pub fn from_toml(path: &Path, text: &str, v: &mut Violations) -> Self {
        let mut given = Self::default();
        let root = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(1, |span| line_at(text, span.start));
                v.add(
                    format!("{}:{line}", path.display()),
                    error.message(),
                    "must be TOML: KEY = VALUE lines",
                );
                return given;
            }
        };
        for (name, value) in entries(root.get_ref()) {
            let line = line_at(text, name.start);
            let source = SettingSource::File { path: path.display().to_string(), line };
            let Some(key) = KEYS.iter().find(|key| key.name == name.full) else {
                v.add(source.to_string(), &name.full, unknown_rule(&name.full));
                continue;
            };
            match texts(key, value) {
                Some(texts) => given.set(key, texts, source),
                None => {
                    v.add(format!("{source}: {}", key.name), shown(value), format!("must be {}", kind(key)))
                }
            }
        }
        given
    }

    /// Sets a key, over what was there.
    pub fn set(&mut self, key: &SettingKey, texts: Vec<String>, source: SettingSource) {
        self.0.insert(key.name, (texts, source));
    }

    /// A key's texts and source.
    pub(super) fn texts(&self, name: &str) -> Option<(&[String], &SettingSource)> {
        self.0.get(name).map(|(texts, source)| (texts.as_slice(), source))
    }

    /// A key's one text and source.
    pub(super) fn text(&self, name: &str) -> Option<(&str, &SettingSource)> {
        let (texts, source) = self.texts(name)?;
        Some((texts.first()?, source))
    }
}

/// The name of an entry, with that of its table, and where it begins in the file.
struct EntryName {
    full: String,
    start: usize,
}

/// The entries of a file, and those of the tables that keys are in.
fn entries<'a, 'i>(root: &'a DeTable<'i>) -> Vec<(EntryName, &'a DeValue<'i>)> {
    let mut found = Vec::new();
    for (name, value) in root {
        let (full, start) = (name.get_ref().to_string(), name.span().start);
        let prefix = format!("{full}.");
        match value.get_ref() {
            DeValue::Table(table) if KEYS.iter().any(|key| key.name.starts_with(&prefix)) => {
                found.extend(table.iter().map(|(name, value)| {
                    let full = format!("{prefix}{}", name.get_ref());
                    (EntryName { full, start: name.span().start }, value.get_ref())
                }));
            }
            value => found.push((EntryName { full, start }, value)),
        }
    }
    found
}

/// A file may write numbers and booleans bare.
fn texts(key: &SettingKey, value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Array(items) if key.list => {
            items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        }
        _ if key.list => None,
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Integer(number) => Some(vec![number.as_str().to_owned()]),
        DeValue::Boolean(truth) => Some(vec![truth.to_string()]),
        _ => None,
    }
}

fn kind(key: &SettingKey) -> &'static str {
    if key.list { "an array of strings" } else { "a string, a whole number, true or false" }
}

fn shown(value: &DeValue<'_>) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.type_str().to_owned(),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn unknown_rule(name: &str) -> String {
    let near = KEYS.iter().map(|key| (strsim::levenshtein(name, key.name), key.name)).min();
    match near {
        Some((distance, near)) if distance <= 3 => format!("is no key; did you mean \"{near}\"?"),
        _ => {
            let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            format!("is no key; the keys are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_wrong_kinds_are_listed_with_their_lines() {
        let mut v = Violations::new();
        let text = "name = \"m1\"\ndata_dri = \"/x\"\njoin = \"a:1\"\nworkers = 2\n[tls]\na = 1\n";
        let given = RawConfig::from_toml(Path::new("t.toml"), text, &mut v);
        assert_eq!(given.text("workers").map(|(text, _)| text), Some("2"));
        let found: Vec<_> = v.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found.iter().any(|f| f.contains("t.toml:2") && f.contains("did you mean \"data_dir\"?")),
            "{found:?}"
        );
        assert!(found.iter().any(|f| f.contains("t.toml:3: join")), "{found:?}");
        assert!(found.iter().any(|f| f.contains("t.toml:5") && f.contains("tls")), "{found:?}");
    }

    #[test]
    fn a_file_that_is_no_toml_names_the_line() {
        let mut v = Violations::new();
        RawConfig::from_toml(Path::new("t.toml"), "name = \"m1\"\nname m2\n", &mut v);
        assert!(v.into_vec().iter().any(|f| f.field == "t.toml:2"));
    }
}
