//! Authorities, keys of members, and users.

use std::sync::Arc;

use super::{Result, check_revision, exists, missing, noted, unchanged, valid};
use crate::authority::{Authority, AuthorityState};
use crate::command::Outcome;
use crate::defaults;
use crate::document::Expected;
use crate::key_pin::KeyPin;
use crate::kind::Kind;
use crate::machine::Applied;
use crate::member::MemberId;
use crate::name::UserName;
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::transport::{FoundingIdentities, TransportSecurity};
use crate::user::{User, UserKey, UserSpec};
use crate::violation::{Invalid, Violation};

/// Whether a certificate counts rather than the one that is known: it ends later, or is of a later authority.
fn is_newer(known: &UserKey, key: &UserKey) -> bool {
    known.not_after < key.not_after || known.authority < key.authority
}

impl ClusterState {
    pub(super) fn found_identities(&mut self, index: Revision, identities: Option<&FoundingIdentities>) {
        let Some(FoundingIdentities { authority, external, founder_key, transport, token }) = identities
        else {
            return;
        };
        let authority = Authority {
            generation: Authority::FIRST,
            certificate: authority.clone(),
            state: AuthorityState::Active,
            external: *external,
            key_holders: if *external { Vec::new() } else { vec![MemberId::FOUNDER] },
            cross: None,
        };
        self.authorities.insert(Authority::FIRST, Arc::new(authority));
        founder_key.iter().for_each(|key| self.pin_key(MemberId::FOUNDER, *key));
        self.transport = *transport;
        token.iter().for_each(|token| self.put_token(index, token));
    }

    pub(super) fn decide_pin(&self, index: Revision, id: MemberId, key: &KeyPin) -> Result {
        let member = self.members.get(&id).ok_or_else(|| missing(Kind::Member, id))?;
        let name = &member.spec.name;
        match self.member_with_key(key) {
            Some(owner) if owner != id => {
                let rule =
                    format!("is a key of member {owner} already; make a new one for member \"{name}\"");
                Err(Invalid(vec![Violation::new("member.key", key, rule)]).into())
            }
            _ if self.member_keys.get(&id).and_then(|keys| keys.first()) == Some(key) => {
                unchanged(self.revision, Outcome::Noted)
            }
            _ => Ok(noted(index)),
        }
    }

    pub(super) fn decide_transport(&self, index: Revision, wanted: TransportSecurity) -> Result {
        let refused = |rule: String| Err(Invalid(vec![Violation::new("transport", wanted, rule)]).into());
        if wanted == self.transport {
            return unchanged(self.revision, Outcome::Noted);
        }
        if self.active_authority().is_none() {
            return refused("needs an authority, and this cluster was founded without one".to_owned());
        }
        if self.transport == TransportSecurity::Require && wanted == TransportSecurity::Off {
            return refused("must be accept before it can be off".to_owned());
        }
        let without: Vec<_> = self.members_without_key().map(|member| member.spec.name.to_string()).collect();
        if wanted == TransportSecurity::Require && !without.is_empty() {
            return refused(format!(
                "needs a key of every member, and has none of {}; run \"trestle member enroll\" on each of them first",
                without.join(", ")
            ));
        }
        Ok(noted(index))
    }

    pub(super) fn decide_user(&self, index: Revision, user: &UserSpec, expected: Expected) -> Result {
        valid(|v| user.check(v))?;
        let known = self.users.get(&user.name);
        match (known, expected) {
            (Some(known), Expected::Absent) => {
                return Err(exists(Kind::User, &user.name, known.revision));
            }
            (None, Expected::Revision(_)) => return Err(missing(Kind::User, &user.name)),
            (Some(known), Expected::Revision(revision)) => {
                check_revision(Kind::User, &user.name, Some(revision), known.revision)?;
            }
            (_, Expected::Any) | (None, Expected::Absent) => {}
        }
        self.keys_are_nobody_elses(user)?;
        match known {
            Some(known) if known.spec == *user => unchanged(known.revision, Outcome::Noted),
            None if self.users.len() >= defaults::USERS_MAX => {
                Err(Refusal::Full { kind: Kind::User, max: defaults::USERS_MAX })
            }
            _ => Ok(noted(index)),
        }
    }

    /// One key is one user: who shows it must not be able to choose.
    fn keys_are_nobody_elses(&self, user: &UserSpec) -> std::result::Result<(), Refusal> {
        let mut others = self.users.values().filter(|other| other.spec.name != user.name);
        let taken = others.find_map(|other| {
            let key = user.keys.iter().find(|key| other.has_key(&key.pin))?;
            Some((key.pin, &other.spec.name))
        });
        let Some((pin, other)) = taken else { return Ok(()) };
        let rule = format!("is a key of user \"{other}\" already; make a new one");
        Err(Invalid(vec![Violation::new("user.keys", pin, rule)]).into())
    }

    pub(super) fn put_user(&mut self, index: Revision, decided: Revision, user: &UserSpec) {
        // One that is as it was keeps its revision.
        if decided == index {
            let user = User { spec: user.clone(), revision: index };
            self.users.insert(user.spec.name.clone(), Arc::new(user));
        }
    }

    pub(super) fn decide_certificate(&self, index: Revision, name: &UserName, key: &UserKey) -> Result {
        let user = self.users.get(name).ok_or_else(|| missing(Kind::User, name))?;
        match user.spec.keys.iter().find(|known| known.pin == key.pin) {
            None => {
                let rule = format!("must be a key of user \"{name}\": it was rotated");
                Err(Invalid(vec![Violation::new("user.key", key.pin, rule)]).into())
            }
            Some(known) if !is_newer(known, key) => unchanged(user.revision, Outcome::Noted),
            Some(_) => Ok(noted(index)),
        }
    }

    pub(super) fn note_certificate(&mut self, index: Revision, name: &UserName, key: &UserKey) {
        let Some(user) = self.users.get_mut(name).map(Arc::make_mut) else { return };
        let known = user.spec.keys.iter_mut().find(|known| known.pin == key.pin);
        if let Some(known) = known.filter(|known| is_newer(known, key)) {
            *known = *key;
            user.revision = index;
        }
    }

    pub(super) fn delete_user(&self, index: Revision, name: &UserName, expected: Option<Revision>) -> Result {
        let user = self.users.get(name).ok_or_else(|| missing(Kind::User, name))?;
        check_revision(Kind::User, name, expected, user.revision)?;
        Ok(Applied { revision: index, outcome: Outcome::Deleted, changes: Vec::new() })
    }
}
