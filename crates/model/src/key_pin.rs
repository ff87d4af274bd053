//! Keys by their hash.

use std::fmt;

/// The SHA-256 of a public key, as it is in a certificate (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7). Who has the private key
/// that goes with it is who the cluster says, whatever else a certificate claims.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPin(pub [u8; 32]);

impl KeyPin {
    /// Takes the bytes of a hash.
    ///
    /// # Errors
    /// The broken rule, when they are not 32.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        bytes.try_into().map(Self).map_err(|_| "must be the 32 bytes of a SHA-256".to_owned())
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
