//! Users.

use trestle_model::{Choice, Command, Expected, KeyPin, Role, User, UserKey, UserName, UserSpec, Violations};

use super::{DecodeError, number, parsed, required};
use crate::storage::{self, proposal::Command as Message};

fn key_message(key: &UserKey) -> storage::UserKey {
    let UserKey { pin, not_after, not_before, authority } = *key;
    storage::UserKey { pin: pin.0.to_vec(), not_after, not_before, authority }
}

fn user_message(spec: &UserSpec, revision: u64) -> storage::User {
    storage::User {
        name: spec.name.to_string(),
        role: spec.role.number(),
        keys: spec.keys.iter().map(key_message).collect(),
        revision,
    }
}

fn user_key(message: &storage::UserKey) -> Result<UserKey, DecodeError> {
    let length = || format!("of {} bytes", message.pin.len());
    let pin =
        KeyPin::read(&message.pin).map_err(|rule| DecodeError::rule("key of a user", length(), rule))?;
    Ok(UserKey {
        pin,
        not_after: number("end of a certificate", message.not_after)?,
        not_before: number("beginning of a certificate", message.not_before)?,
        authority: message.authority,
    })
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

pub(super) fn certificate_message(user: &UserName, key: &UserKey) -> Message {
    let (user, key) = (user.to_string(), Some(key_message(key)));
    Message::NoteUserCertificate(storage::NoteUserCertificate { user, key })
}

pub(super) fn note_certificate(message: storage::NoteUserCertificate) -> Result<Command, DecodeError> {
    let key = user_key(&required("new certificate of a user", "key", message.key)?)?;
    Ok(Command::NoteUserCertificate { user: user_name(&message.user)?, key })
}

pub(super) fn delete(message: &storage::DeleteUser) -> Result<Command, DecodeError> {
    Ok(Command::DeleteUser { name: user_name(&message.name)?, expected: message.revision })
}
