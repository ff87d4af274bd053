//! Tokens by which members join: who has one may take one member into the cluster, or a few, for a time.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::defaults;
use crate::revision::Revision;
use crate::violation::{Violations, within};

/// A token's name: drawn when it is made, and no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

impl TokenId {
    /// Parses 16 lower-case hexadecimal digits; the error is the broken rule.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let good = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| good);
        let rule =
            || "must be 16 lower-case hexadecimal digits, as \"trestle token list\" shows them".to_owned();
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(rule)
    }

    /// Takes the bytes of an id.
    ///
    /// # Errors
    /// The broken rule, when they are not 8.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        bytes.try_into().map(Self).map_err(|_| "must be 8 bytes".to_owned())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of a token's secret. The secret has 128 random bits, so nobody finds it by trying, and no slow hash is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Takes the bytes of a hash.
    ///
    /// # Errors
    /// The broken rule, when they are not 32.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        bytes.try_into().map(Self).map_err(|_| "must be the 32 bytes of a SHA-256".to_owned())
    }
}

/// What a member becomes that joins by a token, without anybody's further help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum JoinAs {
    /// A voter, once it has caught up.
    #[default]
    Voter,
    /// A learner, until somebody promotes it.
    Learner,
}

/// A token as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenSpec {
    /// Its name.
    pub id: TokenId,
    /// By which it is known that somebody has it.
    pub secret_hash: SecretHash,
    /// What members become that join by it.
    pub joins_as: JoinAs,
    /// How many members may join by it.
    pub uses: u32,
    /// Last moment at which one may: milliseconds since the beginning of 1970, UTC.
    pub not_after_ms: u64,
    /// The generation of the authority by whose key those who have it know the cluster; 0 where that was not noted.
    pub authority: u32,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What was wanted.
    pub spec: JoinTokenSpec,
    /// How many members may still join by it.
    pub uses_left: u32,
    /// Revision that last changed it.
    pub revision: Revision,
}

impl JoinToken {
    /// Whether no member can join by it any more.
    pub(crate) fn is_spent(&self, time_ms: u64) -> bool {
        self.uses_left == 0 || self.spec.not_after_ms < time_ms
    }
}

impl JoinTokenSpec {
    /// Notes what breaks a rule.
    pub fn check(&self, v: &mut Violations) {
        within(v, "token.uses", &self.uses, &defaults::TOKEN_USES_BOUNDS);
        within(v, "token.not_after_ms", &self.not_after_ms, &TIMES);
    }
}

/// Moments that can be written as a date.
const TIMES: RangeInclusive<u64> = 0..=defaults::TIME_MS_MAX;

/// Why no member joins by a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There is none with that id and secret.
    #[error(
        "is not known: it was revoked, or it was used up or has expired and is forgotten, or it is of another cluster"
    )]
    Unknown,
    /// As many members have joined by it as might.
    #[error("is used up: {0} joined by it, as many as might")]
    UsedUp(String),
    /// Its time is over.
    #[error("has expired, {} ago by the clock of the leader", text(*.0))]
    Expired(Duration),
}

/// A time in whole seconds, or shorter.
fn text(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{time:?}") } else { format!("{} s", time.as_secs()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_has_one_name() {
        let id = TokenId([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "00010203fcfdfeff");
        assert_eq!(TokenId::parse("00010203fcfdfeff"), Ok(id));
        for bad in ["", "0010203fcfdfeff", "00010203FCFDFEFF", "+0010203fcfdfeff", "00010203fcfdfefg"] {
            assert!(TokenId::parse(bad).is_err(), "{bad}");
        }
    }
}
