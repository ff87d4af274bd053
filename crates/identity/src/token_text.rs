//! Tokens as text: what a person carries from a member to the machine that is to join.
//!
//! `trestle1.` and base64url (RFC 4648 section 5, without padding) of: a version, the token's id, its secret, the hash of the key that
//! the cluster's members must prove to be signed by, where to call them, and a checksum over all of it, so that a text which was not
//! copied whole is told from one that is not known.

use std::fmt;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use sha2::{Digest, Sha256};
use trestle_model::{HostPort, KeyPin, Secret, SecretHash, TokenId};

/// What every token begins with, so that people and scanners for secrets know one.
const PREFIX: &str = "trestle1.";
/// What tokens of all versions begin with.
const ANY_PREFIX: &str = "trestle";
const VERSION: u8 = 1;
/// Bytes of the checksum: of a hash, because that is there, and as much of it as a slip of the hand needs.
const CHECKSUM: usize = 4;
/// Most endpoints: more would only make the text longer, for they lead to one cluster.
pub const TOKEN_ENDPOINTS_MAX: usize = 3;
/// Longest text that is read, in bytes; one with three DNS names of full length has some 1200.
const TEXT_MAX: usize = 2048;

/// A token with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenText {
    /// Its name.
    pub id: TokenId,
    /// By which the cluster knows that somebody has it.
    pub secret: Secret<[u8; 16]>,
    /// The key of the authority that the cluster's members prove themselves by.
    pub authority: KeyPin,
    /// Peer addresses of members to call.
    pub endpoints: Vec<HostPort>,
}

/// Why a text is no token. None of it repeats the text: it may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenTextError {
    /// There is nothing.
    #[error("the token is empty: give what \"trestle token create\" has printed, which begins with {PREFIX}")]
    Empty,
    /// It is something else.
    #[error("it is no token: give what \"trestle token create\" has printed, which begins with {PREFIX}")]
    Other,
    /// It is of a version that this program does not know.
    #[error("the token is of a newer version: upgrade this program to the version of the cluster's members")]
    Newer,
    /// It is too long.
    #[error(
        "the token is longer than {TEXT_MAX} bytes, and none is: give what \"trestle token create\" has printed, and nothing else"
    )]
    TooLong,
    /// It has a character that no token has.
    #[error("the token has a character that none has: copy the whole of it once more, and nothing else")]
    Characters,
    /// It is not what it was when it was printed.
    #[error(
        "the checksum does not match: a part of the token is missing, or was changed; copy the whole of it once more"
    )]
    Checksum,
    /// Its parts are not there as they should be, though its checksum is right.
    #[error("the token makes no sense, though it is whole: make another one with \"trestle token create\"")]
    Shape,
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let hash: [u8; 32] = Sha256::new().chain_update(PREFIX).chain_update(content).finalize().into();
    std::array::from_fn(|at| hash[at])
}

/// Takes the first bytes of a content.
fn take<'b>(content: &mut &'b [u8], count: usize) -> Result<&'b [u8], TokenTextError> {
    let (taken, rest) = content.split_at_checked(count).ok_or(TokenTextError::Shape)?;
    *content = rest;
    Ok(taken)
}

fn array<const N: usize>(content: &mut &[u8]) -> Result<[u8; N], TokenTextError> {
    take(content, N)?.try_into().map_err(|_| TokenTextError::Shape)
}

fn byte(content: &mut &[u8]) -> Result<u8, TokenTextError> {
    array::<1>(content).map(|[byte]| byte)
}

/// In the one form in which an address is written.
fn endpoint(content: &mut &[u8]) -> Result<HostPort, TokenTextError> {
    let length = usize::from(byte(content)?);
    let text = std::str::from_utf8(take(content, length)?).map_err(|_| TokenTextError::Shape)?;
    let address = HostPort::parse(text).ok().filter(|address| address.as_str() == text);
    address.ok_or(TokenTextError::Shape)
}

impl TokenText {
    /// Reads a token. Spaces and ends of lines are passed over: terminals and mails break long lines.
    ///
    /// # Errors
    /// [`TokenTextError`].
    pub fn parse(text: &str) -> Result<Self, TokenTextError> {
        let text: String = text.split_ascii_whitespace().collect();
        if text.is_empty() {
            return Err(TokenTextError::Empty);
        }
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix(ANY_PREFIX).and_then(|rest| rest.split_once('.'));
            let newer = version.is_some_and(|(number, _)| number.parse().is_ok_and(|number: u32| number > 1));
            return Err(if newer { TokenTextError::Newer } else { TokenTextError::Other });
        };
        if text.len() > TEXT_MAX {
            return Err(TokenTextError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|error| match error {
            // No text of whole bytes: some of it is missing.
            DecodeError::InvalidLength(_) | DecodeError::InvalidLastSymbol { .. } => TokenTextError::Checksum,
            _ => TokenTextError::Characters,
        })?;
        let (content, sum) = bytes
            .len()
            .checked_sub(CHECKSUM)
            .and_then(|length| bytes.split_at_checked(length))
            .ok_or(TokenTextError::Checksum)?;
        if sum != checksum(content) {
            return Err(TokenTextError::Checksum);
        }
        Self::read(content)
    }

    fn read(mut content: &[u8]) -> Result<Self, TokenTextError> {
        let rest = &mut content;
        if byte(rest)? != VERSION {
            return Err(TokenTextError::Newer);
        }
        let (id, secret) = (TokenId(array(rest)?), Secret::new(array(rest)?));
        let authority = KeyPin(array(rest)?);
        let count = usize::from(byte(rest)?);
        if !(1..=TOKEN_ENDPOINTS_MAX).contains(&count) {
            return Err(TokenTextError::Shape);
        }
        let endpoints = (0..count).map(|_| endpoint(rest)).collect::<Result<_, _>>()?;
        if !rest.is_empty() {
            return Err(TokenTextError::Shape);
        }
        Ok(Self { id, secret, authority, endpoints })
    }

    /// The token as it is given to whoever is to join; of its endpoints the first three.
    pub fn to_text(&self) -> Secret<String> {
        let Self { id, secret, authority, endpoints } = self;
        let mut content = vec![VERSION];
        content.extend(id.0);
        content.extend(secret.expose());
        content.extend(authority.0);
        // Longer ones than a byte counts are no addresses that DNS has.
        let short = |address: &&HostPort| address.as_str().len() <= usize::from(u8::MAX);
        let shown: Vec<_> = endpoints.iter().filter(short).take(TOKEN_ENDPOINTS_MAX).collect();
        content.push(shown.len() as u8);
        for address in shown {
            content.push(address.as_str().len() as u8);
            content.extend(address.as_str().bytes());
        }
        content.extend(checksum(&content));
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content)))
    }

    /// What the cluster keeps of the secret.
    pub fn secret_hash(&self) -> SecretHash {
        secret_hash(self.secret.expose())
    }
}

/// What a cluster keeps of a token's secret.
pub fn secret_hash(secret: &[u8]) -> SecretHash {
    SecretHash(Sha256::digest(secret).into())
}

impl fmt::Display for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}", self.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_fuzz::{FuzzTarget, fuzz};

    use super::*;

    fn token(endpoints: &[&str]) -> TokenText {
        TokenText {
            id: TokenId([1, 2, 3, 4, 5, 6, 7, 8]),
            secret: Secret::new([0xa5; 16]),
            authority: KeyPin([0x5a; 32]),
            endpoints: endpoints.iter().map(|text| HostPort::parse(text).unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_printed_is_read_again_though_lines_were_broken() {
        for endpoints in [&["10.0.0.1:7481"][..], &["m1.example:7481", "[2001:db8::1]:7481", "m3:1"]] {
            let token = token(endpoints);
            let text = token.to_text().expose().clone();
            assert!(text.starts_with("trestle1.") && text.len() < 200, "{text}");
            assert_eq!(TokenText::parse(&text), Ok(token.clone()));
            let (first, second) = text.split_at(40);
            assert_eq!(TokenText::parse(&format!(" {first}\r\n  {second}\n")), Ok(token));
        }
        let many = token(&["m1:1", "m2:1", "m3:1", "m4:1"]);
        assert_eq!(TokenText::parse(many.to_text().expose()).unwrap().endpoints, many.endpoints[..3]);
    }

    /// The words that tokens out there are read by: they change only together with the version.
    #[test]
    fn a_token_is_written_as_ever() {
        let golden = "trestle1.AQECAwQFBgcIpaWlpaWlpaWlpaWlpaWlpVpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaAQdtMTo3NDgx";
        let text = token(&["m1:7481"]).to_text().expose().clone();
        assert!(text.starts_with(golden), "{text}");
        assert_eq!(text.len(), golden.len() + 6);
    }

    #[test]
    fn each_slip_of_the_hand_is_told() {
        let text = token(&["10.0.0.1:7481"]).to_text().expose().clone();
        for end in PREFIX.len()..text.len() {
            let told = TokenText::parse(&text[..end]).unwrap_err();
            assert_eq!(told, TokenTextError::Checksum, "{end}");
        }
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let told = TokenText::parse(std::str::from_utf8(&changed).unwrap()).unwrap_err();
            assert_eq!(told, TokenTextError::Checksum, "{at}");
        }
        let told = |text: &str| TokenText::parse(text).unwrap_err();
        assert_eq!(told(" \n"), TokenTextError::Empty);
        assert_eq!(told("K10abc::server:x"), TokenTextError::Other);
        assert_eq!(told("trestle2.AAAA"), TokenTextError::Newer);
        assert_eq!(told(&format!("{text}=")), TokenTextError::Characters);
        assert_eq!(told(&format!("{text}{}", "A".repeat(3000))), TokenTextError::TooLong);
        assert!(told(&text[..60]).to_string().starts_with("the checksum does not match: a part"));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let token = token(&["m1:7481"]);
        let shown = format!("{token} {token:?} {} {:?}", token.to_text(), token.to_text());
        assert!(shown.contains("0102030405060708"), "{shown}");
        // Its bytes as numbers, as hexadecimal digits, which the authority's hash has in another order, and in Base64.
        let others = shown.replace(&token.authority.to_string(), "");
        assert!(!others.contains("165") && !others.contains("a5a5") && !others.contains("paWl"), "{shown}");
    }

    /// Makes the checksum right, so that what is behind it is reached.
    fn repair(content: &mut [u8]) {
        if let Some(length) = content.len().checked_sub(CHECKSUM) {
            let sum = checksum(&content[..length]);
            content[length..].copy_from_slice(&sum);
        }
    }

    #[test]
    fn fuzz_join_token() {
        let seed = |endpoints: &[&str]| {
            let text = token(endpoints).to_text();
            URL_SAFE_NO_PAD.decode(&text.expose()[PREFIX.len()..]).unwrap()
        };
        let target = FuzzTarget {
            name: "join_token",
            seeds: vec![seed(&["10.0.0.1:7481"]), seed(&["m1:1", "[2001:db8::1]:7481", "m3.example:7481"])],
            words: &[b"\x01\x04m1:1", b"10.0.0.1:7481", b"[::1]:1"],
            len_max: 400,
            repair: Some(repair),
        };
        let summary = fuzz(&target, |bytes| {
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            match TokenText::parse(&text) {
                Ok(token) => {
                    assert_eq!(*token.to_text().expose(), text, "there is one text of a token");
                    format!("{} endpoints", token.endpoints.len())
                }
                Err(error) => format!("{error:?}"),
            }
        });
        assert!(summary.outcomes > 4, "{summary:?}");
    }
}
