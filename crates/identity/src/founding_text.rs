//! Founding tokens: a secret that the machines of a cluster to be have in a file each, by which they know one another before there is a
//! cluster, and from which the token comes by which they join it.
//!
//! As text: `trestle-founding1.` and base64url (RFC 4648 section 5, without padding) of 16 random bytes and a checksum over them, so that a
//! slip of the hand or half a file is told from another token.

use std::fmt;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use hmac::digest::Key;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use trestle_model::{HostPort, KeyPin, Secret, TokenId};

use crate::token_text::TokenText;

/// What every founding token begins with, so that people and scanners for secrets know one.
const PREFIX: &str = "trestle-founding1.";
/// What those of all versions begin with.
const ANY_PREFIX: &str = "trestle-founding";
/// What tokens begin with by which a machine joins a cluster that is there.
const JOIN_PREFIX: &str = "trestle1.";
/// Random bytes: nobody finds them by trying, though a proof by them can be listened to.
const SECRET: usize = 16;
/// Bytes of the checksum, as in other tokens.
const CHECKSUM: usize = 4;

/// A founding token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundingToken(Secret<[u8; SECRET]>);

/// What is proved by a founding token: neither is taken for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundingSide {
    /// A question.
    Question,
    /// An answer.
    Answer,
}

/// Why a text is no founding token. None of it repeats the text: it may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoundingTextError {
    /// There is nothing.
    #[error(
        "there is no founding token in it: \"trestled founding-token\" prints one, which begins with {PREFIX}"
    )]
    Empty,
    /// It is a token of a cluster that is there.
    #[error(
        "it has a token by which a machine joins a cluster that is there: that goes into join_token_file; \"trestled founding-token\" \
         prints a founding token"
    )]
    JoinToken,
    /// It is something else.
    #[error("it has no founding token: \"trestled founding-token\" prints one, which begins with {PREFIX}")]
    Other,
    /// It is of a version that this program does not know.
    #[error("its founding token is of a newer version: upgrade this program")]
    Newer,
    /// It is not what it was when it was printed.
    #[error(
        "the checksum of its founding token does not match: a part is missing, or was changed; copy the whole of it once more"
    )]
    Checksum,
}

fn checksum(secret: &[u8]) -> [u8; CHECKSUM] {
    let hash: [u8; 32] = Sha256::new().chain_update(PREFIX).chain_update(secret).finalize().into();
    std::array::from_fn(|at| hash[at])
}

impl FoundingSide {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Question => b"trestle founding 1: question",
            Self::Answer => b"trestle founding 1: answer",
        }
    }
}

impl FoundingToken {
    /// One of these random bytes.
    pub const fn new(secret: [u8; SECRET]) -> Self {
        Self(Secret::new(secret))
    }

    /// Reads one. Spaces and ends of lines are passed over.
    ///
    /// # Errors
    /// [`FoundingTextError`].
    pub fn parse(text: &str) -> Result<Self, FoundingTextError> {
        let text: String = text.split_ascii_whitespace().collect();
        if text.is_empty() {
            return Err(FoundingTextError::Empty);
        }
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix(ANY_PREFIX).and_then(|rest| rest.split_once('.'));
            let newer = version.is_some_and(|(number, _)| number.parse().is_ok_and(|number: u32| number > 1));
            return Err(match () {
                () if newer => FoundingTextError::Newer,
                () if text.starts_with(JOIN_PREFIX) => FoundingTextError::JoinToken,
                () => FoundingTextError::Other,
            });
        };
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_: DecodeError| FoundingTextError::Checksum)?;
        let (secret, sum) = bytes.split_at_checked(SECRET).ok_or(FoundingTextError::Checksum)?;
        match secret.try_into() {
            Ok(read) if sum == checksum(secret) => Ok(Self::new(read)),
            _ => Err(FoundingTextError::Checksum),
        }
    }

    /// The token as it is put into files.
    pub fn to_text(&self) -> Secret<String> {
        let secret = self.0.expose();
        let content = [secret.as_slice(), &checksum(secret)].concat();
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content)))
    }

    /// HMAC-SHA-256 (RFC 2104) of parts, each after its length: no two lists of parts are the same bytes.
    fn mac(&self, label: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
        // Zeros after a key that is shorter than a block change nothing (RFC 2104 section 2).
        let mut key = Key::<Hmac<Sha256>>::default();
        key.iter_mut().zip(self.0.expose()).for_each(|(byte, secret)| *byte = *secret);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&key);
        for part in [label].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// Proves to whoever has this token that what says `parts` has it too.
    pub fn proof(&self, side: FoundingSide, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(side.label(), parts).finalize().into_bytes().into()
    }

    /// Whether a proof is of these parts, by this token.
    pub fn is_proof(&self, side: FoundingSide, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.mac(side.label(), parts).verify_slice(proof).is_ok()
    }

    fn derived(&self, label: &[u8]) -> [u8; 32] {
        self.mac(label, &[]).finalize().into_bytes().into()
    }

    /// The token by which the other machines join the cluster of this authority, whose members are found there.
    pub fn join_token(&self, authority: KeyPin, endpoints: Vec<HostPort>) -> TokenText {
        let id = self.derived(b"trestle founding 1: token id");
        let secret = self.derived(b"trestle founding 1: token secret");
        TokenText {
            id: TokenId(std::array::from_fn(|at| id[at])),
            secret: Secret::new(std::array::from_fn(|at| secret[at])),
            authority,
            endpoints,
        }
    }
}

impl fmt::Display for FoundingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a founding token")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_fuzz::{FuzzTarget, fuzz};

    use super::*;

    fn token() -> FoundingToken {
        FoundingToken::new([0xa5; SECRET])
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let text = token().to_text().expose().clone();
        assert!(text.starts_with("trestle-founding1.") && text.len() < 60, "{text}");
        assert_eq!(FoundingToken::parse(&format!(" {text}\r\n")), Ok(token()));
        let shown = format!("{} {:?} {}", token(), token(), token().to_text());
        assert!(!shown.contains("165") && !shown.contains("paWl"), "{shown}");
    }

    #[test]
    fn each_slip_of_the_hand_is_told() {
        let text = token().to_text().expose().clone();
        for end in PREFIX.len()..text.len() {
            assert_eq!(FoundingToken::parse(&text[..end]), Err(FoundingTextError::Checksum), "{end}");
        }
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let read = FoundingToken::parse(std::str::from_utf8(&changed).unwrap());
            assert_eq!(read, Err(FoundingTextError::Checksum), "{at}");
        }
        let twice = format!("{text}{}", &text[PREFIX.len()..]);
        assert_eq!(FoundingToken::parse(&twice), Err(FoundingTextError::Checksum));
        let joins = token().join_token(KeyPin([1; 32]), vec![HostPort::parse("m1:7481").unwrap()]);
        for (wrong, why) in [
            (" \n", FoundingTextError::Empty),
            ("hello", FoundingTextError::Other),
            ("trestle-founding2.AAAA", FoundingTextError::Newer),
            (joins.to_text().expose().as_str(), FoundingTextError::JoinToken),
        ] {
            assert_eq!(FoundingToken::parse(wrong), Err(why), "{wrong}");
        }
    }

    #[test]
    fn a_proof_is_of_its_side_its_parts_and_its_token() {
        let parts: [&[u8]; 2] = [b"one", b"two"];
        let proof = token().proof(FoundingSide::Answer, &parts);
        assert!(token().is_proof(FoundingSide::Answer, &parts, &proof));
        assert!(!token().is_proof(FoundingSide::Question, &parts, &proof));
        assert!(!token().is_proof(FoundingSide::Answer, &[b"onet", b"wo"], &proof));
        assert!(!token().is_proof(FoundingSide::Answer, &[b"one"], &proof));
        assert!(!token().is_proof(FoundingSide::Answer, &parts, &proof[..31]));
        assert!(!token().is_proof(FoundingSide::Answer, &parts, &[]));
        assert!(!FoundingToken::new([1; SECRET]).is_proof(FoundingSide::Answer, &parts, &proof));
    }

    /// RFC 4231 has no key of 16 bytes; this is what another implementation says (Python's hmac).
    #[test]
    fn machines_of_other_versions_join_by_the_same_token() {
        let joins = token().join_token(KeyPin([0; 32]), Vec::new());
        assert_eq!(joins.id.to_string(), "53d908e098884cf1");
        assert_eq!(joins.secret_hash().0[..4], [0x78, 0xe4, 0x0a, 0x2c]);
        let other = FoundingToken::new([0xa6; SECRET]).join_token(KeyPin([0; 32]), Vec::new());
        assert!(other.id != joins.id && other.secret != joins.secret);
    }

    #[test]
    fn fuzz_founding_token() {
        let target = FuzzTarget {
            name: "founding_token",
            seeds: vec![token().to_text().expose().clone().into_bytes(), b"trestle1.AQEC".to_vec()],
            words: &[b"trestle-founding1.", b"trestle-founding2.", b"\n"],
            len_max: 200,
            repair: None,
        };
        let summary = fuzz(&target, |bytes| match FoundingToken::parse(&String::from_utf8_lossy(bytes)) {
            Ok(token) => {
                assert_eq!(FoundingToken::parse(token.to_text().expose()), Ok(token));
                "read".to_owned()
            }
            Err(error) => format!("{error:?}"),
        });
        assert!(summary.outcomes > 3, "{summary:?}");
    }
}
