//! Version 2: binary (proxy-protocol.txt §2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::lengths::{FIXED, HEADER_MAX, V4_LEN, V6_LEN};
use super::tlv::{self, Tlvs};
use super::{Addresses, Header, Pair, ParsedHeader, ProxyError, SHORTEST, Version, addresses};

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

const UNIX_LEN: usize = 216;

const VERSION_2: u8 = 0x20;
const LOCAL: u8 = VERSION_2;
const PROXY: u8 = VERSION_2 | 1;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;

/// Reads a binary header; `input` agrees with [`SIGNATURE`] as far as it goes.
pub(super) fn parse(input: &[u8]) -> Result<ParsedHeader, ProxyError> {
    let command = input.get(12).copied();
    if let Some(unknown) = command.filter(|c| !matches!(*c, LOCAL | PROXY)) {
        return Err(ProxyError::Command(unknown));
    }
    // LOCAL ignores the family, whatever it is.
    let family = input.get(13).copied().filter(|_| command == Some(PROXY));
    if let Some(unknown) = family.filter(|f| f >> 4 > 3 || f & 0xf > 2) {
        return Err(ProxyError::Family(unknown));
    }
    let Some(fixed) = input.first_chunk::<FIXED>() else {
        let need = if input.len() < SHORTEST { SHORTEST } else { FIXED };
        return Ok(ParsedHeader::Incomplete { need });
    };
    let announced = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let len = FIXED + announced;
    if len > HEADER_MAX {
        return Err(ProxyError::TooLong(len));
    }
    let place = family.filter(|f| f >> 4 != 0 && f & 0xf != 0).map(|f| (f, addresses_len(f)));
    if let Some((family, needed)) = place.filter(|(_, needed)| *needed > announced) {
        return Err(ProxyError::AddressesCut { announced, family, needed });
    }
    let Some(whole) = input.get(..len) else { return Ok(ParsedHeader::Incomplete { need: len }) };
    let (addresses, tlvs) = match place {
        Some((family, needed)) => {
            let (block, rest) = whole[FIXED..].split_at(needed);
            let tlvs = Tlvs::parse(rest)?;
            tlv::verify_checksum(whole, rest.len())?;
            (read_addresses(family, block), tlvs)
        }
        None => (None, Tlvs::default()),
    };
    Ok(ParsedHeader::Done { header: Header { version: Version::V2, addresses, tlvs }, len })
}

/// Bytes that the addresses of a family other than UNSPEC take.
fn addresses_len(family: u8) -> usize {
    match family >> 4 {
        1 => V4_LEN,
        2 => V6_LEN,
        _ => UNIX_LEN,
    }
}

/// The ends of a TCP connection; `None` for what is none.
fn read_addresses(family: u8, block: &[u8]) -> Option<Addresses> {
    let port = |at: usize| Some(u16::from_be_bytes(*block.get(at..)?.first_chunk()?));
    let v4 = |at: usize| Some(IpAddr::from(Ipv4Addr::from(*block.get(at..)?.first_chunk::<4>()?)));
    let v6 = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*block.get(at..)?.first_chunk::<16>()?)));
    match family {
        TCP_V4 => Some(addresses((v4(0)?, port(8)?), (v4(4)?, port(10)?))),
        TCP_V6 => Some(addresses((v6(0)?, port(32)?), (v6(16)?, port(34)?))),
        _ => None,
    }
}

/// The header that tells a backend of a client at `source` that dialled `destination`, with `tlvs` passed on as they are
/// but for a CRC32C among them, which is that of the new header. At most [`HEADER_MAX`] bytes.
///
/// A pair of an IPv4 and an IPv6 address goes as IPv6, with the IPv4 one mapped.
pub fn format_v2(source: SocketAddr, destination: SocketAddr, tlvs: &Tlvs) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED + V6_LEN + tlvs.as_bytes().len());
    header.extend_from_slice(&SIGNATURE);
    header.push(PROXY);
    let (family, block, ports) = match Pair::new(source, destination) {
        Pair::V4(ends) => (TCP_V4, ends.map(|e| e.ip().octets()).concat(), ends.map(|e| e.port())),
        Pair::V6(ends) => (TCP_V6, ends.map(|e| e.ip().octets()).concat(), ends.map(|e| e.port())),
    };
    header.push(family);
    let rest = [&block[..], &ports.map(u16::to_be_bytes).concat(), tlvs.as_bytes()].concat();
    // Tlvs are never longer than TLVS_MAX, so this fits; the bound is a constant, no guess.
    header.extend_from_slice(&u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend_from_slice(&rest);
    tlv::write_checksum(&mut header, tlvs.as_bytes().len());
    header
}
