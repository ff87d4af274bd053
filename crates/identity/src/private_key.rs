//! Private keys of members, users and authorities: P-256, as every TLS library has it.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use trestle_model::{KeyPin, Secret};

use crate::authority::SigningError;
use crate::certificate::pin;

/// A private key. Printing it shows nothing.
pub struct PrivateKey(KeyPair);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {}", self.pin())
    }
}

impl PrivateKey {
    /// Makes one from the system's random source.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn generate() -> Result<Self, SigningError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// Reads one in PEM (PKCS #8, RFC 5208).
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(text: &str) -> Result<Self, SigningError> {
        Ok(Self(KeyPair::from_pem(text)?))
    }

    /// The key in PEM.
    pub fn to_pem(&self) -> Secret<String> {
        Secret::new(self.0.serialize_pem().replace("\r\n", "\n"))
    }

    /// The hash of the public key that goes with it.
    pub fn pin(&self) -> KeyPin {
        pin(&self.0.subject_public_key_info())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}
