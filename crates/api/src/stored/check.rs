//! What health checks do.

use std::sync::Arc;

use trestle_model::{
    CheckKind, ClientIdentity, ExchangeCheck, ExchangeStep, GrpcCheck, HttpCheck, Method, StatusRange,
    TlsCheck,
};

use super::{DecodeError, parsed, required};
use crate::storage;

/// Kind and settings, in the fields that they take.
#[derive(Default)]
pub(super) struct Message {
    pub(super) kind: Option<i32>,
    pub(super) tls: Option<storage::TlsCheck>,
    pub(super) http: Option<storage::HttpCheck>,
    pub(super) grpc: Option<storage::GrpcCheck>,
    pub(super) exchange: Option<storage::ExchangeCheck>,
}

pub(super) fn message(kind: &CheckKind) -> Message {
    let of = |kind: storage::CheckKind| Message { kind: Some(kind.into()), ..Message::default() };
    match kind {
        CheckKind::None => of(storage::CheckKind::None),
        CheckKind::Tcp => of(storage::CheckKind::Tcp),
        CheckKind::Tls(tls) => Message { tls: Some(tls.into()), ..of(storage::CheckKind::Tls) },
        CheckKind::Http(http) => Message { http: Some(http.into()), ..of(storage::CheckKind::Http) },
        CheckKind::Grpc(GrpcCheck { tls, authority, service }) => {
            let grpc = storage::GrpcCheck {
                tls: tls.as_ref().map(Into::into),
                service: service.as_ref().map(text),
                authority: authority.as_ref().map(text),
            };
            Message { grpc: Some(grpc), ..of(storage::CheckKind::Grpc) }
        }
        CheckKind::Exchange(ExchangeCheck { tls, send, expect, then }) => {
            let tls = tls.as_ref().map(Into::into);
            let step = |step: &ExchangeStep| storage::ExchangeStep {
                send: step.send.to_vec(),
                expect: step.expect.to_vec(),
            };
            let then = then.iter().map(step).collect();
            let exchange = storage::ExchangeCheck { tls, send: send.to_vec(), expect: expect.to_vec(), then };
            Message { exchange: Some(exchange), ..of(storage::CheckKind::Exchange) }
        }
    }
}

pub(super) fn kind(message: Message) -> Result<Option<CheckKind>, DecodeError> {
    const MESSAGE: &str = "health check";
    let Some(number) = message.kind else { return Ok(None) };
    let kind = match storage::CheckKind::try_from(number) {
        Ok(storage::CheckKind::None) => CheckKind::None,
        Ok(storage::CheckKind::Tcp) => CheckKind::Tcp,
        Ok(storage::CheckKind::Tls) => {
            CheckKind::Tls(required(MESSAGE, "TLS settings", message.tls)?.try_into()?)
        }
        Ok(storage::CheckKind::Http) => {
            CheckKind::Http(required(MESSAGE, "HTTP settings", message.http)?.try_into()?)
        }
        Ok(storage::CheckKind::Grpc) => {
            let storage::GrpcCheck { tls, service, authority } =
                required(MESSAGE, "gRPC settings", message.grpc)?;
            let tls = tls.map(TryInto::try_into).transpose()?;
            CheckKind::Grpc(GrpcCheck {
                tls,
                authority: authority.map(Into::into),
                service: service.map(Into::into),
            })
        }
        Ok(storage::CheckKind::Exchange) => {
            let exchange = required(MESSAGE, "exchange settings", message.exchange)?;
            let tls = exchange.tls.map(TryInto::try_into).transpose()?;
            CheckKind::Exchange(ExchangeCheck {
                tls,
                send: exchange.send.into(),
                expect: exchange.expect.into(),
                then: exchange
                    .then
                    .into_iter()
                    .map(|step| ExchangeStep { send: step.send.into(), expect: step.expect.into() })
                    .collect(),
            })
        }
        Ok(storage::CheckKind::Unspecified) | Err(_) => {
            return Err(DecodeError::rule("health check kind", number, "is none that this version knows"));
        }
    };
    Ok(Some(kind))
}

fn text(text: &Arc<str>) -> String {
    text.to_string()
}

impl From<&TlsCheck> for storage::TlsCheck {
    fn from(check: &TlsCheck) -> Self {
        let TlsCheck { server_name, ca, min_days_left, identity } = check;
        Self {
            server_name: server_name.as_ref().map(text),
            ca: ca.as_ref().map(text),
            min_days_left: *min_days_left,
            certificate_file: identity.as_ref().map(|i| text(&i.certificate_file)),
            key_file: identity.as_ref().map(|i| text(&i.key_file)),
        }
    }
}

impl TryFrom<storage::TlsCheck> for TlsCheck {
    type Error = DecodeError;

    fn try_from(message: storage::TlsCheck) -> Result<Self, DecodeError> {
        let identity = match (message.certificate_file, message.key_file) {
            (None, None) => None,
            (certificate, key) => Some(ClientIdentity {
                certificate_file: required("TLS check", "certificate file", certificate)?.into(),
                key_file: required("TLS check", "key file", key)?.into(),
            }),
        };
        Ok(Self {
            server_name: message.server_name.map(Into::into),
            ca: message.ca.map(Into::into),
            min_days_left: message.min_days_left,
            identity,
        })
    }
}

impl From<&HttpCheck> for storage::HttpCheck {
    fn from(check: &HttpCheck) -> Self {
        let HttpCheck { tls, method, path, host, token_file, headers, expect, body_contains } = check;
        let field = |(name, value): &(Arc<str>, Arc<str>)| storage::HttpField {
            name: text(name),
            value: text(value),
        };
        Self {
            tls: tls.as_ref().map(Into::into),
            method: method.as_str().to_owned(),
            path: text(path),
            host: host.as_ref().map(text),
            headers: headers.iter().map(field).collect(),
            expect: expect.iter().map(ToString::to_string).collect(),
            body_contains: body_contains.as_ref().map(text),
            token_file: token_file.as_ref().map(text),
        }
    }
}

impl TryFrom<storage::HttpCheck> for HttpCheck {
    type Error = DecodeError;

    fn try_from(message: storage::HttpCheck) -> Result<Self, DecodeError> {
        let range = |text: &String| parsed("expected status", text, StatusRange::parse);
        Ok(Self {
            tls: message.tls.map(TryInto::try_into).transpose()?,
            method: parsed("HTTP method", &message.method, Method::parse)?,
            path: message.path.into(),
            host: message.host.map(Into::into),
            headers: message.headers.into_iter().map(|f| (f.name.into(), f.value.into())).collect(),
            expect: message.expect.iter().map(range).collect::<Result<_, _>>()?,
            body_contains: message.body_contains.map(Into::into),
            token_file: message.token_file.map(Into::into),
        })
    }
}
