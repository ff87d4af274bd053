//! Authorities and users.

use trestle_model::defaults::CERTIFICATE_MAX;
use trestle_model::{
    Authority, AuthorityState, Choice, Command, Expected, KeyPin, MemberId, Role, User, UserKey, UserName,
    UserSpec, Violations,
};

use super::{DecodeError, number, parsed, required};
use crate::storage::{self, proposal::Command as Message};

/// A certificate is kept as it is: whoever believes it reads it.
pub(super) fn certificate(bytes: Vec<u8>) -> Result<std::sync::Arc<[u8]>, DecodeError> {
    if bytes.len() > CERTIFICATE_MAX {
        let rule = format!("must be at most {CERTIFICATE_MAX} bytes");
        return Err(DecodeError::rule("certificate", format_args!("of {} bytes", bytes.len()), rule));
    }
    Ok(bytes.into())
}

impl From<&Authority> for storage::Authority {
    fn from(authority: &Authority) -> Self {
        use storage::authority::State;
        let Authority { generation, certificate, state, key_holders } = authority;
        let state = match state {
            AuthorityState::Trusted => State::Trusted,
            AuthorityState::Active => State::Active,
            AuthorityState::Retired => State::Retired,
        };
        Self {
            generation: *generation,
            certificate: certificate.to_vec(),
            state: state.into(),
            key_holders: key_holders.iter().map(|id| id.0).collect(),
        }
    }
}

impl TryFrom<storage::Authority> for Authority {
    type Error = DecodeError;

    fn try_from(message: storage::Authority) -> Result<Self, DecodeError> {
        use storage::authority::State;
        let state = match message.state() {
            State::Trusted => AuthorityState::Trusted,
            State::Active => AuthorityState::Active,
            State::Retired => AuthorityState::Retired,
            State::Unspecified => return Err(DecodeError::Newer("state of an authority")),
        };
        let holders = message.key_holders.into_iter().map(|id| number("member id", id).map(MemberId));
        Ok(Self {
            generation: message.generation,
            certificate: certificate(message.certificate)?,
            state,
            key_holders: holders.collect::<Result<_, _>>()?,
        })
    }
}

fn user_message(spec: &UserSpec, revision: u64) -> storage::User {
    let key = |key: &UserKey| storage::UserKey { pin: key.pin.0.to_vec(), not_after: key.not_after };
    storage::User {
        name: spec.name.to_string(),
        role: spec.role.number(),
        keys: spec.keys.iter().map(key).collect(),
        revision,
    }
}

fn user_key(message: &storage::UserKey) -> Result<UserKey, DecodeError> {
    let length = || format!("of {} bytes", message.pin.len());
    let pin =
        KeyPin::read(&message.pin).map_err(|rule| DecodeError::rule("key of a user", length(), rule))?;
    Ok(UserKey { pin, not_after: number("end of a certificate", message.not_after)? })
}

fn user_spec(message: &storage::User) -> Result<UserSpec, DecodeError> {
    let spec = UserSpec {
        name: user_name(&message.name)?,
        role: Role::of_number(message.role).ok_or(DecodeError::Newer("role of a user"))?,
        keys: message.keys.iter().map(user_key).collect::<Result<_, _>>()?,
    };
    super::in_bounds(|v: &mut Violations| spec.check(v))?;
    Ok(spec)
}

fn user_name(text: &str) -> Result<UserName, DecodeError> {
    parsed("user name", text, UserName::parse)
}

impl From<&User> for storage::User {
    fn from(user: &User) -> Self {
        user_message(&user.spec, user.revision)
    }
}

impl TryFrom<storage::User> for User {
    type Error = DecodeError;

    fn try_from(message: storage::User) -> Result<Self, DecodeError> {
        Ok(Self { spec: user_spec(&message)?, revision: number("revision", message.revision)? })
    }
}

pub(super) fn put_message(user: &UserSpec, expected: Expected) -> Message {
    Message::PutUser(storage::PutUser {
        user: Some(user_message(user, 0)),
        absent: expected == Expected::Absent,
        revision: match expected {
            Expected::Revision(revision) => Some(revision),
            Expected::Any | Expected::Absent => None,
        },
    })
}

pub(super) fn put(message: storage::PutUser) -> Result<Command, DecodeError> {
    let user = user_spec(&required("change of a user", "user", message.user)?)?;
    let expected = if message.absent { Expected::Absent } else { message.revision.into() };
    Ok(Command::PutUser { user, expected })
}

pub(super) fn delete(message: &storage::DeleteUser) -> Result<Command, DecodeError> {
    Ok(Command::DeleteUser { name: user_name(&message.name)?, expected: message.revision })
}
