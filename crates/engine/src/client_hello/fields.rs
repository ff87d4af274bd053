//! The fields of a ClientHello, and of the two extensions that routes go by.

use std::net::IpAddr;

use super::cursor::Cursor;
use super::{Hello, HelloError};

/// RFC 6066 §3.
pub(super) const SERVER_NAME: u16 = 0;
pub(super) const HOST_NAME: u8 = 0;
/// RFC 7301 §3.1.
pub(super) const ALPN: u16 = 16;

fn wrong_field<T>(field: &'static str, rule: &'static str) -> Result<T, HelloError> {
    Err(HelloError::Field { field, rule })
}

/// Reads the body of the message (RFC 8446 §4.1.2; the same in TLS 1.2).
pub(super) fn read(body: &[u8]) -> Result<Hello, HelloError> {
    let mut body = Cursor::new(body);
    body.bytes("version", 2)?;
    body.bytes("random", 32)?;
    body.vector8("session id", 0..=32)?;
    let suites = body.vector16("cipher suites", 2..=0xfffe)?;
    if suites.len() % 2 != 0 {
        return wrong_field("cipher suites", "must have 2 bytes each");
    }
    body.vector8("compression methods", 1..=255)?;
    let mut hello = Hello::default();
    if body.is_empty() {
        // Before TLS 1.3 a hello may have no extensions.
        return Ok(hello);
    }
    let mut extensions = Cursor::new(body.vector16("extensions", 0..=0xffff)?);
    if !body.is_empty() {
        return wrong_field("end", "must have nothing after the extensions");
    }
    let (mut named, mut offered) = (false, false);
    while !extensions.is_empty() {
        let kind = extensions.number16("extension type")?;
        let content = extensions.vector16("extension", 0..=0xffff)?;
        // RFC 8446 §4.2 forbids a second one: this side and the backend could go by different ones.
        match kind {
            SERVER_NAME if named => return wrong_field("server_name", "must not come twice"),
            SERVER_NAME => {
                named = true;
                (hello.server_name, hello.odd_name) =
                    read_server_name(content)?.map_or((None, None), host_name);
            }
            ALPN if offered => return wrong_field("ALPN", "must not come twice"),
            ALPN => {
                offered = true;
                hello.alpn = read_alpn(content)?;
            }
            _ => {}
        }
    }
    Ok(hello)
}

/// Reads the list of names, of which at most one is a host name (RFC 6066 §3).
fn read_server_name(content: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    let mut content = Cursor::new(content);
    let mut names = Cursor::new(content.vector16("server_name", 1..=0xffff)?);
    if !content.is_empty() {
        return wrong_field("server_name", "must have nothing after the list");
    }
    let mut found = None;
    while !names.is_empty() {
        let kind = names.number8("server_name")?;
        // At least a byte by the RFC; an empty one is as odd as others.
        let name = names.vector16("server_name", 0..=0xffff)?;
        // Names of types yet to come have a length of 16 bits, too.
        if kind == HOST_NAME && found.replace(name).is_some() {
            return wrong_field("server_name", "must have one host name only");
        }
    }
    Ok(found)
}

/// Characters of an odd name that are kept, as many as a host name may have and two more.
const ODD_MAX: usize = 255;

/// The host name that was sent, or else what was sent in its place.
fn host_name(sent: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(sent);
    if text.parse::<IpAddr>().is_ok() {
        return (None, None);
    }
    // RFC 6066 has no dot at the end; a client that passes on what its user typed may.
    let name = text.strip_suffix('.').unwrap_or(&text);
    let label = |label: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(good)
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return (None, Some(text.chars().take(ODD_MAX).collect()));
    }
    (Some(name.to_ascii_lowercase()), None)
}

/// Reads the list of protocols (RFC 7301 §3.1).
fn read_alpn(content: &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut content = Cursor::new(content);
    let mut names = Cursor::new(content.vector16("ALPN", 2..=0xffff)?);
    if !content.is_empty() {
        return wrong_field("ALPN", "must have nothing after the list");
    }
    let mut found = Vec::new();
    while !names.is_empty() {
        found.push(names.vector8("ALPN", 1..=255)?.to_vec());
    }
    Ok(found)
}
