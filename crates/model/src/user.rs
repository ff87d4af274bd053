//! Users: who may call the admin API, by which keys, and as what.

use std::collections::BTreeSet;

use crate::defaults::USER_KEYS_MAX;
use crate::key_pin::KeyPin;
use crate::name::UserName;
use crate::revision::Revision;
use crate::role::Role;
use crate::violation::Violations;

/// A key that a user may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserKey {
    /// Which one.
    pub pin: KeyPin,
    /// End of the certificate that was signed for it: seconds since the beginning of 1970, UTC.
    pub not_after: u64,
    /// Beginning of it, likewise; 0 where that was not noted.
    pub not_before: u64,
    /// Generation of the authority that has signed it; 0 where that was not noted.
    pub authority: u32,
}

/// A user as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// Its name.
    pub name: UserName,
    /// What it may do.
    pub role: Role,
    /// Its keys, one or two.
    pub keys: Vec<UserKey>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What was wanted.
    pub spec: UserSpec,
    /// Revision that last changed it.
    pub revision: Revision,
}

impl User {
    /// Whether a key is one of its own.
    pub fn has_key(&self, pin: &KeyPin) -> bool {
        self.spec.keys.iter().any(|key| key.pin == *pin)
    }
}

impl UserSpec {
    /// Notes what breaks a rule.
    pub fn check(&self, v: &mut Violations) {
        let pins: BTreeSet<KeyPin> = self.keys.iter().map(|key| key.pin).collect();
        if !(1..=USER_KEYS_MAX).contains(&self.keys.len()) || pins.len() != self.keys.len() {
            v.add("user.keys", self.keys.len(), format!("must be 1 to {USER_KEYS_MAX} different keys"));
        }
    }
}
