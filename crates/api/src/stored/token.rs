//! Tokens, and members that join by them.

use trestle_model::defaults::TIME_MS_MAX;
use trestle_model::{
    Choice, Command, JoinAs, JoinToken, JoinTokenSpec, KeyPin, MemberId, MemberSpec, SecretHash, TokenId,
};

use super::{DecodeError, in_bounds, member, number, number_up_to, required};
use crate::storage::{self, proposal::Command as Message};

fn bytes<T>(
    field: &'static str,
    given: &[u8],
    read: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<T, DecodeError> {
    read(given).map_err(|rule| DecodeError::rule(field, format_args!("of {} bytes", given.len()), rule))
}

fn token_id(given: &[u8]) -> Result<TokenId, DecodeError> {
    bytes("token id", given, TokenId::read)
}

fn secret_hash(given: &[u8]) -> Result<SecretHash, DecodeError> {
    bytes("hash of a token's secret", given, SecretHash::read)
}

fn time(given: u64) -> Result<u64, DecodeError> {
    number_up_to("time of a token", given, TIME_MS_MAX)
}

fn joins_as(number: i32) -> Result<JoinAs, DecodeError> {
    JoinAs::of_number(number).ok_or(DecodeError::Newer("part of a joining member"))
}

pub(super) fn token_message(spec: &JoinTokenSpec) -> storage::JoinToken {
    let JoinTokenSpec { id, secret_hash, joins_as, uses, not_after_ms, authority } = spec;
    storage::JoinToken {
        id: id.0.to_vec(),
        secret_hash: secret_hash.0.to_vec(),
        joins_as: joins_as.number(),
        uses: *uses,
        not_after_ms: *not_after_ms,
        uses_left: 0,
        revision: 0,
        authority: *authority,
    }
}

pub(super) fn token_spec(message: &storage::JoinToken) -> Result<JoinTokenSpec, DecodeError> {
    let spec = JoinTokenSpec {
        id: token_id(&message.id)?,
        secret_hash: secret_hash(&message.secret_hash)?,
        joins_as: joins_as(message.joins_as)?,
        uses: message.uses,
        not_after_ms: time(message.not_after_ms)?,
        authority: message.authority,
    };
    in_bounds(|v| spec.check(v))?;
    Ok(spec)
}

impl From<&JoinToken> for storage::JoinToken {
    fn from(token: &JoinToken) -> Self {
        let JoinToken { spec, uses_left, revision } = token;
        Self { uses_left: *uses_left, revision: *revision, ..token_message(spec) }
    }
}

impl TryFrom<storage::JoinToken> for JoinToken {
    type Error = DecodeError;

    fn try_from(message: storage::JoinToken) -> Result<Self, DecodeError> {
        let spec = token_spec(&message)?;
        let uses_left =
            number_up_to("uses of a token", u64::from(message.uses_left), u64::from(spec.uses))? as u32;
        Ok(Self { spec, uses_left, revision: number("revision", message.revision)? })
    }
}

pub(super) fn joined_message((id, joins_as): (&MemberId, &JoinAs)) -> storage::JoinedMember {
    storage::JoinedMember { member_id: id.0, joins_as: joins_as.number() }
}

pub(super) fn joined(message: &storage::JoinedMember) -> Result<(MemberId, JoinAs), DecodeError> {
    Ok((member::member_id(message.member_id)?, joins_as(message.joins_as)?))
}

pub(super) fn put_message(token: &JoinTokenSpec, time_ms: u64) -> Message {
    Message::PutToken(storage::PutToken { token: Some(token_message(token)), time_ms })
}

pub(super) fn put(message: storage::PutToken) -> Result<Command, DecodeError> {
    let token = token_spec(&required("new token", "token", message.token)?)?;
    Ok(Command::PutToken { token, time_ms: time(message.time_ms)? })
}

pub(super) fn delete(id: &[u8]) -> Result<Command, DecodeError> {
    token_id(id).map(Command::DeleteToken)
}

pub(super) fn join_message(
    spec: &MemberSpec,
    key: &KeyPin,
    token: TokenId,
    secret_hash: &SecretHash,
    time_ms: u64,
) -> Message {
    Message::JoinMember(storage::JoinMember {
        member: Some(spec.into()),
        key: key.0.to_vec(),
        token_id: token.0.to_vec(),
        secret_hash: secret_hash.0.to_vec(),
        time_ms,
    })
}

pub(super) fn join(message: storage::JoinMember) -> Result<Command, DecodeError> {
    Ok(Command::JoinMember {
        spec: required("joining member", "settings", message.member)?.try_into()?,
        key: bytes("key of a member", &message.key, KeyPin::read)?,
        token: token_id(&message.token_id)?,
        secret_hash: secret_hash(&message.secret_hash)?,
        time_ms: time(message.time_ms)?,
    })
}
