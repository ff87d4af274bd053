//! A private key sealed under a passphrase, to be kept where a disaster of the cluster does not reach.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use trestle_model::Secret;

use crate::private_key::PrivateKey;

/// What Argon2id takes: the second recommendation of RFC 9106 section 4, for machines with little memory.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// Most that is taken to open one: a file may say anything.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
/// Bytes of a salt.
const SALT: usize = 16;
/// Shortest passphrase, in characters. Nobody asks whoever tries them to wait.
pub const PASSPHRASE_MIN: usize = 12;

/// Why a key is not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The passphrase is too short.
    #[error("the passphrase has {0} characters, and must have at least {PASSPHRASE_MIN}")]
    Short(usize),
    /// It is another one, or something was changed.
    #[error("the passphrase is another one, or what was sealed has been changed since")]
    Wrong,
    /// It says what no sealed key has.
    #[error("the sealed key makes no sense: {0}")]
    Shape(String),
    /// The system or a library refuses.
    #[error("the key cannot be sealed or opened: {0}")]
    Library(String),
}

/// A sealed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// The salt of the passphrase.
    pub salt: Vec<u8>,
    /// Memory that Argon2id takes, in KiB.
    pub memory_kib: u32,
    /// How often it goes over that.
    pub passes: u32,
    /// In how many lanes.
    pub lanes: u32,
    /// The key in PEM, sealed, with its tag.
    pub sealed: Vec<u8>,
}

impl SealedKey {
    /// Seals a key.
    ///
    /// # Errors
    /// When the passphrase is too short, or there are no random bytes.
    pub fn seal(key: &PrivateKey, passphrase: &Secret<String>) -> Result<Self, SealError> {
        let characters = passphrase.expose().chars().count();
        if characters < PASSPHRASE_MIN {
            return Err(SealError::Short(characters));
        }
        let mut salt = vec![0; SALT];
        let drawn = SystemRandom::new().fill(&mut salt);
        drawn.map_err(|_| SealError::Library("no random bytes".to_owned()))?;
        let (memory_kib, passes, lanes) = (MEMORY_KIB, PASSES, LANES);
        let mut made = Self { salt, memory_kib, passes, lanes, sealed: Vec::new() };
        let cipher = made.cipher(passphrase)?;
        made.sealed = key.to_pem().expose().clone().into_bytes();
        let sealed = cipher.seal_in_place_append_tag(nonce(), Aad::empty(), &mut made.sealed);
        sealed.map_err(|_| SealError::Library("it is too long".to_owned()))?;
        Ok(made)
    }

    /// The key.
    ///
    /// # Errors
    /// When the passphrase is another one, or this was changed.
    pub fn open(&self, passphrase: &Secret<String>) -> Result<PrivateKey, SealError> {
        let cipher = self.cipher(passphrase)?;
        let mut sealed = self.sealed.clone();
        let opened = cipher.open_in_place(nonce(), Aad::empty(), &mut sealed);
        let text = opened.map_err(|_| SealError::Wrong)?;
        let text = std::str::from_utf8(text).map_err(|error| SealError::Shape(error.to_string()))?;
        PrivateKey::from_pem(text).map_err(|error| SealError::Shape(error.to_string()))
    }

    fn cipher(&self, passphrase: &Secret<String>) -> Result<LessSafeKey, SealError> {
        let most = [
            (self.memory_kib, MEMORY_KIB_MAX, "KiB of memory"),
            (self.passes, PASSES_MAX, "passes"),
            (self.lanes, LANES_MAX, "lanes"),
        ];
        if let Some((given, most, what)) = most.into_iter().find(|(given, most, _)| given > most) {
            return Err(SealError::Shape(format!(
                "it asks for {given} {what}, and at most {most} are taken"
            )));
        }
        let shape = |error: argon2::Error| SealError::Shape(error.to_string());
        let length = CHACHA20_POLY1305.key_len();
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(length)).map_err(shape)?;
        let mut key = vec![0; length];
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let passphrase = passphrase.expose().as_bytes();
        argon.hash_password_into(passphrase, &self.salt, &mut key).map_err(shape)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
        key.map(LessSafeKey::new).map_err(|_| SealError::Library("the cipher takes no such key".to_owned()))
    }
}

/// Of a key that is used once: its salt was drawn for it.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn passphrase(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_key_is_opened_by_its_passphrase_and_no_other() {
        let key = PrivateKey::generate().unwrap();
        let right = passphrase("correct horse battery");
        let sealed = SealedKey::seal(&key, &right).unwrap();
        assert_eq!(sealed.open(&right).unwrap().pin(), key.pin());
        assert_eq!(sealed.open(&passphrase("correct horse batter")).unwrap_err(), SealError::Wrong);
        let text = key.to_pem().expose().clone();
        assert!(!sealed.sealed.windows(16).any(|part| part == &text.as_bytes()[40..56]));
        let again = SealedKey::seal(&key, &right).unwrap();
        assert!(again.salt != sealed.salt && again.sealed != sealed.sealed);
        for at in [0, sealed.sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed.sealed[at] ^= 1;
            assert_eq!(changed.open(&right).unwrap_err(), SealError::Wrong);
        }
        let mut salted = sealed.clone();
        salted.salt[0] ^= 1;
        assert_eq!(salted.open(&right).unwrap_err(), SealError::Wrong);
        let short = SealedKey::seal(&key, &passphrase("horse")).unwrap_err();
        assert_eq!(short.to_string(), "the passphrase has 5 characters, and must have at least 12");
    }

    #[test]
    fn a_file_does_not_take_all_memory() {
        let bad = |memory_kib, passes, lanes, salt: usize| {
            let sealed = SealedKey { salt: vec![1; salt], memory_kib, passes, lanes, sealed: vec![0; 300] };
            sealed.open(&passphrase("correct horse battery")).unwrap_err()
        };
        for shape in
            [(u32::MAX, 1, 1, 16), (1024, 17, 1, 16), (1024, 1, 17, 16), (0, 0, 0, 16), (1024, 1, 1, 2)]
        {
            let (memory, passes, lanes, salt) = shape;
            let told = bad(memory, passes, lanes, salt);
            assert!(matches!(told, SealError::Shape(_)), "{shape:?}: {told}");
        }
        assert_eq!(bad(1024, 1, 1, 16), SealError::Wrong);
    }
}
