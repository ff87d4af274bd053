//! Authorities: one comes, is believed, signs, and is believed no more when the next one signs.

use std::sync::Arc;

use super::{Result, missing, noted, unchanged};
use crate::authority::{Authority, AuthorityState};
use crate::command::{Command, Outcome};
use crate::defaults;
use crate::kind::Kind;
use crate::member::MemberId;
use crate::refusal::Refusal;
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};

fn refused(generation: u32, rule: impl Into<String>) -> Result {
    Err(Invalid(vec![Violation::new("authority.generation", generation, rule)]).into())
}

impl ClusterState {
    fn authority(&self, generation: u32) -> std::result::Result<&Arc<Authority>, Refusal> {
        self.authorities.get(&generation).ok_or_else(|| missing(Kind::Authority, generation))
    }

    pub(super) fn decide_key_holder(&self, index: Revision, generation: u32, member: MemberId) -> Result {
        let authority = self.authority(generation)?;
        if !self.members.contains_key(&member) {
            return Err(missing(Kind::Member, member));
        }
        if authority.external {
            return refused(generation, "is external: no member has its key");
        }
        if authority.key_holders.contains(&member) {
            return unchanged(self.revision, Outcome::Noted);
        }
        Ok(noted(index))
    }

    pub(super) fn decide_authority(
        &self,
        index: Revision,
        generation: u32,
        certificate: &[u8],
        maker: Option<MemberId>,
    ) -> Result {
        if let Some(maker) = maker.filter(|maker| !self.members.contains_key(maker)) {
            return Err(missing(Kind::Member, maker));
        }
        let newest = self.authorities.values().next_back();
        if newest.is_some_and(|newest| newest.generation == generation && *newest.certificate == *certificate)
        {
            return unchanged(self.revision, Outcome::Noted);
        }
        let next = newest.map_or(Authority::FIRST, |newest| newest.generation.saturating_add(1));
        if generation != next {
            return refused(generation, format!("must be {next}, one more than the newest authority has"));
        }
        if let Some(coming) = self.coming_authority() {
            let rule = format!(
                "is not made while authority {0} has yet to become the one that signs: \"trestle ca rotate\" goes on with it, and \"trestle ca retire \
                 {0}\" drops it",
                coming.generation
            );
            return refused(generation, rule);
        }
        if self.authorities.values().any(|known| *known.certificate == *certificate) {
            return refused(
                generation,
                "has a certificate that another authority of this cluster has already",
            );
        }
        if self.authorities.len() >= defaults::AUTHORITIES_MAX && self.oldest_retired().is_none() {
            return Err(Refusal::Full { kind: Kind::Authority, max: defaults::AUTHORITIES_MAX });
        }
        Ok(noted(index))
    }

    pub(super) fn decide_activation(&self, index: Revision, generation: u32) -> Result {
        let authority = self.authority(generation)?;
        let active = self.active_authority().map_or(0, |active| active.generation);
        match authority.state {
            AuthorityState::Active => unchanged(self.revision, Outcome::Noted),
            AuthorityState::Retired => refused(generation, "was retired, and is not used again"),
            AuthorityState::Trusted if generation < active => refused(
                generation,
                format!("is older than {active}, which signs: an authority is not used again"),
            ),
            AuthorityState::Trusted => Ok(noted(index)),
        }
    }

    pub(super) fn decide_retirement(&self, index: Revision, generation: u32) -> Result {
        match self.authority(generation)?.state {
            AuthorityState::Retired => unchanged(self.revision, Outcome::Noted),
            AuthorityState::Active => refused(
                generation,
                "signs, and cannot be retired: \"trestle ca rotate\" makes another one that does first",
            ),
            AuthorityState::Trusted => Ok(noted(index)),
        }
    }

    fn oldest_retired(&self) -> Option<u32> {
        self.retired_authorities().map(|authority| authority.generation).next()
    }

    fn set_authority(&mut self, generation: u32, state: AuthorityState) {
        if let Some(authority) = self.authorities.get_mut(&generation).map(Arc::make_mut) {
            authority.state = state;
        }
    }

    /// Makes what was decided.
    pub(super) fn change_authorities(&mut self, command: &Command) {
        match command {
            Command::NoteKeyHolder { generation, member } => {
                if let Some(authority) = self.authorities.get_mut(generation).map(Arc::make_mut) {
                    authority.key_holders.push(*member);
                    authority.key_holders.sort_unstable();
                    authority.key_holders.dedup();
                }
            }
            Command::AddAuthority { generation, .. } if self.authorities.contains_key(generation) => {}
            Command::AddAuthority { generation, certificate, cross, maker } => {
                if self.authorities.len() >= defaults::AUTHORITIES_MAX
                    && let Some(oldest) = self.oldest_retired()
                {
                    self.authorities.remove(&oldest);
                }
                let authority = Authority {
                    generation: *generation,
                    certificate: certificate.clone(),
                    state: AuthorityState::Trusted,
                    external: maker.is_none(),
                    key_holders: maker.iter().copied().collect(),
                    cross: cross.clone(),
                };
                self.authorities.insert(*generation, Arc::new(authority));
            }
            Command::ActivateAuthority(generation) => {
                let before = self.active_authority().map(|active| active.generation);
                if before != Some(*generation) {
                    before.iter().for_each(|before| self.set_authority(*before, AuthorityState::Trusted));
                    self.set_authority(*generation, AuthorityState::Active);
                }
            }
            Command::RetireAuthority(generation) => {
                self.set_authority(*generation, AuthorityState::Retired);
                // Whoever has one believes whoever has that authority's key, and would show it the token's secret.
                self.tokens.retain(|_, token| ![0, *generation].contains(&token.spec.authority));
            }
            _ => {}
        }
    }
}
