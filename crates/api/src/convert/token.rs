//! Tokens by which members join.

use std::time::Duration;

use trestle_model::defaults::{TOKEN_LIFE, TOKEN_LIFE_BOUNDS, TOKEN_USES_BOUNDS};
use trestle_model::{Choice, Command, Invalid, JoinAs, JoinToken, TokenId, Violations};

use super::write::Asked;
use super::{Write, parse_token_name, time_of_millis, token_name};
use crate::v1;

/// A token that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedToken {
    /// What members become that join by it.
    pub joins_as: JoinAs,
    /// How many may.
    pub uses: u32,
    /// How long they may.
    pub lifetime: Duration,
}

/// Parses the creation of a token.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_token(request: &v1::CreateTokenRequest) -> Result<WantedToken, Invalid> {
    let mut v = Violations::new();
    let token = request.token.clone().unwrap_or_default();
    let joins_as = JoinAs::of_number(token.role);
    if joins_as.is_none() {
        v.add("token.role", token.role, "must be MEMBER_ROLE_LEARNER (1) or MEMBER_ROLE_VOTER (2)");
    }
    let uses = if token.uses == 0 { 1 } else { token.uses };
    if !TOKEN_USES_BOUNDS.contains(&uses) {
        let (least, most) = (TOKEN_USES_BOUNDS.start(), TOKEN_USES_BOUNDS.end());
        v.add("token.uses", uses, format!("must be {least} to {most}"));
    }
    let lifetime = match &request.lifetime {
        None => Some(TOKEN_LIFE),
        Some(given) => Duration::try_from(*given).ok().filter(|life| TOKEN_LIFE_BOUNDS.contains(life)),
    };
    if lifetime.is_none() {
        let [least, most] = [TOKEN_LIFE_BOUNDS.start(), TOKEN_LIFE_BOUNDS.end()].map(Duration::as_secs);
        let given = request.lifetime.map_or(0, |given| given.seconds);
        v.add("lifetime", format_args!("{given}s"), format!("must be {least}s to {most}s"));
    }
    v.into_result()?;
    Ok(WantedToken { joins_as: joins_as.unwrap_or_default(), uses, lifetime: lifetime.unwrap_or(TOKEN_LIFE) })
}

/// Parses the deletion of a token.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_token(request: &v1::DeleteTokenRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let id: Option<TokenId> = parse_token_name("name", &request.name, &mut v);
    let asked = Asked { request, request_id: &request.request_id, validate_only: false };
    asked.command(id.map(Command::DeleteToken), v)
}

/// Renders a token, without its secret, which nobody has.
pub fn token(token: &JoinToken) -> v1::Token {
    v1::Token {
        name: token_name(token.spec.id),
        role: token.spec.joins_as.number(),
        uses: token.spec.uses,
        uses_left: token.uses_left,
        expire_time: Some(time_of_millis(token.spec.not_after_ms)),
        revision: token.revision,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_said_is_one_voter_within_an_hour() {
        let wanted = create_token(&v1::CreateTokenRequest::default()).unwrap();
        assert_eq!((wanted.joins_as, wanted.uses), (JoinAs::Voter, 1));
        assert_eq!(wanted.lifetime, Duration::from_secs(3600));
    }

    #[test]
    fn all_mistakes_of_a_creation_are_told_together() {
        let token = v1::Token { role: 9, uses: 101, ..Default::default() };
        let lifetime = Some(prost_types::Duration { seconds: 59, nanos: 0 });
        let told = create_token(&v1::CreateTokenRequest { token: Some(token), lifetime }).unwrap_err();
        let told = told.to_string();
        for part in ["token.role \"9\"", "token.uses \"101\": must be 1 to 100", "must be 60s to 2592000s"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
