//! Errors of TLS, HTTP and gRPC in an operator's words. They contain nothing that the backend sent, so they are short, can be
//! shown anywhere, and are the same from check to check. Where the backend's own words are the reason, they are shortened and
//! escaped.

use std::error::Error as _;
use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, PeerMisbehaved};

use super::stream::Overrun;
use super::{crypto, expiry};

const NOT_OURS: &str = "certificate is not signed by the CA given";

/// Why a handshake with the backend called `name` failed. `verified` says whether a CA must have signed its certificate.
pub(super) fn tls(error: &io::Error, name: &ServerName<'_>, verified: bool) -> String {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    // This is the only alert about what the check asked for.
    if let Some(Error::AlertReceived(alert @ AlertDescription::UnrecognisedName)) = of_tls {
        let asked = match name {
            ServerName::DnsName(name) => format!("it was asked for {}", name.as_ref()),
            _ => "it was asked for no name".to_owned(),
        };
        return format!("{}; {asked}", refusal(*alert));
    }
    if let Some(words) = refused(error) {
        return words;
    }
    let Some(error) = of_tls else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "TLS: connection closed during the handshake",
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "TLS: connection reset during the handshake"
            }
            _ => "TLS: handshake failed",
        }
        .to_owned();
    };
    match error {
        // The signer is another CA of the same name: every cluster that kubeadm makes has a "kubernetes" CA.
        Error::InvalidCertificate(CertificateError::BadSignature) if verified => {
            format!("TLS: {NOT_OURS}")
        }
        Error::InvalidCertificate(error) => format!("TLS: {}", certificate(error, name)),
        Error::NoCertificatesPresented => "TLS: the backend has no certificate".to_owned(),
        Error::PeerIncompatible(_) => {
            format!("TLS: no version from 1.2 on and cipher in common; this check lacks {}", crypto::LACKS)
        }
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerSentOversizedRecord => "TLS: the answer is not TLS".to_owned(),
        // rustls accepts schemes that it has no name for only with TLS 1.3.
        Error::PeerMisbehaved(PeerMisbehaved::SignedKxWithWrongAlgorithm) => {
            "TLS: the certificate has an RSA-PSS key, which this check lacks with TLS 1.2 and takes with 1.3"
                .to_owned()
        }
        Error::PeerMisbehaved(_) | Error::DecryptError => "TLS: the answer breaks the protocol".to_owned(),
        _ => "TLS: handshake failed".to_owned(),
    }
}

fn certificate(error: &CertificateError, name: &ServerName<'_>) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            expiry::expired(time.as_secs().saturating_sub(not_after.as_secs()))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            expiry::not_yet(not_before.as_secs().saturating_sub(time.as_secs()))
        }
        CertificateError::UnknownIssuer => NOT_OURS.to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not for {}", name.to_str())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate is not for servers".to_owned()
        }
        CertificateError::BadEncoding => "certificate cannot be read".to_owned(),
        CertificateError::BadSignature => "signature is wrong".to_owned(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            format!(
                "certificate has a key or signature that this check does not take: it lacks {}, RSA keys below 2048 \
                 bits, and SHA-1",
                crypto::LACKS
            )
        }
        // rustls passes on from webpki what it has no error for. In practice this is the only case, with certificates that
        // `openssl req -x509` made.
        CertificateError::Other(_) => "certificate is not fit for a server (a CA's own?)".to_owned(),
        _ => "certificate is not valid".to_owned(),
    }
}

/// Says that the backend refused the client's certificate, broke off for another reason, or sent too much; `None` for any
/// other error.
pub(super) fn refused(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?;
    if let Some(overrun) = error.downcast_ref::<Overrun>() {
        return Some(overrun.to_string());
    }
    match error.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(refusal(*alert)),
        _ => None,
    }
}

/// Says that the backend refused the handshake. Where the alert means "nothing in common", the reason may be something that
/// this check cannot do.
fn refusal(alert: AlertDescription) -> String {
    let refused = format!("TLS: the backend refused the handshake ({})", named(alert));
    match alert {
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            format!("{refused}; if it wants one of these, this check lacks it: {}", crypto::LACKS)
        }
        _ => refused,
    }
}

/// Most bytes of a backend's words that are shown.
const SHOWN_MAX: usize = 64;

/// What a backend sent or must send, in quotes: escaped and shortened.
pub(super) fn shown(bytes: &[u8]) -> String {
    let (part, more) = match bytes.get(..SHOWN_MAX) {
        Some(part) if bytes.len() > SHOWN_MAX => (part, "..."),
        _ => (bytes, ""),
    };
    format!("\"{}{more}\"", part.escape_ascii())
}

/// The name of an alert (RFC 8446 §6.2), or its number.
fn named(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "certificate revoked",
        AlertDescription::CertificateExpired => "certificate expired",
        AlertDescription::CertificateUnknown => "certificate unknown",
        AlertDescription::UnknownCA => "unknown CA",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "decode error",
        AlertDescription::ProtocolVersion => "protocol version",
        AlertDescription::InsufficientSecurity => "insufficient security",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert {}", u8::from(other)),
    }
    .to_owned()
}

/// Why there is no usable answer to an HTTP request.
pub(super) fn http(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return "HTTP: head of the answer has over 16 KiB or 100 fields".to_owned();
    }
    if error.is_parse() {
        return "HTTP: the answer is not HTTP/1".to_owned();
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    if let Some(words) = cause.and_then(refused) {
        return words;
    }
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "HTTP: connection reset",
        Some(io::ErrorKind::UnexpectedEof) => "HTTP: connection closed before the answer was complete",
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            "HTTP: connection closed before the answer was complete"
        }
        _ => "HTTP: the answer cannot be read",
    }
    .to_owned()
}

/// Why there is no usable answer over HTTP/2; what was [`refused`] below it, h2 does not tell.
pub(super) fn http2(error: &h2::Error) -> String {
    if let Some(cause) = error.get_io() {
        return match cause.kind() {
            io::ErrorKind::ConnectionReset => "gRPC: connection reset",
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                "gRPC: connection closed before the answer was complete"
            }
            _ => "gRPC: the answer is not HTTP/2",
        }
        .to_owned();
    }
    match error.reason() {
        Some(reason) if error.is_remote() => format!("gRPC: the backend ended the call ({reason:?})"),
        _ => "gRPC: the answer is not HTTP/2".to_owned(),
    }
}
