//! Where a proposal came from. Nothing depends on it, so what cannot be read is left out and stops no member.

use std::net::IpAddr;

use trestle_model::{Actor, Choice, MemberId, Origin, Role, UserName};

use crate::storage;
use crate::storage::actor::Kind;

impl From<&Origin> for storage::Origin {
    fn from(origin: &Origin) -> Self {
        let octets = |ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self {
            time_ms: origin.time_ms,
            member_id: origin.member.map_or(0, |id| id.0),
            client: origin.client.map(octets).unwrap_or_default(),
            actor: origin.actor.as_ref().map(Into::into),
        }
    }
}

impl From<storage::Origin> for Origin {
    fn from(message: storage::Origin) -> Self {
        let octets = &message.client[..];
        let v4 = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(octets).ok().map(IpAddr::from);
        Self {
            time_ms: message.time_ms,
            member: (message.member_id > 0).then_some(MemberId(message.member_id)),
            client: v4().or_else(v6),
            actor: message.actor.and_then(actor),
        }
    }
}

impl From<&Actor> for storage::Actor {
    fn from(actor: &Actor) -> Self {
        let kind = match actor {
            Actor::LocalRoot => Kind::LocalRoot(storage::LocalRoot {}),
            Actor::LocalUser { uid, role } => {
                Kind::LocalUser(storage::LocalUser { uid: *uid, role: role.number() })
            }
            Actor::User { name, role } => {
                Kind::User(storage::CallingUser { name: name.to_string(), role: role.number() })
            }
        };
        Self { kind: Some(kind) }
    }
}

/// The role of a number; none is never written.
fn role(number: i32) -> Option<Role> {
    Role::of_number(number).filter(|_| number != 0)
}

/// Who asked; `None` for one of a kind, or with a role, that this version does not know.
pub fn actor(message: storage::Actor) -> Option<Actor> {
    Some(match message.kind? {
        Kind::LocalRoot(_) => Actor::LocalRoot,
        Kind::LocalUser(user) => Actor::LocalUser { uid: user.uid, role: role(user.role)? },
        Kind::User(user) => Actor::User { name: UserName::parse(&user.name).ok()?, role: role(user.role)? },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message;

    use super::*;

    #[test]
    fn who_asked_is_written_and_read_as_ever() {
        for (known, bytes) in [
            (Actor::LocalRoot, &[0x0a, 0][..]),
            (Actor::LocalUser { uid: 1000, role: Role::Operator }, &[0x12, 5, 8, 0xe8, 7, 0x10, 2]),
            (
                Actor::User { name: UserName::parse("al").unwrap(), role: Role::Admin },
                &[0x1a, 6, 0x0a, 2, b'a', b'l', 0x10, 3],
            ),
        ] {
            assert_eq!(storage::Actor::from(&known).encode_to_vec(), bytes);
            assert_eq!(actor(storage::Actor::decode(bytes).unwrap()), Some(known));
        }
    }

    #[test]
    fn one_that_a_newer_version_knows_is_nobody_in_particular() {
        // A user of another kind, and a role of another number.
        for bytes in [&[0x22, 3, 0x0a, 1, b'x'][..], &[0x12, 5, 8, 0xe8, 7, 0x10, 9], &[]] {
            assert_eq!(actor(storage::Actor::decode(bytes).unwrap()), None);
        }
    }
}
