//! What a pool's health check does, as options: its kind, and the settings that go with some kinds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use trestle_api::v1;
use trestle_api::v1::health_check::Kind;
use trestle_model::{Method, StatusRange};

use crate::input::Input;

/// What a health check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Connect and close again
    Tcp,
    /// Connect and do a TLS handshake
    Tls,
    /// Send an HTTP request and look at the answer
    Http,
    /// The same over TLS
    Https,
    /// No check
    None,
}

impl Check {
    /// The check with nothing but defaults.
    pub(crate) fn plain(self) -> Kind {
        let over = |tls| Kind::Http(v1::HttpCheck { tls, ..v1::HttpCheck::default() });
        match self {
            Self::Tcp => Kind::Tcp(v1::TcpCheck {}),
            Self::Tls => Kind::Tls(v1::TlsCheck::default()),
            Self::Http => over(None),
            Self::Https => over(Some(v1::TlsCheck::default())),
            Self::None => Kind::None(v1::NoCheck {}),
        }
    }

    /// The word for a check that a pool has.
    pub(crate) fn word(kind: &Kind) -> &'static str {
        match kind {
            Kind::Tcp(_) => "tcp",
            Kind::Tls(_) => "tls",
            Kind::Http(http) if http.tls.is_some() => "https",
            Kind::Http(_) => "http",
            Kind::None(_) => "none",
        }
    }
}

/// The path of a check in an update mask.
pub(crate) fn mask_path(kind: &Kind) -> &'static str {
    match kind {
        Kind::Tcp(_) => "health_check.tcp",
        Kind::Tls(_) => "health_check.tls",
        Kind::Http(_) => "health_check.http",
        Kind::None(_) => "health_check.none",
    }
}

/// What a check does. An update that names the kind replaces the whole check; one that does not changes the settings
/// that are given and keeps the others.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckSettings {
    /// How backends are checked [default: tcp]; in an update, the settings of the check that are not given with it go
    /// back to their defaults
    #[arg(long, value_name = "CHECK")]
    pub(crate) health: Option<Check>,
    /// tls, https: name sent as SNI, and that a verified certificate must be for [default: none, and then a verified
    /// certificate must be for the backend's address]
    #[arg(long, value_name = "NAME")]
    pub(crate) health_server_name: Option<String>,
    /// tls, https: file with the PEM certificates to trust, at most 2560 bytes [default: nothing is verified]
    #[arg(long, value_name = "FILE")]
    pub(crate) health_ca: Option<PathBuf>,
    /// tls, https: days that the certificate must still be valid for, 0 to 825 [default: 0]
    #[arg(long, value_name = "DAYS")]
    pub(crate) health_min_days: Option<u32>,
    /// http, https: method, GET, HEAD or OPTIONS [default: GET]
    #[arg(long, value_name = "METHOD")]
    pub(crate) health_method: Option<String>,
    /// http, https: path, with its query if any [default: /]
    #[arg(long, value_name = "PATH")]
    pub(crate) health_path: Option<String>,
    /// http, https: value of the Host field [default: the backend's address]
    #[arg(long, value_name = "HOST")]
    pub(crate) health_host: Option<String>,
    /// http, https: further field of the request, as in 'Accept: */*'; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) health_header: Vec<String>,
    /// http, https: statuses that are good, as in 200-299,401 [default: 200-299]
    #[arg(long, value_name = "STATUS[-STATUS]", value_delimiter = ',')]
    pub(crate) health_expect: Vec<String>,
    /// http, https: text that the first 64 KiB of the body must contain [default: not looked at]
    #[arg(long, value_name = "TEXT")]
    pub(crate) health_body: Option<String>,
}

/// Settings of a check as they were given, parsed.
#[derive(Debug, Default)]
pub(crate) struct CheckFlags {
    server_name: Option<String>,
    ca: Option<String>,
    min_days: Option<u32>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    headers: Vec<v1::HttpField>,
    expect: Vec<String>,
    body: Option<String>,
    /// Those for TLS, and those for HTTP, as they were typed.
    for_tls: Vec<(&'static str, String)>,
    for_http: Vec<(&'static str, String)>,
}

impl CheckSettings {
    /// Parses what was given beside the kind.
    pub(crate) fn flags(&self, input: &mut Input) -> CheckFlags {
        let typed = |label, value: Option<String>| value.map(|value| (label, value));
        let tls = [
            typed("--health-server-name", self.health_server_name.clone()),
            typed("--health-ca", self.health_ca.as_ref().map(|path| path.display().to_string())),
            typed("--health-min-days", self.health_min_days.map(|days| days.to_string())),
        ];
        let http = [
            typed("--health-method", self.health_method.clone()),
            typed("--health-path", self.health_path.clone()),
            typed("--health-host", self.health_host.clone()),
            typed("--health-header", self.health_header.first().cloned()),
            typed("--health-expect", self.health_expect.first().cloned()),
            typed("--health-body", self.health_body.clone()),
        ];
        if let Some(method) = &self.health_method {
            input.valid("--health-method", method, Method::parse(method));
        }
        for range in &self.health_expect {
            input.valid("--health-expect", range, StatusRange::parse(range));
        }
        let header = |text: &String| input.valid("--health-header", text, header(text));
        let headers = self.health_header.iter().filter_map(header).collect();
        CheckFlags {
            server_name: self.health_server_name.clone(),
            ca: self
                .health_ca
                .as_ref()
                .and_then(|path| input.valid("--health-ca", &path.display().to_string(), certificates(path))),
            min_days: self.health_min_days,
            method: self.health_method.clone(),
            path: self.health_path.clone(),
            host: self.health_host.clone(),
            headers,
            expect: self.health_expect.clone(),
            body: self.health_body.clone(),
            for_tls: tls.into_iter().flatten().collect(),
            for_http: http.into_iter().flatten().collect(),
        }
    }
}

fn header(text: &str) -> Result<v1::HttpField, String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE, as in 'Accept: */*'")?;
    Ok(v1::HttpField { name: name.to_owned(), value: value.trim().to_owned() })
}

/// An empty text would mean to verify nothing, so a file without certificates must not get through.
fn certificates(path: &PathBuf) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "has a private key in it, which the cluster must not get; leave only certificates".to_owned()
        );
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err("must have certificates in PEM form".to_owned());
    }
    Ok(text)
}

impl CheckFlags {
    /// True when nothing was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.for_tls.is_empty() && self.for_http.is_empty()
    }

    /// Puts what was given onto a check, and notes what does not go with it.
    pub(crate) fn onto(self, mut kind: Kind, input: &mut Input) -> Kind {
        let word = Check::word(&kind);
        let mut refuse = |given: &[(&'static str, String)], with: &str| {
            for (label, value) in given {
                input.refuse(label, value, &format!("goes with --health {with}, and this check is {word}"));
            }
        };
        if !matches!(word, "tls" | "https") {
            refuse(&self.for_tls, "tls or https");
        }
        if !matches!(word, "http" | "https") {
            refuse(&self.for_http, "http or https");
        }
        match &mut kind {
            Kind::Tls(tls) => self.set_tls(tls),
            Kind::Http(http) => {
                if let Some(tls) = &mut http.tls {
                    self.set_tls(tls);
                }
                self.set_http(http);
            }
            Kind::Tcp(_) | Kind::None(_) => {}
        }
        kind
    }

    fn set_tls(&self, tls: &mut v1::TlsCheck) {
        set(&mut tls.server_name, &self.server_name);
        set(&mut tls.ca, &self.ca);
        set(&mut tls.min_days_left, &self.min_days);
    }

    fn set_http(self, http: &mut v1::HttpCheck) {
        set(&mut http.method, &self.method);
        set(&mut http.path, &self.path);
        set(&mut http.host, &self.host);
        set(&mut http.body_contains, &self.body);
        if !self.headers.is_empty() {
            http.headers = self.headers;
        }
        if !self.expect.is_empty() {
            http.expect = self.expect;
        }
    }
}

fn set<T: Clone>(to: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        to.clone_from(given);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write as _;

    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn everything() -> CheckSettings {
        CheckSettings {
            health: None,
            health_server_name: text("api.example"),
            health_ca: None,
            health_min_days: Some(14),
            health_method: text("HEAD"),
            health_path: text("/readyz"),
            health_host: text("api.example:6443"),
            health_header: vec!["Accept: */*".to_owned(), "X-Probe:1".to_owned()],
            health_expect: vec!["200-299".to_owned(), "401".to_owned()],
            health_body: text("ok"),
        }
    }

    fn refused(settings: &CheckSettings, check: Check) -> String {
        let mut input = Input::default();
        settings.flags(&mut input).onto(check.plain(), &mut input);
        input.finish().unwrap_err().render()
    }

    #[test]
    fn everything_goes_with_https() {
        let mut input = Input::default();
        let kind = everything().flags(&mut input).onto(Check::Https.plain(), &mut input);
        input.finish().unwrap();
        let field =
            |name: &str, value: &str| v1::HttpField { name: name.to_owned(), value: value.to_owned() };
        let expected = v1::HttpCheck {
            tls: Some(v1::TlsCheck {
                server_name: "api.example".to_owned(),
                ca: String::new(),
                min_days_left: 14,
            }),
            method: "HEAD".to_owned(),
            path: "/readyz".to_owned(),
            host: "api.example:6443".to_owned(),
            headers: vec![field("Accept", "*/*"), field("X-Probe", "1")],
            expect: vec!["200-299".to_owned(), "401".to_owned()],
            body_contains: "ok".to_owned(),
        };
        assert_eq!(kind, Kind::Http(expected));
    }

    #[test]
    fn what_does_not_go_with_the_kind_is_refused() {
        let labels = |text: String| -> Vec<String> {
            text.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
        };
        let tls = ["--health-server-name", "--health-min-days"];
        let http = [
            "--health-method",
            "--health-path",
            "--health-host",
            "--health-header",
            "--health-expect",
            "--health-body",
        ];
        for check in [Check::Tcp, Check::None] {
            assert_eq!(labels(refused(&everything(), check)), [&tls[..], &http[..]].concat());
        }
        assert_eq!(labels(refused(&everything(), Check::Tls)), http);
        assert_eq!(labels(refused(&everything(), Check::Http)), tls);
        let path = CheckSettings { health_path: text("/x"), ..CheckSettings::default() };
        assert_eq!(
            refused(&path, Check::Tls),
            "error: --health-path \"/x\": goes with --health http or https, and this check is tls"
        );
    }

    #[test]
    fn only_what_is_given_changes() {
        let mut input = Input::default();
        let before = everything().flags(&mut input).onto(Check::Https.plain(), &mut input);
        let path = CheckSettings { health_path: text("/livez"), ..CheckSettings::default() };
        let after = path.flags(&mut input).onto(before.clone(), &mut input);
        input.finish().unwrap();
        let Kind::Http(mut expected) = before else { panic!("{before:?}") };
        expected.path = "/livez".to_owned();
        assert_eq!(after, Kind::Http(expected));
    }

    #[test]
    fn values_that_do_not_parse_are_told_together() {
        let settings = CheckSettings {
            health_method: text("POST"),
            health_expect: vec!["200".to_owned(), "2xx".to_owned()],
            health_header: vec!["nothing".to_owned()],
            ..CheckSettings::default()
        };
        assert_eq!(
            refused(&settings, Check::Http),
            "error: --health-method \"POST\": must be GET, HEAD or OPTIONS\n\
             error: --health-expect \"2xx\": must be a status of 100 to 599, or a range as in 200-399\n\
             error: --health-header \"nothing\": must be NAME: VALUE, as in 'Accept: */*'"
        );
    }

    #[test]
    fn a_file_of_certificates_is_sent_and_nothing_else() {
        let ca = |content: Option<&str>| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let path = file.path().to_owned();
            match content {
                Some(content) => file.write_all(content.as_bytes()).unwrap(),
                None => file.close().unwrap(),
            }
            certificates(&path)
        };
        let pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        assert_eq!(ca(Some(pem)), Ok(pem.to_owned()));
        assert!(ca(Some("")).unwrap_err().contains("certificates in PEM form"));
        let key = format!("{pem}-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n");
        assert!(ca(Some(&key)).unwrap_err().contains("private key"));
        assert!(ca(None).unwrap_err().starts_with("cannot be read: "));
    }
}
