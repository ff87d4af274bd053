//! Settings of a health check as they were given, put onto a check of some kind.

use std::path::Path;

use trestle_api::v1;
use trestle_api::v1::health_check::Kind;
use trestle_model::StatusRange;

use super::check_settings::Check;
use crate::escape;
use crate::input::Input;

/// Which checks a setting goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppliesTo {
    /// Those that do TLS, or can.
    Tls,
    /// Those that can do TLS or not, and have no kind of their own for it.
    OptionalTls,
    /// Those by HTTP.
    Http,
    /// Those whose requests ask for somebody.
    Host,
    /// Those whose answer is looked at by a setting.
    Answer,
    /// Those by gRPC.
    Grpc,
    /// Those that send bytes.
    Exchange,
}

impl AppliesTo {
    fn fits(self, check: &str) -> bool {
        self.kinds().contains(&check)
    }

    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Tls => &["tls", "https", "grpc", "exchange"],
            Self::OptionalTls => &["grpc", "exchange"],
            Self::Http => &["http", "https"],
            Self::Host => &["http", "https", "grpc"],
            Self::Answer => &["http", "https", "exchange"],
            Self::Grpc => &["grpc"],
            Self::Exchange => &["exchange"],
        }
    }

    /// "http, https or exchange".
    fn words(self) -> String {
        match self.kinds() {
            [front @ .., last] if !front.is_empty() => format!("{} or {last}", front.join(", ")),
            kinds => kinds.concat(),
        }
    }
}

/// Settings of a check as they were given, parsed as far as they can be before its kind is known.
#[derive(Debug, Default)]
pub(crate) struct CheckFlags {
    /// Whether to do TLS, where there is a choice.
    pub(super) over_tls: Option<bool>,
    /// Setting of TLS.
    pub(super) server_name: Option<String>,
    /// Setting of TLS: PEM.
    pub(super) ca: Option<String>,
    /// Setting of TLS.
    pub(super) min_days: Option<u32>,
    /// Setting of TLS: a path on each member.
    pub(super) client_cert: Option<String>,
    /// Setting of TLS: a path on each member.
    pub(super) client_key: Option<String>,
    /// Setting of HTTP.
    pub(super) method: Option<String>,
    /// Setting of HTTP.
    pub(super) path: Option<String>,
    /// Setting of HTTP.
    pub(super) host: Option<String>,
    /// Setting of HTTP.
    pub(super) headers: Vec<v1::HttpField>,
    /// Setting of HTTP: a path on each member.
    pub(super) token_file: Option<String>,
    /// Setting of HTTP.
    pub(super) body: Option<String>,
    /// Statuses of HTTP, or text that an exchange expects: what the kind makes of them.
    pub(super) expect: Vec<String>,
    /// Setting of gRPC.
    pub(super) service: Option<String>,
    /// Setting of an exchange: what is sent in its steps.
    pub(super) send: Vec<Vec<u8>>,
    /// Each of the above as it was typed.
    pub(super) typed: Vec<(AppliesTo, &'static str, String)>,
}

impl CheckFlags {
    /// True when nothing was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.typed.is_empty()
    }

    /// Puts what was given onto a check, and notes what does not go with it.
    pub(crate) fn onto(self, mut kind: Kind, input: &mut Input) -> Kind {
        let word = Check::word(&kind);
        for (with, label, value) in self.typed.iter().filter(|(with, ..)| !with.fits(word)) {
            let rule = format!("goes with --health {}, and this check is {word}", with.words());
            input.refuse(label, value, &rule);
        }
        match &mut kind {
            Kind::Tls(tls) => self.set_tls(tls),
            Kind::Http(http) => {
                if let Some(tls) = &mut http.tls {
                    self.set_tls(tls);
                }
                self.set_http(http, input);
            }
            Kind::Grpc(grpc) => {
                self.choose_tls(&mut grpc.tls, input);
                set(&mut grpc.authority, &self.host);
                set(&mut grpc.service, &self.service);
            }
            Kind::Exchange(exchange) => {
                self.choose_tls(&mut exchange.tls, input);
                self.set_steps(exchange, input);
            }
            Kind::Tcp(_) | Kind::None(_) => {}
        }
        kind
    }

    /// Does TLS when told to, or when a setting of it was given.
    fn choose_tls(&self, tls: &mut Option<v1::TlsCheck>, input: &mut Input) {
        let settings = self.typed.iter().find(|(with, ..)| *with == AppliesTo::Tls);
        match (self.over_tls, settings) {
            (Some(false), Some((_, label, value))) => {
                input.refuse(label, value, "is a setting of TLS, and --health-tls false does without");
            }
            (Some(false), None) => *tls = None,
            (Some(true), _) | (None, Some(_)) => self.set_tls(tls.get_or_insert_default()),
            (None, None) => {}
        }
    }

    fn set_tls(&self, tls: &mut v1::TlsCheck) {
        set(&mut tls.server_name, &self.server_name);
        set(&mut tls.ca, &self.ca);
        set(&mut tls.min_days_left, &self.min_days);
        set(&mut tls.client_certificate_file, &self.client_cert);
        set(&mut tls.client_key_file, &self.client_key);
    }

    fn set_http(self, http: &mut v1::HttpCheck, input: &mut Input) {
        set(&mut http.method, &self.method);
        set(&mut http.path, &self.path);
        set(&mut http.host, &self.host);
        set(&mut http.body_contains, &self.body);
        if !self.headers.is_empty() {
            http.headers = self.headers;
        }
        set(&mut http.token_file, &self.token_file);
        if !self.expect.is_empty() {
            http.expect = self.expect.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
            for range in &http.expect {
                input.valid("--health-expect", range, StatusRange::parse(range));
            }
        }
    }

    /// Puts what is sent and what is expected together as steps. They take turns; with one more to expect than to send the
    /// server speaks first.
    fn set_steps(&self, exchange: &mut v1::ExchangeCheck, input: &mut Input) {
        let steps = std::iter::once((&exchange.send, &exchange.expect))
            .chain(exchange.then.iter().map(|step| (&step.send, &step.expect)));
        let (mut sends, mut expects): (Vec<_>, Vec<_>) =
            steps.map(|(send, expect)| (send.clone(), expect.clone())).unzip();
        // What is empty was not typed.
        sends.retain(|send| !send.is_empty());
        expects.retain(|expect| !expect.is_empty());
        if !self.send.is_empty() {
            sends.clone_from(&self.send);
        }
        if !self.expect.is_empty() {
            let parsed =
                self.expect.iter().map(|text| input.valid("--health-expect", text, escape::parse(text)));
            expects = parsed.map(Option::unwrap_or_default).collect();
        }
        if expects.is_empty() {
            let rule = "is needed with --health exchange: text that the answer contains, as in '+PONG'";
            input.refuse("--health-expect", "", rule);
            return;
        }
        let server_first = expects.len() == sends.len() + 1;
        if expects.len() != sends.len() && !server_first {
            let counts = format!("{} --health-send, {} --health-expect", sends.len(), expects.len());
            let rule = "steps take turns: give as many of both, or one more to expect where the server speaks first; \
                        an update gives all of both";
            input.refuse("--health exchange", &counts, rule);
            return;
        }
        if server_first {
            sends.insert(0, Vec::new());
        }
        let mut steps = sends.into_iter().zip(expects);
        (exchange.send, exchange.expect) = steps.next().unwrap_or_default();
        exchange.then = steps.map(|(send, expect)| v1::ExchangeStep { send, expect }).collect();
    }
}

fn set<T: Clone>(to: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        to.clone_from(given);
    }
}

/// A field of an HTTP request as it is typed, NAME: VALUE.
pub(super) fn header(text: &str) -> Result<v1::HttpField, String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE, as in 'Accept: */*'")?;
    Ok(v1::HttpField { name: name.to_owned(), value: value.trim().to_owned() })
}

/// The path of a file on every member.
pub(super) fn members_file(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Err("must be the absolute path of a file that every member has, as in /etc/trestle/checks/check.pem"
        .to_owned())
}

/// An empty text would mean to verify nothing, so a file without certificates must not get through.
pub(super) fn certificates(path: &Path) -> Result<String, String> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write as _;

    use super::*;

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

    #[test]
    fn kinds_are_listed_in_words() {
        assert_eq!(AppliesTo::Http.words(), "http or https");
        assert_eq!(AppliesTo::Tls.words(), "tls, https, grpc or exchange");
        assert_eq!(AppliesTo::Grpc.words(), "grpc");
    }
}
