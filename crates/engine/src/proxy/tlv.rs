//! What a version 2 header says beside addresses: type, length, value (proxy-protocol.txt §2.2.1 to §2.2.8).

use super::ProxyError;
use super::lengths::{FIXED, HEADER_MAX, V6_LEN};

/// Longest row of TLVs that is taken, in bytes: so much that with IPv6 addresses, too, they are passed on in a header
/// which the next Trestle takes.
pub const TLVS_MAX: usize = HEADER_MAX - FIXED - V6_LEN;

const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// Type and length.
const HEAD: usize = 3;
const CRC32C_LEN: usize = 4;
/// `client` and `verify`, before the TLVs inside.
const SSL_HEAD: usize = 5;
const UNIQUE_ID_MAX: usize = 128;

/// TLVs whose lengths were found right, as the bytes that they came in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tlvs(Box<[u8]>);

/// One type, length and value; `at` is where it begins in its row.
struct Tlv<'a> {
    kind: u8,
    at: usize,
    value: &'a [u8],
}

impl Tlvs {
    /// Takes a row of TLVs, of known and unknown types.
    ///
    /// # Errors
    /// When one reaches beyond the end or has a length that its type cannot have, when there are two checksums, or when
    /// they take more than [`TLVS_MAX`] bytes. A checksum is not compared here: it covers the whole header.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProxyError> {
        if bytes.len() > TLVS_MAX {
            return Err(ProxyError::TlvsTooLong(bytes.len()));
        }
        let mut checksums = 0;
        for tlv in row(bytes) {
            let Tlv { kind, at, value } = tlv?;
            let wrong = |rule| Err(ProxyError::Tlv { kind, at, rule });
            match kind {
                CRC32C if value.len() != CRC32C_LEN => return wrong("a CRC32C must have 4 bytes"),
                CRC32C if checksums > 0 => return wrong("there must not be a second CRC32C"),
                CRC32C => checksums += 1,
                UNIQUE_ID if value.len() > UNIQUE_ID_MAX => {
                    return wrong("a unique id must have at most 128 bytes");
                }
                SSL => match value.get(SSL_HEAD..) {
                    Some(inner) if row(inner).all(|tlv| tlv.is_ok()) => {}
                    _ => return wrong("an SSL value must have 5 bytes and whole TLVs after them"),
                },
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes, as they came in.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Types and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        row(&self.0).filter_map(Result::ok).map(|tlv| (tlv.kind, tlv.value))
    }
}

/// The TLVs of a row; ends with an error when one is cut.
fn row(bytes: &[u8]) -> impl Iterator<Item = Result<Tlv<'_>, ProxyError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let begin = at;
        let value = match rest {
            [_, high, low, value @ ..] => value.get(..usize::from(u16::from_be_bytes([*high, *low]))),
            _ => None,
        };
        at = value.map_or(bytes.len(), |value| begin + HEAD + value.len());
        let rule = "must end within the header";
        let kind = rest.first().copied().unwrap_or_default();
        Some(value.map(|value| Tlv { kind, at: begin, value }).ok_or(ProxyError::Tlv {
            kind,
            at: begin,
            rule,
        }))
    })
}

/// Where the value of the checksum is in a header whose last `tlvs` bytes are sound TLVs.
fn checksum_place(header: &[u8], tlvs: usize) -> Option<std::ops::Range<usize>> {
    let begin = header.len().checked_sub(tlvs)?;
    let tlv = row(header.get(begin..)?).filter_map(Result::ok).find(|tlv| tlv.kind == CRC32C)?;
    let value = begin + tlv.at + HEAD;
    Some(value..value + CRC32C_LEN)
}

/// Compares the checksum, if there is one, with that of the header (§2.2.3).
pub(super) fn verify_checksum(header: &[u8], tlvs: usize) -> Result<(), ProxyError> {
    let Some(place) = checksum_place(header, tlvs) else { return Ok(()) };
    let value = header.get(place.clone()).and_then(|value| value.first_chunk());
    let said = value.map_or(0, |value| u32::from_be_bytes(*value));
    let bytes = header.iter().enumerate().map(|(at, byte)| if place.contains(&at) { 0 } else { *byte });
    let found = crc32c(bytes);
    if said == found { Ok(()) } else { Err(ProxyError::Checksum { said, found }) }
}

/// Puts the checksum of the header in its place, if there is one.
pub(super) fn write_checksum(header: &mut [u8], tlvs: usize) {
    let Some(place) = checksum_place(header, tlvs) else { return };
    let Some(value) = header.get_mut(place.clone()) else { return };
    value.fill(0);
    let found = crc32c(header.iter().copied());
    if let Some(value) = header.get_mut(place) {
        value.copy_from_slice(&found.to_be_bytes());
    }
}

/// CRC-32 with Castagnoli's polynomial, reflected (RFC 4960 appendix B). crc32fast has the other polynomial only, and a
/// second library for some 60 bytes per connection would not be felt.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.fold(!0, |crc, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].into_iter()), 0x62a8_ab43);
        assert_eq!(crc32c(0..32), 0x46dd_794e);
    }
}
