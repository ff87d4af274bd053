//! What health checks do.

use std::sync::Arc;

use trestle_model::{
    CheckKind, ClientIdentity, ExchangeCheck, ExchangeStep, GrpcCheck, HttpCheck, Method, StatusRange,
    TlsCheck, Violations,
};

use crate::v1;
use crate::v1::health_check::Kind;

const HTTP: &str = "pool.health_check.http";

pub(super) fn render(kind: &CheckKind) -> Kind {
    match kind {
        CheckKind::Tcp => Kind::Tcp(v1::TcpCheck {}),
        CheckKind::None => Kind::None(v1::NoCheck {}),
        CheckKind::Tls(tls) => Kind::Tls(render_tls(tls)),
        CheckKind::Http(http) => Kind::Http(v1::HttpCheck {
            tls: http.tls.as_ref().map(render_tls),
            method: http.method.as_str().to_owned(),
            path: http.path.to_string(),
            host: optional_text(http.host.as_ref()),
            headers: http
                .headers
                .iter()
                .map(|(name, value)| v1::HttpField { name: name.to_string(), value: value.to_string() })
                .collect(),
            expect: http.expect.iter().map(ToString::to_string).collect(),
            body_contains: optional_text(http.body_contains.as_ref()),
            token_file: optional_text(http.token_file.as_ref()),
        }),
        CheckKind::Grpc(grpc) => Kind::Grpc(v1::GrpcCheck {
            tls: grpc.tls.as_ref().map(render_tls),
            service: optional_text(grpc.service.as_ref()),
            authority: optional_text(grpc.authority.as_ref()),
        }),
        CheckKind::Exchange(exchange) => Kind::Exchange(v1::ExchangeCheck {
            tls: exchange.tls.as_ref().map(render_tls),
            send: exchange.send.to_vec(),
            expect: exchange.expect.to_vec(),
            then: exchange
                .then
                .iter()
                .map(|step| v1::ExchangeStep { send: step.send.to_vec(), expect: step.expect.to_vec() })
                .collect(),
        }),
    }
}

fn render_tls(tls: &TlsCheck) -> v1::TlsCheck {
    v1::TlsCheck {
        server_name: optional_text(tls.server_name.as_ref()),
        ca: optional_text(tls.ca.as_ref()),
        min_days_left: tls.min_days_left,
        client_certificate_file: optional_text(tls.identity.as_ref().map(|i| &i.certificate_file)),
        client_key_file: optional_text(tls.identity.as_ref().map(|i| &i.key_file)),
    }
}

/// Proto3 strings that are not set are empty.
fn optional_text(text: Option<&Arc<str>>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn optional(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// Parses a check; bounds of its values are the model's to check.
pub(super) fn parse(kind: &Kind, v: &mut Violations) -> CheckKind {
    match kind {
        Kind::Tcp(_) => CheckKind::Tcp,
        Kind::None(_) => CheckKind::None,
        Kind::Tls(tls) => CheckKind::Tls(parse_tls(tls)),
        Kind::Http(http) => CheckKind::Http(parse_http(http, v)),
        Kind::Grpc(grpc) => CheckKind::Grpc(GrpcCheck {
            tls: grpc.tls.as_ref().map(parse_tls),
            authority: optional(&grpc.authority),
            service: optional(&grpc.service),
        }),
        Kind::Exchange(exchange) => CheckKind::Exchange(ExchangeCheck {
            tls: exchange.tls.as_ref().map(parse_tls),
            send: exchange.send.as_slice().into(),
            expect: exchange.expect.as_slice().into(),
            then: exchange
                .then
                .iter()
                .map(|step| ExchangeStep {
                    send: step.send.as_slice().into(),
                    expect: step.expect.as_slice().into(),
                })
                .collect(),
        }),
    }
}

fn parse_tls(tls: &v1::TlsCheck) -> TlsCheck {
    let (certificate_file, key_file) = (&tls.client_certificate_file, &tls.client_key_file);
    // One without the other is refused by the model's check, for it is no path.
    let identity = (!certificate_file.is_empty() || !key_file.is_empty()).then(|| ClientIdentity {
        certificate_file: certificate_file.as_str().into(),
        key_file: key_file.as_str().into(),
    });
    TlsCheck {
        server_name: optional(&tls.server_name),
        ca: optional(&tls.ca),
        min_days_left: tls.min_days_left,
        identity,
    }
}

fn parse_http(http: &v1::HttpCheck, v: &mut Violations) -> HttpCheck {
    let default = HttpCheck::default();
    let method = match http.method.as_str() {
        "" => None,
        method => v.take(&format!("{HTTP}.method"), method, Method::parse(method)),
    };
    let range = |text: &String| v.take(&format!("{HTTP}.expect"), text, StatusRange::parse(text));
    let expect: Vec<_> = http.expect.iter().filter_map(range).collect();
    HttpCheck {
        tls: http.tls.as_ref().map(parse_tls),
        method: method.unwrap_or(default.method),
        path: optional(&http.path).unwrap_or(default.path),
        host: optional(&http.host),
        headers: http.headers.iter().map(|f| (f.name.as_str().into(), f.value.as_str().into())).collect(),
        expect: if expect.is_empty() { default.expect } else { expect },
        body_contains: optional(&http.body_contains),
        token_file: optional(&http.token_file),
    }
}
