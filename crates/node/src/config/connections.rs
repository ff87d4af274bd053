//! What the configuration says about connections: where they are logged, and where those to backends come from.

use std::fmt;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use trestle_dataplane::{AccessLogFormat, Sources};
use trestle_model::{Cidr, usable_ip};

use super::checked::{Config, SettingReader};

fn format(text: &str) -> Result<Option<AccessLogFormat>, String> {
    match text {
        "none" => Ok(None),
        "text" => Ok(Some(AccessLogFormat::Text)),
        "json" => Ok(Some(AccessLogFormat::Json)),
        _ => Err("must be none, text or json".to_owned()),
    }
}

fn file(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "-" => Ok(None),
        "" => Err("must be the path of a file, or - for standard output".to_owned()),
        path => Ok(Some(PathBuf::from(path))),
    }
}

/// Directory that files of health checks must be below, unless another is given.
pub(super) const CHECK_DIRECTORY: &str = "/etc/trestle/checks";

fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if plain { Ok(path) } else { Err("must be the absolute path of a directory, without ..".to_owned()) }
}

/// An address of this machine that connections can come from, or arrive at.
pub(super) fn own_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => usable_ip(ip),
        _ => Err("must be an IP address of this machine, without a port".to_owned()),
    }
}

impl SettingReader<'_> {
    /// Form and file of the access log.
    pub(super) fn access_log(&mut self) -> (Option<Option<AccessLogFormat>>, Option<Option<PathBuf>>) {
        let format = self.read("access_log", "none", format);
        let file = self.read("access_log_file", "-", file);
        if let (Some(None), Some(Some(path))) = (format, &file) {
            self.note(
                "access_log_file",
                path.display(),
                "says where to, but nothing is logged: set access_log to text or json",
            );
        }
        (format, file)
    }

    /// Where files of checks are.
    pub(super) fn check_directory(&mut self) -> Option<PathBuf> {
        self.read("check_directory", CHECK_DIRECTORY, directory)
    }

    /// The addresses to connect from.
    pub(super) fn source(&mut self) -> Sources {
        let mut sources: Vec<IpAddr> = Vec::new();
        let Some((texts, source)) = self.given.texts("source_address") else {
            return Sources::default();
        };
        let field = Self::field("source_address", source);
        for text in texts {
            match self.v.take(&field, text, own_address(text)) {
                Some(ip) if sources.contains(&ip) => {
                    self.v.add(field.clone(), text, "is named twice; name each address once");
                }
                found => sources.extend(found),
            }
        }
        sources.into_iter().collect()
    }
}

impl SettingReader<'_> {
    /// The networks that backends may be in; none for all.
    pub(super) fn backend_networks(&mut self) -> Vec<Cidr> {
        let Some((texts, source)) = self.given.texts("backend_networks") else {
            return Vec::new();
        };
        let field = Self::field("backend_networks", source);
        texts.iter().filter_map(|text| self.v.take(&field, text, Cidr::parse(text))).collect()
    }
}

impl Config {
    /// The keys of this file, as TOML.
    pub(super) fn write_connections(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.access_log {
            None => "none",
            Some(AccessLogFormat::Text) => "text",
            Some(AccessLogFormat::Json) => "json",
        };
        let file = self.access_log_file.as_deref().unwrap_or(Path::new("-"));
        let sources: Vec<_> = self.source.addresses().map(|ip| format!("\"{ip}\"")).collect();
        writeln!(f, "access_log = \"{format}\"")?;
        writeln!(f, "access_log_file = {file:?}")?;
        let networks: Vec<_> = self.backend_networks.iter().map(|network| format!("\"{network}\"")).collect();
        writeln!(f, "check_directory = {:?}", self.check_directory)?;
        writeln!(f, "source_address = [{}]", sources.join(", "))?;
        writeln!(f, "backend_networks = [{}]", networks.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::Violations;

    use super::super::{KEYS, RawConfig, SettingSource};
    use super::*;

    fn check(pairs: &[(&str, &[&str])]) -> Result<Config, trestle_model::Invalid> {
        let mut given = RawConfig::default();
        for (name, texts) in pairs {
            let key = KEYS.iter().find(|key| key.name == *name).unwrap();
            given.set(key, texts.iter().map(|text| (*text).to_owned()).collect(), SettingSource::Default);
        }
        Config::check(&given, Violations::new())
    }

    #[test]
    fn what_was_given_is_in_force() {
        let name: (&str, &[&str]) = ("name", &["m1"]);
        let config = check(&[name]).unwrap();
        assert_eq!(
            (config.access_log, config.access_log_file, config.source),
            (None, None, Sources::default())
        );
        let config = check(&[
            name,
            ("access_log", &["json"]),
            ("access_log_file", &["/var/log/x"]),
            ("source_address", &["10.0.0.1", "2001:db8::1", "10.0.0.2"]),
            ("backend_networks", &["10.0.0.0/8", "2001:db8::/32"]),
        ])
        .unwrap();
        assert_eq!(config.access_log, Some(AccessLogFormat::Json));
        assert_eq!(config.access_log_file.as_deref(), Some(Path::new("/var/log/x")));
        let shown = config.to_string();
        let end = "access_log = \"json\"\naccess_log_file = \"/var/log/x\"\ncheck_directory = \"/etc/trestle/checks\"\nsource_address = [\"10.0.0.1\", \"10.0.0.2\", \"2001:db8::1\"]\nbackend_networks = [\"10.0.0.0/8\", \"2001:db8::/32\"]";
        assert!(shown.contains(end), "{shown}");
    }

    #[test]
    fn a_network_that_is_none_is_a_mistake() {
        let found = check(&[("name", &["m1"]), ("backend_networks", &["10.0.0.0/8", "here"])]).unwrap_err();
        assert_eq!(found.0.len(), 1, "{found:?}");
    }

    #[test]
    fn a_file_without_a_form_is_a_mistake() {
        let found = check(&[("name", &["m1"]), ("access_log_file", &["/var/log/x"])]).unwrap_err();
        assert!(found.0[0].rule.contains("set access_log to text or json"), "{found:?}");
    }
}
