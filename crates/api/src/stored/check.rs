//! What health checks do.

use std::sync::Arc;

use trestle_model::{CheckKind, HttpCheck, Method, StatusRange, TlsCheck};

use super::{DecodeError, parsed, required};
use crate::storage;

/// Kind and settings, in the three fields that they take.
type Message = (Option<i32>, Option<storage::TlsCheck>, Option<storage::HttpCheck>);

pub(super) fn message(kind: &CheckKind) -> Message {
    match kind {
        CheckKind::None => (Some(storage::CheckKind::None.into()), None, None),
        CheckKind::Tcp => (Some(storage::CheckKind::Tcp.into()), None, None),
        CheckKind::Tls(tls) => (Some(storage::CheckKind::Tls.into()), Some(tls.into()), None),
        CheckKind::Http(http) => (Some(storage::CheckKind::Http.into()), None, Some(http.into())),
    }
}

pub(super) fn kind(
    number: Option<i32>,
    tls: Option<storage::TlsCheck>,
    http: Option<storage::HttpCheck>,
) -> Result<Option<CheckKind>, DecodeError> {
    let Some(number) = number else { return Ok(None) };
    let kind = match storage::CheckKind::try_from(number) {
        Ok(storage::CheckKind::None) => CheckKind::None,
        Ok(storage::CheckKind::Tcp) => CheckKind::Tcp,
        Ok(storage::CheckKind::Tls) => CheckKind::Tls(required("health check", "TLS settings", tls)?.into()),
        Ok(storage::CheckKind::Http) => {
            CheckKind::Http(required("health check", "HTTP settings", http)?.try_into()?)
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
        let TlsCheck { server_name, ca, min_days_left } = check;
        Self {
            server_name: server_name.as_ref().map(text),
            ca: ca.as_ref().map(text),
            min_days_left: *min_days_left,
        }
    }
}

impl From<storage::TlsCheck> for TlsCheck {
    fn from(message: storage::TlsCheck) -> Self {
        Self {
            server_name: message.server_name.map(Into::into),
            ca: message.ca.map(Into::into),
            min_days_left: message.min_days_left,
        }
    }
}

impl From<&HttpCheck> for storage::HttpCheck {
    fn from(check: &HttpCheck) -> Self {
        let HttpCheck { tls, method, path, host, headers, expect, body_contains } = check;
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
        }
    }
}

impl TryFrom<storage::HttpCheck> for HttpCheck {
    type Error = DecodeError;

    fn try_from(message: storage::HttpCheck) -> Result<Self, DecodeError> {
        let range = |text: &String| parsed("expected status", text, StatusRange::parse);
        Ok(Self {
            tls: message.tls.map(Into::into),
            method: parsed("HTTP method", &message.method, Method::parse)?,
            path: message.path.into(),
            host: message.host.map(Into::into),
            headers: message.headers.into_iter().map(|f| (f.name.into(), f.value.into())).collect(),
            expect: message.expect.iter().map(range).collect::<Result<_, _>>()?,
            body_contains: message.body_contains.map(Into::into),
        })
    }
}
