//! Health checks of pools.

use serde::Serialize;
use trestle_api::v1;
use trestle_api::v1::health_check::Kind;
use trestle_model::InitialState;

use super::span::{self, Span};
use super::{or_dash, word};
use crate::commands::check_settings::Check;
use crate::escape;

/// How a pool's backends are checked.
#[derive(Debug, Serialize)]
pub(crate) struct CheckView {
    kind: &'static str,
    /// `None` when the check goes without TLS.
    tls: Option<TlsView>,
    /// `None` unless the kind is http or https.
    http: Option<HttpView>,
    /// `None` unless the kind is grpc.
    grpc: Option<GrpcView>,
    /// `None` unless the kind is exchange.
    exchange: Option<ExchangeView>,
    #[serde(flatten, serialize_with = "span::interval")]
    interval: Option<Span>,
    #[serde(flatten, serialize_with = "span::fast_interval")]
    fast_interval: Option<Span>,
    #[serde(flatten, serialize_with = "span::timeout")]
    timeout: Option<Span>,
    rise: Option<u32>,
    fall: Option<u32>,
    jitter_percent: Option<u32>,
    /// `None` for the backend's own.
    port: Option<u32>,
    initial: &'static str,
}

#[derive(Debug, Serialize)]
struct TlsView {
    server_name: Option<String>,
    /// `None` when nothing is verified.
    ca: Option<String>,
    min_days: u32,
    /// Path on each member; `None` when the check proves nothing.
    client_cert: Option<String>,
    client_key: Option<String>,
}

#[derive(Debug, Serialize)]
struct GrpcView {
    /// `None` for the server name, or what the backend is known by.
    authority: Option<String>,
    /// `None` for the server as a whole.
    service: Option<String>,
}

#[derive(Debug, Serialize)]
struct ExchangeView {
    /// With escapes, as it is typed; empty when nothing is sent.
    send: String,
    /// With escapes, as it is typed.
    expect: String,
    /// What follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    then: Vec<ExchangeView>,
}

#[derive(Debug, Serialize)]
struct HttpView {
    method: String,
    path: String,
    /// `None` for what the backend is known by.
    host: Option<String>,
    /// Each as it is typed, "Name: value".
    headers: Vec<String>,
    /// `None` when none is sent.
    token_file: Option<String>,
    expect: Vec<String>,
    body: Option<String>,
}

fn set(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<v1::HealthCheck> for CheckView {
    fn from(check: v1::HealthCheck) -> Self {
        let initial = word::<InitialState>(check.initial_state);
        let kind = check.kind.unwrap_or_else(|| Check::Tcp.plain());
        let word = Check::word(&kind);
        let (mut tls, mut http, mut grpc, mut exchange) = (None, None, None, None);
        match kind {
            Kind::Tls(check) => tls = Some(check),
            Kind::Http(mut check) => {
                tls = check.tls.take();
                http = Some(check.into());
            }
            Kind::Grpc(check) => {
                tls = check.tls;
                grpc = Some(GrpcView { authority: set(check.authority), service: set(check.service) });
            }
            Kind::Exchange(check) => {
                tls = check.tls;
                let step = |send: &[u8], expect: &[u8]| ExchangeView {
                    send: escape::show(send),
                    expect: escape::show(expect),
                    then: Vec::new(),
                };
                let then = check.then.iter().map(|next| step(&next.send, &next.expect)).collect();
                exchange = Some(ExchangeView { then, ..step(&check.send, &check.expect) });
            }
            Kind::Tcp(_) | Kind::None(_) => {}
        }
        Self {
            kind: word,
            tls: tls.map(TlsView::from),
            http,
            grpc,
            exchange,
            interval: Span::setting(check.interval.as_ref()),
            fast_interval: Span::setting(check.fast_interval.as_ref()),
            timeout: Span::setting(check.timeout.as_ref()),
            rise: check.rise,
            fall: check.fall,
            jitter_percent: check.jitter_percent,
            port: (check.port != 0).then_some(check.port),
            initial,
        }
    }
}

impl From<v1::TlsCheck> for TlsView {
    fn from(tls: v1::TlsCheck) -> Self {
        Self {
            server_name: set(tls.server_name),
            ca: set(tls.ca),
            min_days: tls.min_days_left,
            client_cert: set(tls.client_certificate_file),
            client_key: set(tls.client_key_file),
        }
    }
}

impl From<v1::HttpCheck> for HttpView {
    fn from(http: v1::HttpCheck) -> Self {
        let headers = http.headers.into_iter().map(|field| format!("{}: {}", field.name, field.value));
        Self {
            method: http.method,
            path: http.path,
            host: set(http.host),
            headers: headers.collect(),
            token_file: set(http.token_file),
            expect: http.expect,
            body: set(http.body_contains),
        }
    }
}

impl HttpView {
    fn words(&self) -> String {
        let mut words = format!("{} {}", self.method, self.path);
        if let Some(host) = &self.host {
            words.push_str(&format!(" host {host}"));
        }
        for header in &self.headers {
            words.push_str(&format!(" header {header:?}"));
        }
        if let Some(file) = &self.token_file {
            words.push_str(&format!(" token {file}"));
        }
        words.push_str(&format!(" expect {}", self.expect.join(",")));
        if let Some(body) = &self.body {
            words.push_str(&format!(" body {body:?}"));
        }
        words
    }
}

impl TlsView {
    /// What is not the default, each word after a space.
    fn words(&self) -> String {
        let mut words = String::new();
        if let Some(name) = &self.server_name {
            words.push_str(&format!(" name {name}"));
        }
        if let Some(ca) = &self.ca {
            let count = ca.matches("-----BEGIN CERTIFICATE-----").count();
            let certificates = if count == 1 { "certificate" } else { "certificates" };
            words.push_str(&format!(" trust {count} {certificates}"));
        }
        if self.min_days > 0 {
            words.push_str(&format!(" min {} days", self.min_days));
        }
        if let Some(file) = &self.client_cert {
            words.push_str(&format!(" certificate {file}"));
        }
        if let Some(file) = &self.client_key {
            words.push_str(&format!(" key {file}"));
        }
        words
    }
}

impl GrpcView {
    fn words(&self) -> String {
        let word = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!(" {name} {value}")).unwrap_or_default()
        };
        word("host", &self.authority) + &word("service", &self.service)
    }
}

impl ExchangeView {
    fn words(&self) -> String {
        let send = if self.send.is_empty() { String::new() } else { format!(" send '{}'", self.send) };
        let then: String = self.then.iter().map(ExchangeView::words).collect();
        format!("{send} expect '{}'{then}", self.expect)
    }
}

impl CheckView {
    /// Whether anything is checked.
    pub(super) fn is_made(&self) -> bool {
        self.kind != "none"
    }

    /// What it does, for example "https GET /readyz expect 200-299".
    fn words(&self) -> String {
        let http = self.http.as_ref().map(|http| format!(" {}", http.words())).unwrap_or_default();
        let grpc = self.grpc.as_ref().map(GrpcView::words).unwrap_or_default();
        let exchange = self.exchange.as_ref().map(ExchangeView::words).unwrap_or_default();
        // The words tls and https say it themselves.
        let over = if self.tls.is_some() && (self.grpc.is_some() || self.exchange.is_some()) {
            " over TLS"
        } else {
            ""
        };
        let tls = self.tls.as_ref().map(TlsView::words).unwrap_or_default();
        format!("{}{http}{grpc}{exchange}{over}{tls}", self.kind)
    }

    /// What it does, and how often.
    pub(super) fn brief(&self) -> String {
        match (self.kind, &self.interval) {
            ("none", _) | (_, None) => self.words(),
            (_, Some(interval)) => format!("{} every {interval}", self.words()),
        }
    }

    /// All settings.
    pub(super) fn full(&self) -> String {
        if self.kind == "none" {
            return self.words();
        }
        let count = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let port = self.port.map_or_else(|| "the backend's own".to_owned(), |port| port.to_string());
        format!(
            "{} every {} ({} while in doubt), timeout {}, rise {}, fall {}, jitter {} %, port {port}, at first {}",
            self.words(),
            or_dash(self.interval.as_ref()),
            or_dash(self.fast_interval.as_ref()),
            or_dash(self.timeout.as_ref()),
            count(self.rise),
            count(self.fall),
            count(self.jitter_percent),
            self.initial,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::args::Format;
    use crate::output::render;
    use crate::tests::sample::{sample_https, sample_pool};

    fn view(kind: Kind) -> CheckView {
        v1::HealthCheck { kind: Some(kind), ..sample_pool("web").health_check.unwrap() }.into()
    }

    #[test]
    fn a_line_tells_what_a_check_does() {
        let https = v1::HttpCheck {
            tls: Some(v1::TlsCheck::default()),
            method: "GET".to_owned(),
            path: "/readyz".to_owned(),
            expect: vec!["200-299".to_owned()],
            ..v1::HttpCheck::default()
        };
        let plain = v1::HttpCheck { tls: None, ..https.clone() };
        let tls = v1::TlsCheck { server_name: "cart".to_owned(), ..v1::TlsCheck::default() };
        let grpc = v1::GrpcCheck {
            tls: Some(tls),
            service: "shop.Cart".to_owned(),
            authority: "cart.example".to_owned(),
        };
        let exchange = v1::ExchangeCheck {
            send: b"PING\r\n".to_vec(),
            expect: b"+PONG".to_vec(),
            then: vec![v1::ExchangeStep { send: b"QUIT".to_vec(), expect: b"+OK".to_vec() }],
            tls: None,
        };
        for (kind, brief) in [
            (Check::Tcp.plain(), "tcp every 2s"),
            (Check::Tls.plain(), "tls every 2s"),
            (Check::None.plain(), "none"),
            (Kind::Http(plain), "http GET /readyz expect 200-299 every 2s"),
            (Kind::Http(https), "https GET /readyz expect 200-299 every 2s"),
            (
                sample_https(),
                "https HEAD /readyz?verbose host api.example:6443 header \"Accept: */*\" header \"X-Probe: 1\" \
                 expect 200-299,401 body \"o\\nk\" name api.example trust 2 certificates min 14 days \
                 certificate /etc/trestle/check.pem key /etc/trestle/check.key every 2s",
            ),
            (Check::Grpc.plain(), "grpc every 2s"),
            (Kind::Grpc(grpc), "grpc host cart.example service shop.Cart over TLS name cart every 2s"),
            (
                Kind::Exchange(exchange),
                "exchange send 'PING\\r\\n' expect '+PONG' send 'QUIT' expect '+OK' every 2s",
            ),
        ] {
            assert_eq!(view(kind).brief(), brief);
        }
        let asks =
            v1::HttpCheck { token_file: "/etc/trestle/checks/t".to_owned(), ..v1::HttpCheck::default() };
        let words = view(Kind::Http(asks)).full();
        assert!(words.contains(" token /etc/trestle/checks/t expect"), "{words}");
        assert_eq!(
            view(Check::Tls.plain()).full(),
            "tls every 2s (500ms while in doubt), timeout 1s, rise 2, fall 3, jitter 10 %, port the backend's own, \
             at first unknown"
        );
    }

    #[test]
    fn documents_have_every_setting() {
        let json = render(Format::Json, &view(sample_https()), String::new).unwrap();
        assert_eq!(
            json,
            r#"{
  "kind": "https",
  "tls": {
    "server_name": "api.example",
    "ca": "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nMIJ\n-----END CERTIFICATE-----\n",
    "min_days": 14,
    "client_cert": "/etc/trestle/check.pem",
    "client_key": "/etc/trestle/check.key"
  },
  "http": {
    "method": "HEAD",
    "path": "/readyz?verbose",
    "host": "api.example:6443",
    "headers": [
      "Accept: */*",
      "X-Probe: 1"
    ],
    "token_file": null,
    "expect": [
      "200-299",
      "401"
    ],
    "body": "o\nk"
  },
  "grpc": null,
  "exchange": null,
  "interval": "2s",
  "interval_seconds": 2.0,
  "fast_interval": "500ms",
  "fast_interval_seconds": 0.5,
  "timeout": "1s",
  "timeout_seconds": 1.0,
  "rise": 2,
  "fall": 3,
  "jitter_percent": 10,
  "port": null,
  "initial": "unknown"
}
"#
        );
    }
}
