//! What a certificate says, and its form in files.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use trestle_model::KeyPin;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::verify::CertificateRefusal;

/// Label of a certificate in PEM (RFC 7468 section 5).
const LABEL: &str = "CERTIFICATE";

/// The header of answers to users by which a member says which authorities are believed: their mark.
pub const AUTHORITIES_HEADER: &str = "trestle-authorities";
/// Bytes of a mark, of which each is written as two digits: nobody is believed for it.
const MARK: usize = 16;

/// What two lists of authorities, as certificates in DER, are told apart by, whatever their order.
pub fn authorities_mark<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hashes: Vec<[u8; 32]> = certificates.map(|one| Sha256::digest(one).into()).collect();
    hashes.sort_unstable();
    let all: [u8; 32] = Sha256::digest(hashes.concat()).into();
    all.iter().take(MARK).map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of a public key, as certificates have it.
pub(crate) fn pin(subject_public_key_info: &[u8]) -> KeyPin {
    KeyPin(Sha256::digest(subject_public_key_info).into())
}

/// What a certificate says of its holder. Nothing of it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its key.
    pub pin: KeyPin,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of it.
    pub not_after: SystemTime,
    /// URIs among its alternative names.
    pub uris: Vec<String>,
    /// DNS names among them.
    pub dns_names: Vec<String>,
    /// Addresses among them.
    pub addresses: Vec<IpAddr>,
    /// The name of whoever signed it, as it says.
    pub issuer: String,
}

/// Times before 1970 are as good as 1970: nothing was signed then.
fn system_time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// An address of 4 or 16 bytes (RFC 5280 section 4.2.1.6).
fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

impl CertificateFacts {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`CertificateRefusal::Unreadable`].
    pub fn read(der: &[u8]) -> Result<Self, CertificateRefusal> {
        let unreadable = |error: x509_parser::nom::Err<x509_parser::error::X509Error>| {
            CertificateRefusal::Unreadable(error.to_string())
        };
        let (rest, certificate) = X509Certificate::from_der(der).map_err(unreadable)?;
        if !rest.is_empty() {
            return Err(CertificateRefusal::Unreadable("bytes follow its end".to_owned()));
        }
        let (mut uris, mut dns_names, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(octets) => addresses.extend(address(octets)),
                    _ => {}
                }
            }
        }
        let validity = certificate.validity();
        Ok(Self {
            pin: pin(certificate.public_key().raw),
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
            uris,
            dns_names,
            addresses,
            issuer: certificate.issuer().to_string(),
        })
    }
}

/// A certificate in PEM.
pub fn to_pem(der: &[u8]) -> String {
    pem_block(LABEL, der)
}

/// A block of PEM under a label.
pub(crate) fn pem_block(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

/// The certificates of a text in PEM, in DER; whatever else is in the text is passed over (RFC 7468 section 2).
///
/// # Errors
/// In words, when a block is broken, or there is no certificate.
pub fn from_pem(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let blocks = pem::parse_many(text).map_err(|error| format!("is no PEM: {error}"))?;
    let found: Vec<_> =
        blocks.into_iter().filter(|block| block.tag() == LABEL).map(pem::Pem::into_contents).collect();
    if found.is_empty() { Err("has no certificate in PEM".to_owned()) } else { Ok(found) }
}
