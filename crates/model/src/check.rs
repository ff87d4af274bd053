//! What a health check does.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::defaults;
use crate::violation::Violations;

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CheckKind {
    /// Connects and closes again.
    #[default]
    Tcp,
    /// Connects and does a TLS handshake.
    Tls(TlsCheck),
    /// Sends an HTTP/1.1 request, over TLS if so told, and looks at the answer.
    Http(HttpCheck),
    /// Calls `Check` of `grpc.health.v1.Health`, over TLS if so told; `SERVING` is good.
    Grpc(GrpcCheck),
    /// Sends bytes and looks for others in the answer, over TLS if so told.
    Exchange(ExchangeCheck),
    /// No check: a backend counts as usable until it is drained or disabled.
    None,
}

/// How a check does TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsCheck {
    /// Name sent as SNI, and that a verified certificate must be for; `None` for the name that requests ask for when one is
    /// set, else the backend's name, else none, and then a verified certificate must be for the backend's address.
    pub server_name: Option<Arc<str>>,
    /// Whom to trust, as PEM certificates; `None` verifies nothing, as for the self-signed certificates of control
    /// planes.
    pub ca: Option<Arc<str>>,
    /// Days that the certificate must still be valid for; 0 does not look.
    pub min_days_left: u32,
    /// What the check proves itself with; `None` shows no certificate.
    pub identity: Option<ClientIdentity>,
}

/// A client's certificate. The files are each member's own and are read anew when they change, so that keys are neither
/// replicated nor kept when they are rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Path of the certificate and its chain, PEM, on each member.
    pub certificate_file: Arc<str>,
    /// Path of its key, PEM, on each member.
    pub key_file: Arc<str>,
}

/// A check by the gRPC health protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcCheck {
    /// How to do TLS; `None` for HTTP/2 without.
    pub tls: Option<TlsCheck>,
    /// Whom requests ask for (`:authority`); `None` for the server name of `tls`, else the backend's name or address, with
    /// the port unless it is the scheme's own.
    pub authority: Option<Arc<str>>,
    /// The service that is asked about; `None` for the server as a whole.
    pub service: Option<Arc<str>>,
}

/// A check that sends bytes and expects others, for protocols that have no check of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExchangeCheck {
    /// How to do TLS; `None` for plain TCP.
    pub tls: Option<TlsCheck>,
    /// What is sent once connected; empty where the server speaks first.
    pub send: Arc<[u8]>,
    /// What the first 64 KiB of the answer must contain; not empty.
    pub expect: Arc<[u8]>,
    /// What follows once that was found, in order.
    pub then: Vec<ExchangeStep>,
}

/// A further step of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExchangeStep {
    /// What is sent; may be empty.
    pub send: Arc<[u8]>,
    /// What the next 64 KiB of the answer must contain, from where the step before found its text; not empty.
    pub expect: Arc<[u8]>,
}

/// An HTTP check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// How to do TLS; `None` for plain HTTP.
    pub tls: Option<TlsCheck>,
    /// Method of the request.
    pub method: Method,
    /// Target of the request, with its query if any.
    pub path: Arc<str>,
    /// Value of the Host field; `None` for the backend's name or address, with the port unless it is a name and the scheme's
    /// own port.
    pub host: Option<Arc<str>>,
    /// Path of a file on each member that holds the token of the Authorization field, or its scheme and credentials; `None`
    /// for no such field. The token itself is not replicated.
    pub token_file: Option<Arc<str>>,
    /// Further fields of the request, names and values; none that carries a credential.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Statuses that are good.
    pub expect: Vec<StatusRange>,
    /// Text that the first 64 KiB of the answer's body must contain; `None` does not look.
    pub body_contains: Option<Arc<str>>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            tls: None,
            method: Method::Get,
            path: "/".into(),
            host: None,
            token_file: None,
            headers: Vec::new(),
            expect: vec![StatusRange::GOOD],
            body_contains: None,
        }
    }
}

/// Method of an HTTP check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
}

impl Method {
    /// Parses the method's name; the error is the broken rule.
    ///
    /// # Errors
    /// When it is another method.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "GET" => Ok(Method::Get),
            "HEAD" => Ok(Method::Head),
            "OPTIONS" => Ok(Method::Options),
            _ => Err("must be GET, HEAD or OPTIONS".to_owned()),
        }
    }

    /// The method's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
        }
    }
}

/// A range of HTTP statuses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// 200 to 299.
    pub const GOOD: Self = Self { first: 200, last: 299 };

    /// Parses `200` or `200-399`; the error is the broken rule.
    ///
    /// # Errors
    /// When it is neither, a status is not 100 to 599, or the range is empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be a status of 100 to 599, or a range as in 200-399".to_owned();
        let number = |text: &str| {
            let number: u16 = text.parse().ok().filter(|_| text.len() == 3)?;
            (100..=599).contains(&number).then_some(number)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
        if first <= last { Ok(Self { first, last }) } else { Err(wrong()) }
    }

    /// Whether a status is in the range.
    pub fn contains(self, status: u16) -> bool {
        RangeInclusive::new(self.first, self.last).contains(&status)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// A host name or address as SNI and Host fields take it.
fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']'))
}

/// Notes whom requests ask for if it is no host.
fn check_host(field: &str, host: Option<&str>, v: &mut Violations) {
    if let Some(host) = host.filter(|host| !is_host(host)) {
        v.add(field, host, "must be a host name or address, with a port if need be");
    }
}

/// A field name is a token (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    let other = |b| b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || other(b))
}

/// A path of a file that a check reads.
fn is_file(path: &str) -> bool {
    path.starts_with('/') && path.len() <= defaults::CHECK_FILE_MAX && is_printable(path)
}

/// Whether a field of this name carries a credential, by the names that are in use: what is in a pool is replicated, kept in
/// snapshots, and shown to whoever may read pools.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "password",
        "passwd",
        "api-key",
        "apikey",
        "access-key",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Printable ASCII, so that no value can end a line of the request (RFC 9112 §11.1).
fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

impl TlsCheck {
    fn check(&self, v: &mut Violations) {
        const FIELD: &str = "pool.health_check.tls";
        if let Some(name) = self.server_name.as_deref().filter(|name| !is_host(name)) {
            v.add(format!("{FIELD}.server_name"), name, "must be a host name of at most 253 characters");
        }
        let is_pem =
            |ca: &str| ca.contains("-----BEGIN CERTIFICATE-----") && ca.len() <= defaults::CHECK_CA_MAX;
        if let Some(ca) = self.ca.as_deref().filter(|ca| !is_pem(ca)) {
            let rule = format!("must be PEM certificates of at most {} bytes", defaults::CHECK_CA_MAX);
            v.add(format!("{FIELD}.ca"), ca, rule);
        }
        if self.min_days_left > defaults::CHECK_DAYS_MAX {
            let rule = format!("must be 0 to {}", defaults::CHECK_DAYS_MAX);
            v.add(format!("{FIELD}.min_days_left"), self.min_days_left, rule);
        }
        let Some(ClientIdentity { certificate_file, key_file }) = &self.identity else { return };
        for (name, path) in [("client_certificate_file", certificate_file), ("client_key_file", key_file)] {
            if !is_file(path) {
                let max = defaults::CHECK_FILE_MAX;
                let rule = format!(
                    "must be the absolute path of a file on every member, at most {max} characters; certificate and key go together"
                );
                v.add(format!("{FIELD}.{name}"), path, rule);
            }
        }
    }
}

impl GrpcCheck {
    fn check(&self, v: &mut Violations) {
        const FIELD: &str = "pool.health_check.grpc";
        if let Some(tls) = &self.tls {
            tls.check(v);
        }
        check_host(&format!("{FIELD}.authority"), self.authority.as_deref(), v);
        let max = defaults::CHECK_TEXT_MAX;
        let bad =
            |name: &&str| name.is_empty() || name.len() > max || !name.bytes().all(|b| b.is_ascii_graphic());
        if let Some(name) = self.service.as_deref().filter(bad) {
            let rule = format!("must be at most {max} printable ASCII characters, no spaces");
            v.add(format!("{FIELD}.service"), name, rule);
        }
    }
}

impl ExchangeCheck {
    fn check(&self, v: &mut Violations) {
        const FIELD: &str = "pool.health_check.exchange";
        if let Some(tls) = &self.tls {
            tls.check(v);
        }
        let max = defaults::CHECK_EXCHANGE_MAX;
        let bytes = |bytes: &[u8]| format!("{} bytes", bytes.len());
        let mut step = |at: &str, send: &[u8], expect: &[u8]| {
            if send.len() > max {
                v.add(format!("{at}.send"), bytes(send), format!("must be at most {max} bytes"));
            }
            if expect.is_empty() || expect.len() > max {
                v.add(format!("{at}.expect"), bytes(expect), format!("must be 1 to {max} bytes"));
            }
        };
        step(FIELD, &self.send, &self.expect);
        for (number, next) in self.then.iter().enumerate() {
            step(&format!("{FIELD}.then[{number}]"), &next.send, &next.expect);
        }
        let max = defaults::CHECK_STEPS_MAX - 1;
        if self.then.len() > max {
            v.add(
                format!("{FIELD}.then"),
                format!("{} steps", self.then.len()),
                format!("must be at most {max}"),
            );
        }
    }
}

impl HttpCheck {
    fn check(&self, v: &mut Violations) {
        const FIELD: &str = "pool.health_check.http";
        let max = defaults::CHECK_TEXT_MAX;
        if let Some(tls) = &self.tls {
            tls.check(v);
        }
        if !self.path.starts_with('/')
            || self.path.len() > max
            || !self.path.bytes().all(|b| b.is_ascii_graphic())
        {
            let rule =
                format!("must begin with '/' and have at most {max} printable ASCII characters, no spaces");
            v.add(format!("{FIELD}.path"), &self.path, rule);
        }
        check_host(&format!("{FIELD}.host"), self.host.as_deref(), v);
        if let Some(path) = self.token_file.as_deref().filter(|path| !is_file(path)) {
            let max = defaults::CHECK_FILE_MAX;
            let rule =
                format!("must be the absolute path of a file on every member, at most {max} characters");
            v.add(format!("{FIELD}.token_file"), path, rule);
        }
        if self.headers.len() > defaults::CHECK_HEADERS_MAX {
            let rule = format!("must be at most {}", defaults::CHECK_HEADERS_MAX);
            v.add(format!("{FIELD}.headers"), format!("{} fields", self.headers.len()), rule);
        }
        for (name, value) in &self.headers {
            let own = ["host", "connection", "content-length", "transfer-encoding"];
            if !is_token(name) || own.contains(&name.to_ascii_lowercase().as_str()) {
                let rule = "must be a field name; host, connection and lengths are set by the check itself";
                v.add(format!("{FIELD}.headers"), name, rule);
            } else if is_credential(name) {
                let rule = "carries a credential, which the cluster does not keep: put it into a file on every member, \
                            and name that as token_file";
                v.add(format!("{FIELD}.headers"), name, rule);
            }
            if !is_printable(value) || value.len() > max {
                v.add(
                    format!("{FIELD}.headers"),
                    value,
                    format!("must be at most {max} printable ASCII characters"),
                );
            }
        }
        if self.expect.is_empty() || self.expect.len() > defaults::CHECK_RANGES_MAX {
            let rule = format!("must be 1 to {}", defaults::CHECK_RANGES_MAX);
            v.add(format!("{FIELD}.expect"), format!("{} ranges", self.expect.len()), rule);
        }
        if let Some(text) = self.body_contains.as_deref().filter(|text| text.is_empty() || text.len() > max) {
            v.add(format!("{FIELD}.body_contains"), text, format!("must be 1 to {max} bytes"));
        }
        if self.body_contains.is_some() && self.method == Method::Head {
            v.add(
                format!("{FIELD}.body_contains"),
                "",
                "cannot be found in the answer to HEAD, which has no body",
            );
        }
    }
}

impl TlsCheck {
    fn size(&self) -> usize {
        let files =
            self.identity.as_ref().map_or(0, |files| files.certificate_file.len() + files.key_file.len());
        length(self.server_name.as_ref()) + length(self.ca.as_ref()) + files
    }
}

fn length(text: Option<&Arc<str>>) -> usize {
    text.map_or(0, |text| text.len())
}

impl CheckKind {
    /// About how many bytes its texts take; every version counts alike.
    pub(crate) fn weight(&self) -> usize {
        let tls = |tls: &Option<TlsCheck>| tls.as_ref().map_or(0, TlsCheck::size);
        match self {
            CheckKind::Tcp | CheckKind::None => 0,
            CheckKind::Tls(check) => check.size(),
            CheckKind::Http(check) => {
                let fields: usize = check.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                let texts = [&check.host, &check.token_file, &check.body_contains];
                let texts: usize = texts.into_iter().map(|text| length(text.as_ref())).sum();
                tls(&check.tls) + check.path.len() + fields + texts
            }
            CheckKind::Grpc(check) => {
                tls(&check.tls) + length(check.authority.as_ref()) + length(check.service.as_ref())
            }
            CheckKind::Exchange(check) => {
                let then: usize = check.then.iter().map(|step| step.send.len() + step.expect.len()).sum();
                tls(&check.tls) + check.send.len() + check.expect.len() + then
            }
        }
    }

    /// Notes every setting that is out of bounds.
    pub fn check(&self, v: &mut Violations) {
        match self {
            CheckKind::Tls(tls) => tls.check(v),
            CheckKind::Http(http) => http.check(v),
            CheckKind::Grpc(grpc) => grpc.check(v),
            CheckKind::Exchange(exchange) => exchange.check(v),
            CheckKind::Tcp | CheckKind::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn status_ranges_round_trip() {
        for text in ["200", "200-299", "100-599"] {
            assert_eq!(StatusRange::parse(text).map(|range| range.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "99", "600", "300-200", "200-", "2000", "+20", "200-299-300"] {
            assert!(StatusRange::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_request() {
        let bad = HttpCheck {
            path: "/a HTTP/1.1\r\nX: y".into(),
            host: Some("a\r\nX: y".into()),
            headers: vec![
                ("a: b".into(), "c".into()),
                ("a".into(), "b\r\nX: y".into()),
                ("Host".into(), "x".into()),
            ],
            ..HttpCheck::default()
        };
        let mut v = Violations::new();
        CheckKind::Http(bad).check(&mut v);
        assert_eq!(v.into_vec().len(), 5);
    }

    #[test]
    fn a_usual_check_is_fine() {
        let check = HttpCheck {
            tls: Some(TlsCheck::default()),
            path: "/readyz?verbose".into(),
            host: Some("api.example:6443".into()),
            headers: vec![("Accept".into(), "*/*".into())],
            ..HttpCheck::default()
        };
        let mut v = Violations::new();
        CheckKind::Http(check).check(&mut v);
        assert!(v.is_empty());
    }
}
