//! The PROXY protocol, versions 1 and 2, as HAProxy's proxy-protocol.txt has it: what a proxy before this one says about
//! the client, and what this one says to a backend.
//!
//! Own code, because a header must never count as read by half, must be refused as soon as it cannot become right, and
//! must be passed on with all its TLVs and a new checksum. The crate ppp 2.3 compares no CRC32C and has no bound in
//! version 2.

mod lengths;
mod tlv;
mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use lengths::HEADER_MAX;
pub use tlv::{TLVS_MAX, Tlvs};
pub use v1::{LINE_MAX, format_v1};
pub use v2::format_v2;

/// Header of a connection that a proxy makes on its own account, such as a check, in version 2 (LOCAL): the connection's own
/// addresses are those that count. In version 1 such a connection names them, for some servers refuse UNKNOWN.
pub const OWN_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The shortest header that there is, `PROXY UNKNOWN\r\n`, in bytes.
const SHORTEST: usize = 15;

/// Version of the protocol that a header is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The two ends of the connection that the header speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client. An IPv4 address that was sent as an IPv6 one (`::ffff:10.0.0.1`) is told as IPv4.
    pub source: SocketAddr,
    /// What the client dialled; IPv4 as for `source`.
    pub destination: SocketAddr,
}

/// A header that was read whole and found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version that it was written in.
    pub version: Version,
    /// The ends that it speaks of. `None` when it speaks of none that TCP over IP could have (UNKNOWN, LOCAL, UNSPEC,
    /// datagrams, Unix sockets): then the connection's own ends count.
    pub addresses: Option<Addresses>,
    /// What else it says; empty in version 1, and for LOCAL and UNSPEC, whose contents are to be ignored.
    pub tlvs: Tlvs,
}

/// How far a header could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedHeader {
    /// All bytes fit so far. At least `need` bytes from the beginning, more than were given and never more than the
    /// header has, must be there before another call can find it whole; it may be refused earlier.
    Incomplete {
        /// Bytes from the beginning of the stream.
        need: usize,
    },
    /// The header takes the first `len` bytes; what follows belongs to the client.
    Done {
        /// What it says.
        header: Header,
        /// Its length in bytes.
        len: usize,
    },
}

/// Why a stream does not begin with a PROXY header that can be used. The connection must be closed: the specification
/// forbids to guess whether a header was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Something else, most likely a client that came past the proxy.
    #[error(
        "the connection begins with \"{}\" and not with a PROXY header: let the proxy before this listener send \
         one, or do not expect it on this listener",
        .0.escape_ascii()
    )]
    NotProxy(Vec<u8>),
    /// A version 1 line without an end.
    #[error("PROXY line has no CRLF in its first {LINE_MAX} bytes: no valid line is longer")]
    LineTooLong,
    /// A version 1 line that breaks the grammar.
    #[error("PROXY line \"{}\": {rule}", .line.escape_ascii())]
    Line {
        /// The line as far as it was read.
        line: Vec<u8>,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A version 2 header that announces more than is taken.
    #[error(
        "PROXY v2 header of {0} bytes: at most {HEADER_MAX} are taken; let the sender put fewer TLVs in it"
    )]
    TooLong(usize),
    /// A version or command byte with no meaning.
    #[error("PROXY v2 version and command byte {0:#04x}: must be 0x20 (LOCAL) or 0x21 (PROXY)")]
    Command(u8),
    /// A family or transport with no meaning.
    #[error("PROXY v2 family byte {0:#04x}: the family must be 0 to 3 and the transport 0 to 2")]
    Family(u8),
    /// Fewer bytes than the addresses of the family take.
    #[error(
        "PROXY v2 header announces {announced} bytes: addresses of family {family:#04x} alone take {needed}"
    )]
    AddressesCut {
        /// Bytes announced after the first 16.
        announced: usize,
        /// The family byte.
        family: u8,
        /// Bytes that its addresses take.
        needed: usize,
    },
    /// A TLV that reaches beyond the header, or has a wrong length for its type.
    #[error("PROXY v2 TLV of type {kind:#04x} at byte {at} of the TLVs: {rule}")]
    Tlv {
        /// The TLV's type.
        kind: u8,
        /// Where it begins.
        at: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// More TLVs than can be passed on.
    #[error("PROXY v2 header has {0} bytes of TLVs: at most {TLVS_MAX} are taken")]
    TlvsTooLong(usize),
    /// The checksum in the header is not that of the header.
    #[error(
        "PROXY v2 header says CRC32C {said:#010x} and has {found:#010x}: it was damaged or put together wrongly"
    )]
    Checksum {
        /// The checksum in the header.
        said: u32,
        /// The checksum of the header.
        found: u32,
    },
}

/// Reads a PROXY header of either version from the beginning of a stream, given all of it that has come in.
///
/// # Errors
/// As soon as the bytes cannot become a valid header any more; more bytes do not help then.
pub fn parse(input: &[u8]) -> Result<ParsedHeader, ProxyError> {
    let agrees = |start: &[u8]| input.iter().zip(start).all(|(a, b)| a == b);
    if input.is_empty() {
        Ok(ParsedHeader::Incomplete { need: SHORTEST })
    } else if agrees(&v2::SIGNATURE) {
        v2::parse(input)
    } else if agrees(v1::START) {
        v1::parse(input)
    } else {
        let shown = input.get(..SHORTEST).unwrap_or(input);
        Err(ProxyError::NotProxy(shown.to_vec()))
    }
}

/// Both ends in one family, as both versions want it.
enum Pair {
    V4([SocketAddrV4; 2]),
    V6([SocketAddrV6; 2]),
}

impl Pair {
    /// IPv4 if both are, also where they come as IPv4-mapped IPv6, as a dual-stack socket tells them. When only one is
    /// IPv4, it is mapped into IPv6: nothing is lost, where UNKNOWN would hide the client, and every receiver that
    /// reads IPv6 reads it. HAProxy does the same in version 2.
    fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        match (canonical(source), canonical(destination)) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => Self::V4([source, destination]),
            (source, destination) => Self::V6([source, destination].map(|end| match end {
                SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
                SocketAddr::V6(v6) => v6,
            })),
        }
    }
}

/// The address with IPv4 for IPv4-mapped IPv6, and without flow and scope, which mean nothing elsewhere.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn addresses(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Addresses {
    let end = |(ip, port): (IpAddr, u16)| canonical(SocketAddr::new(ip, port));
    Addresses { source: end(source), destination: end(destination) }
}

#[cfg(test)]
mod tests;
