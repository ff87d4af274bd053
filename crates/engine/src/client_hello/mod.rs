//! The first message of a TLS client, read without answering it: which server it wants (SNI) and which protocols it
//! offers (ALPN). Nothing is decrypted and every byte goes on to the backend as it came.
//!
//! Own code: rustls's acceptor reads the same, but keeps a whole server's state, refuses hellos that the backend might
//! take (RFC 5246 lets a client leave out signature_algorithms, rustls does not), and does not say how many bytes are
//! missing; crates that parse TLS in general leave records, bounds and duplicates to their callers, which is the larger
//! part of this.
//!
//! With Encrypted ClientHello, the names are those of the outer hello.

mod cursor;
mod fields;
mod records;

use records::{Gathered, gather};

/// Longest hello, in bytes of its handshake message with the header of 4. Hellos with post-quantum key shares take about
/// 2 KiB; OpenSSL's servers bound theirs at 128 KiB, Go's at 64 KiB.
pub const HELLO_MAX: usize = 16 * 1024;

/// Most TLS records that a hello may be spread over. The bytes of a hello with the headers of its records are then never
/// more than [`INPUT_MAX`]. The smallest fragments that OpenSSL can be told to send, of 512 bytes, need 32.
pub const RECORDS_MAX: usize = 64;

/// Most bytes from the beginning of a stream that [`parse`] ever asks for.
pub const INPUT_MAX: usize = HELLO_MAX + RECORDS_MAX * RECORD_HEAD;

const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// What routes go by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The host name that the client wants, in lower case and without a dot at its end. `None` when it sent none, or an
    /// IP address, which RFC 6066 forbids and clients send all the same.
    pub server_name: Option<String>,
    /// The server name that it sent if that is no host name, as in `[::1]` or `name:443`: no route is for it. At most 255
    /// characters of it, with replacements for what is no UTF-8.
    pub odd_name: Option<String>,
    /// The protocols that it offers, in its order, as in `h2`; 1 to 255 bytes each, not always text.
    pub alpn: Vec<Vec<u8>>,
}

/// How far a hello could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedHello {
    /// All bytes fit so far. At least `need` bytes from the beginning, more than were given and never more than the
    /// hello has, must be there before another call can find it whole; it may be refused earlier.
    Incomplete {
        /// Bytes from the beginning of the stream, at most [`INPUT_MAX`].
        need: usize,
    },
    /// The stream does not begin with a TLS handshake record: another protocol.
    NotTls,
    /// The hello is there as a whole.
    Hello(Hello),
}

/// Why a stream that begins as TLS has no hello that can be routed. The backend might take it, but where it would have
/// to go is uncertain, so the connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A record of another type, or an empty or overlong one, before the hello is complete.
    #[error("TLS record of type {kind} with {len} bytes in the ClientHello: {rule}")]
    Record {
        /// The record's type.
        kind: u8,
        /// The length that it announces.
        len: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A handshake that begins with something else.
    #[error("TLS handshake begins with a message of type {0}: must be a ClientHello (1)")]
    NotHello(u8),
    /// A hello that announces more than is taken.
    #[error("ClientHello of {0} bytes: at most {HELLO_MAX} are taken; route it by address and port instead")]
    TooLong(usize),
    /// A hello in more records than are taken.
    #[error("ClientHello in more than {RECORDS_MAX} TLS records: no more are taken")]
    TooScattered,
    /// A field that reaches beyond what it is in.
    #[error("ClientHello is cut in its {field}: it needs {needed} bytes and {left} are there")]
    Cut {
        /// Name of the field.
        field: &'static str,
        /// Bytes that it takes.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A field of a length that it must not have.
    #[error("ClientHello has {len} bytes of {field}: must be {least} to {most}")]
    Length {
        /// Name of the field.
        field: &'static str,
        /// Its length.
        len: u16,
        /// The least that it may be.
        least: u16,
        /// The most that it may be.
        most: u16,
    },
    /// A field that is there twice, or more than there may be.
    #[error("ClientHello with a wrong {field}: {rule}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
}

/// Reads a ClientHello from the beginning of a stream, given all of it that has come in. What follows the hello is not
/// looked at.
///
/// # Errors
/// As soon as the stream cannot become a ClientHello within the bounds any more.
pub fn parse(input: &[u8]) -> Result<ParsedHello, HelloError> {
    // A record of any version; TLS 1.3 writes 3.1 or 3.3 (RFC 8446 §5.1).
    if input.first().is_some_and(|kind| *kind != HANDSHAKE) || input.get(1).is_some_and(|major| *major != 3) {
        return Ok(ParsedHello::NotTls);
    }
    match gather(input)? {
        Gathered::Message(message) => fields::read(&message).map(ParsedHello::Hello),
        Gathered::Missing(need) => Ok(ParsedHello::Incomplete { need }),
    }
}

#[cfg(test)]
mod tests;
