//! Requests for certificates (PKCS #10, RFC 2986): a public key, signed by the private key that goes with it. The private key never
//! leaves the machine that made it.

use rcgen::{CertificateParams, CertificateSigningRequestParams, PublicKey, PublicKeyData, SanType};
use trestle_model::KeyPin;

use crate::authority::{LeafName, SigningError, alternative, common_name, uri};
use crate::certificate::{pem_block, pin};
use crate::name::SpiffeId;
use crate::private_key::PrivateKey;

/// Largest request that is read, in bytes. One with a key of P-256 takes some 200.
const REQUEST_MAX: usize = 4 * 1024;
/// Label of a request in PEM (RFC 7468 section 7).
const LABEL: &str = "CERTIFICATE REQUEST";

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is too large.
    #[error("the request for a certificate has {0} bytes; at most {REQUEST_MAX} are read")]
    TooLarge(usize),
    /// It cannot be read, or is not signed by its own key, or has a key that is not P-256.
    #[error(
        "the request for a certificate is none: {0}; it must be a PKCS #10 request in DER, signed by its own key of P-256"
    )]
    Unreadable(String),
}

/// A request whose sender has shown that it has the private key. Names and extensions in it count for nothing.
#[derive(Debug)]
pub struct CertificateRequest {
    public_key: PublicKey,
}

impl CertificateRequest {
    /// Makes one for a key, in DER.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn make(key: &PrivateKey) -> Result<Vec<u8>, SigningError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(key.pair())?.der().to_vec())
    }

    /// Makes one for whoever signs outside of the cluster, in PEM: with the names that the certificate must have, so that an authority that
    /// copies them from requests needs nothing else.
    ///
    /// # Errors
    /// When it cannot be signed, or a name is none that a certificate may have.
    pub fn named(key: &PrivateKey, name: &SpiffeId, hosts: &[LeafName]) -> Result<String, SigningError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name.subject.common());
        let hosts: Vec<SanType> =
            hosts.iter().filter_map(|host| alternative(host).transpose()).collect::<Result<_, _>>()?;
        params.subject_alt_names = std::iter::once(uri(name)?).chain(hosts).collect();
        Ok(pem_block(LABEL, params.serialize_request(key.pair())?.der()))
    }

    /// Reads one in DER, and verifies that its sender has the key.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn read(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_MAX {
            return Err(RequestError::TooLarge(der.len()));
        }
        let read = CertificateSigningRequestParams::from_der(&der.to_vec().into());
        let request = read.map_err(|error| RequestError::Unreadable(error.to_string()))?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(RequestError::Unreadable("its key is of another algorithm".to_owned()));
        }
        Ok(Self { public_key: request.public_key })
    }

    /// The hash of its public key.
    pub fn pin(&self) -> KeyPin {
        pin(&self.public_key.subject_public_key_info())
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_who_has_the_key_can_ask_for_a_certificate_of_it() {
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::make(&key).unwrap();
        assert_eq!(CertificateRequest::read(&request).unwrap().pin(), key.pin());
        // All lengths are below 128 or, of the whole, below 256: one byte, or two (X.690 section 8.1.3).
        let signed = 3 + 2 + usize::from(request[4]);
        let signature = signed + 2 + usize::from(request[signed + 1]);
        assert_eq!((request[1], request[3], request[signed], request[signature]), (0x81, 0x30, 0x30, 0x03));
        for at in 0..request.len() {
            let mut changed = request.clone();
            changed[at] ^= 1;
            let read = CertificateRequest::read(&changed).map(|request| request.pin());
            match read {
                Err(_) => {}
                // What says how it is signed is not itself signed (RFC 2986 section 4.2), and is read with some indulgence. So is
                // the number of the signature's unused bits, which may be one when its last bit is 0 (X.690 section 11.2).
                Ok(pin) => {
                    let unsigned = (signed..signature).contains(&at) || at == signature + 2;
                    assert!(unsigned && pin == key.pin(), "byte {at}: {pin}");
                }
            }
        }
        for end in 0..request.len() {
            assert!(CertificateRequest::read(&request[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(CertificateRequest::read(&[0; 5000]).unwrap_err(), RequestError::TooLarge(5000));
    }
}
