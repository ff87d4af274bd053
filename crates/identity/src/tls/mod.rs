//! TLS 1.3, on both sides: of the admin API, where the member shows a certificate of its cluster, and so does the user; and among members.
//!
//! A connection has a configuration of its own, made of what holds at that moment: the member's certificate may be renewed, and users
//! come and go, without a connection that is open noticing. No session is ever resumed and nothing is sent before the handshake has
//! ended, because either would let in whom a new handshake refuses (RFC 8446 sections 2.2 and 2.3).

mod client;
mod greeting;
mod peer;
mod server;

pub use client::{ClientTls, TlsError};
pub use greeting::Greeted;
pub use peer::{PeerIdentity, PeerTls, PeerTlsError, accept_member, connect_to_authority};
pub use server::{HandshakeFailure, ServerLeaf, accept};

/// A connection to a member, as the member has it.
pub use tokio_rustls::server::TlsStream;

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::CertificateDer;
use rustls::{DigitallySignedStruct, Error, PeerIncompatible};

use crate::verify::{CertificateRefusal, ShownChain};

/// The protocol that both sides speak inside, as ALPN calls it (RFC 7301; RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

/// Judges what the other side has shown.
type Judge<T> = Box<dyn Fn(ShownChain<'_>) -> Result<T, CertificateRefusal> + Send + Sync + 'static>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS 1.2 is spoken by neither side, so no signature of it comes.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::SupportedVersionsExtensionRequired.into())
}

/// Verifies that the other side has the key of the certificate that it has shown.
fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signed, &provider.signature_verification_algorithms)
}

#[cfg(test)]
mod tests;
