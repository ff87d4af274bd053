//! Version 1: one line of text (proxy-protocol.txt §2.1).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{Addresses, Header, Pair, ParsedHeader, ProxyError, SHORTEST, Tlvs, Version, addresses};

/// Longest line with its CRLF, in bytes: UNKNOWN with two full IPv6 addresses and ports.
pub const LINE_MAX: usize = 107;

pub(super) const START: &[u8] = b"PROXY ";

/// Reads a line; `input` agrees with [`START`] as far as it goes.
pub(super) fn parse(input: &[u8]) -> Result<ParsedHeader, ProxyError> {
    let head = input.get(..LINE_MAX).unwrap_or(input);
    let wrong = |line: &[u8], rule| ProxyError::Line { line: line.to_vec(), rule };
    let Some(end) = head.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        return more(input.len(), 2);
    };
    let line = head.get(..end).unwrap_or(head);
    match (input.get(end), input.get(end + 1)) {
        (Some(b'\r'), None) => more(input.len(), 1),
        (Some(b'\r'), Some(b'\n')) if end + 2 <= LINE_MAX => {
            let addresses = addresses_of(line).map_err(|rule| wrong(line, rule))?;
            let header = Header { version: Version::V1, addresses, tlvs: Tlvs::default() };
            Ok(ParsedHeader::Done { header, len: end + 2 })
        }
        (Some(b'\r'), Some(b'\n')) => Err(ProxyError::LineTooLong),
        _ => Err(wrong(line, "must end with CR and LF, and have neither of them alone")),
    }
}

/// The line goes on: at least `rest` bytes after the `given` ones.
fn more(given: usize, rest: usize) -> Result<ParsedHeader, ProxyError> {
    if given + rest > LINE_MAX {
        return Err(ProxyError::LineTooLong);
    }
    Ok(ParsedHeader::Incomplete { need: SHORTEST.max(given + rest) })
}

fn addresses_of(line: &[u8]) -> Result<Option<Addresses>, &'static str> {
    // Whatever follows UNKNOWN is to be ignored, and may be no text.
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    let text = str::from_utf8(line).map_err(|_| "must be ASCII text")?;
    let parts: Vec<&str> = text.split(' ').collect();
    let [_, family, source, destination, source_port, destination_port] = parts[..] else {
        return Err("must have six parts with one space between them, or be \"PROXY UNKNOWN\"");
    };
    let ip: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err("must say TCP4, TCP6 or UNKNOWN"),
    };
    let address = "must have two addresses of the family that it names";
    let source = (ip(source).ok_or(address)?, port(source_port)?);
    let destination = (ip(destination).ok_or(address)?, port(destination_port)?);
    Ok(Some(addresses(source, destination)))
}

fn port(text: &str) -> Result<u16, &'static str> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let value = if plain { text.parse().ok() } else { None };
    value.ok_or("must have two ports of 0 to 65535 without leading zeros")
}

/// The line that tells a backend of a client at `source` that dialled `destination`.
///
/// A pair of an IPv4 and an IPv6 address goes as TCP6, with the IPv4 one mapped (`::ffff:a00:1`).
pub fn format_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let line = match Pair::new(source, destination) {
        Pair::V4([source, destination]) => {
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY TCP4 {from} {to} {} {}\r\n", source.port(), destination.port())
        }
        Pair::V6([source, destination]) => {
            let (from, to) = (hexadecimal(source), hexadecimal(destination));
            format!("PROXY TCP6 {from} {to} {} {}\r\n", source.port(), destination.port())
        }
    };
    line.into_bytes()
}

/// The address in hexadecimal digits only, as the specification has it; std writes mapped ones with dots.
fn hexadecimal(address: SocketAddrV6) -> String {
    let ip = address.ip();
    let [.., high, low] = ip.segments();
    if ip.to_ipv4_mapped().is_none() {
        return ip.to_string();
    }
    let mut text = String::from("::ffff:");
    // Writing to a string cannot fail.
    let _ = write!(text, "{high:x}:{low:x}");
    text
}
