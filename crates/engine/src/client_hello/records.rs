//! The handshake message that a hello is, out of the TLS records that carry it.

use super::{CLIENT_HELLO, HANDSHAKE, HELLO_MAX, HelloError, RECORD_HEAD, RECORDS_MAX};

/// RFC 8446 §5.1; also the bound of TLS 1.2.
const RECORD_MAX: usize = 1 << 14;
/// Type and length of a handshake message.
const MESSAGE_HEAD: usize = 4;

pub(super) enum Gathered {
    /// The body of the hello, out of its records.
    Message(Vec<u8>),
    /// Bytes of input that are needed at least.
    Missing(usize),
}

/// Puts the message together out of its records.
pub(super) fn gather(input: &[u8]) -> Result<Gathered, HelloError> {
    let mut message = Vec::new();
    let mut at = 0;
    for _ in 0..RECORDS_MAX {
        let body = at + RECORD_HEAD;
        let rest = input.get(at..).unwrap_or_default();
        let Some(&[kind, major, _, high, low]) = rest.first_chunk::<RECORD_HEAD>() else {
            // Only a whole head is judged, but for the first one's beginning.
            return Ok(Gathered::Missing(body));
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let wrong = |rule| Err(HelloError::Record { kind, len, rule });
        if kind != HANDSHAKE || major != 3 {
            return wrong("must be a handshake record (22) of TLS, with no other record between");
        }
        if len == 0 || len > RECORD_MAX {
            return wrong("must have 1 to 16384 bytes");
        }
        let there = input.get(body..).unwrap_or_default();
        message.extend_from_slice(there.get(..len).unwrap_or(there));
        let wanted = message_len(&message)?;
        if message.len() >= wanted {
            message.truncate(wanted);
            if wanted > MESSAGE_HEAD {
                return Ok(Gathered::Message(message.split_off(MESSAGE_HEAD)));
            }
            return Err(HelloError::Field { field: "body", rule: "must not be empty" });
        }
        if there.len() < len {
            let missing = (wanted - message.len()).min(len - there.len());
            return Ok(Gathered::Missing(body + there.len() + missing));
        }
        at = body + len;
    }
    Err(HelloError::TooScattered)
}

/// Bytes of the message as far as its beginning tells: the whole, or its head.
fn message_len(message: &[u8]) -> Result<usize, HelloError> {
    if let Some(other) = message.first().filter(|kind| **kind != CLIENT_HELLO) {
        return Err(HelloError::NotHello(*other));
    }
    let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEAD>() else {
        return Ok(MESSAGE_HEAD);
    };
    let whole = MESSAGE_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize;
    if whole > HELLO_MAX { Err(HelloError::TooLong(whole)) } else { Ok(whole) }
}
