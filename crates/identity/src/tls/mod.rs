//! TLS 1.3 of the admin API, on both sides: the member shows a certificate of its cluster, and so does the user.
//!
//! A connection has a configuration of its own, made of what holds at that moment: the member's certificate may be renewed, and users
//! come and go, without a connection that is open noticing. No session is ever resumed and nothing is sent before the handshake has
//! ended, because either would let in whom a new handshake refuses (RFC 8446 sections 2.2 and 2.3).

mod client;
mod server;

pub use client::{ClientTls, Greeted, TlsError};
pub use server::{HandshakeFailure, ServerLeaf, accept};

/// A connection of a user, to a member.
pub use tokio_rustls::server::TlsStream;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The protocol that both sides speak inside, as ALPN calls it (RFC 7301; RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
