//! Tokens, and the members that join by them.

use std::sync::Arc;
use std::time::Duration;

use super::{Result, changed, exists, missing, noted, unchanged, valid};
use crate::change::{ChangeKind, Resource};
use crate::command::{Command, Outcome};
use crate::defaults;
use crate::join_token::{JoinToken, JoinTokenSpec, SecretHash, TokenId, TokenRefusal};
use crate::key_pin::KeyPin;
use crate::kind::Kind;
use crate::machine::Applied;
use crate::member::{Member, MemberId, MemberSpec};
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};

/// A member that asks to be taken in by a token.
#[derive(Clone, Copy)]
pub(super) struct Joining<'c> {
    pub(super) spec: &'c MemberSpec,
    pub(super) key: &'c KeyPin,
    pub(super) token: TokenId,
    pub(super) secret_hash: &'c SecretHash,
    pub(super) time_ms: u64,
}

impl ClusterState {
    pub(super) fn decide_token(&self, index: Revision, token: &JoinTokenSpec, time_ms: u64) -> Result {
        valid(|v| token.check(v))?;
        if self.active_authority().is_none() {
            let rule = "needs an authority, whose key the joining member checks, and this cluster was founded without one";
            return Err(Invalid(vec![Violation::new("token", token.id, rule)]).into());
        }
        match self.tokens.get(&token.id) {
            Some(known) if known.spec == *token => return unchanged(known.revision, Outcome::Noted),
            Some(known) => return Err(exists(Kind::Token, token.id, known.revision)),
            None => {}
        }
        // Those that go with this command make place for it.
        if self.tokens.values().filter(|known| !known.is_spent(time_ms)).count() >= defaults::TOKENS_MAX {
            return Err(Refusal::Full { kind: Kind::Token, max: defaults::TOKENS_MAX });
        }
        Ok(noted(index))
    }

    pub(super) fn delete_token(&self, index: Revision, id: TokenId) -> Result {
        self.tokens.get(&id).ok_or_else(|| missing(Kind::Token, id))?;
        Ok(Applied { revision: index, outcome: Outcome::Deleted, changes: Vec::new() })
    }

    pub(super) fn decide_join(&self, index: Revision, joining: Joining<'_>) -> Result {
        if let Some(member) = self.member_with_key(joining.key).and_then(|id| self.members.get(&id)) {
            return self.joined_before(index, member, joining);
        }
        self.usable_token(joining).map_err(|why| Refusal::Token { id: joining.token, why })?;
        self.add_member(index, MemberId(index), joining.spec)
    }

    /// The token that the member has, whether it may still join by it or not.
    fn shown_token(&self, joining: Joining<'_>) -> Option<&Arc<JoinToken>> {
        self.tokens.get(&joining.token).filter(|token| token.spec.secret_hash == *joining.secret_hash)
    }

    /// Whether this member may join by its token.
    fn usable_token(&self, joining: Joining<'_>) -> std::result::Result<(), TokenRefusal> {
        let token = self.shown_token(joining).ok_or(TokenRefusal::Unknown)?;
        if let Some(late) = joining.time_ms.checked_sub(token.spec.not_after_ms).filter(|late| *late > 0) {
            return Err(TokenRefusal::Expired(Duration::from_millis(late)));
        }
        if token.uses_left == 0 {
            let members = if token.spec.uses == 1 { "member" } else { "members" };
            return Err(TokenRefusal::UsedUp(format!("{} {members}", token.spec.uses)));
        }
        Ok(())
    }

    /// The answer to a member that asks again with the key that it had: it did not hear the first one. What it says of itself may
    /// have changed since, as long as it has the token to show; once its process is recorded, that comes in by other ways.
    fn joined_before(&self, index: Revision, member: &Arc<Member>, joining: Joining<'_>) -> Result {
        let spec = joining.spec;
        if member.spec.name != spec.name {
            let rule =
                format!("has the key of member \"{}\"; give it an empty data directory", member.spec.name);
            return Err(Invalid(vec![Violation::new("member.name", &spec.name, rule)]).into());
        }
        self.check_member_level(&spec.name, spec.feature_level_max)?;
        let is_running = self.starts.contains_key(&member.id);
        if is_running || member.spec == *spec || self.shown_token(joining).is_none() {
            return unchanged(member.revision, Outcome::Member(member.clone()));
        }
        self.peer_address_is_free(member.id, &spec.peer_address)?;
        let member = Arc::new(Member { spec: spec.clone(), revision: index, ..Member::clone(member) });
        changed(index, ChangeKind::Updated, Resource::Member(member))
    }

    /// Makes what was decided, and forgets tokens that are of no more use.
    pub(super) fn change_tokens(&mut self, index: Revision, command: &Command, applied: &Applied) {
        let time_ms = match command {
            Command::PutToken { time_ms, .. } | Command::JoinMember { time_ms, .. } => *time_ms,
            _ => 0,
        };
        if applied.revision == index {
            self.tokens.retain(|_, token| !token.is_spent(time_ms));
        }
        match command {
            Command::PutToken { token, .. } if applied.revision == index => {
                self.put_token(index, token);
            }
            Command::DeleteToken(id) => drop(self.tokens.remove(id)),
            Command::JoinMember { key, token, .. } => {
                if let [change] = applied.changes.as_slice()
                    && change.kind == ChangeKind::Created
                    && let Resource::Member(member) = &change.resource
                {
                    self.use_token(index, *token, member.id, *key);
                }
            }
            _ => {}
        }
    }

    pub(super) fn put_token(&mut self, index: Revision, token: &JoinTokenSpec) {
        let made = JoinToken { spec: token.clone(), uses_left: token.uses, revision: index };
        self.tokens.insert(token.id, Arc::new(made));
    }

    fn use_token(&mut self, index: Revision, token: TokenId, member: MemberId, key: KeyPin) {
        let Some(token) = self.tokens.get_mut(&token).map(Arc::make_mut) else { return };
        token.uses_left = token.uses_left.saturating_sub(1);
        token.revision = index;
        self.joins_as.insert(member, token.spec.joins_as);
        self.pin_key(member, key);
    }
}
