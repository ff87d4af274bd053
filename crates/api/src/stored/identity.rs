//! Keys of members, and what ports accept.

use trestle_model::{
    Choice, ClusterId, Command, FoundingIdentities, KeyPin, MemberId, MemberSpec, TransportSecurity,
};

use super::{DecodeError, member, user};
use crate::storage;

/// What ports accept, as it is written: plain connections are not.
pub(super) fn transport_number(transport: TransportSecurity) -> i32 {
    if transport == TransportSecurity::Off { 0 } else { transport.number() }
}

pub(super) fn transport(number: i32) -> Result<TransportSecurity, DecodeError> {
    TransportSecurity::of_number(number).ok_or(DecodeError::Newer("transport"))
}

fn key(bytes: &[u8]) -> Result<KeyPin, DecodeError> {
    KeyPin::read(bytes)
        .map_err(|rule| DecodeError::rule("key of a member", format!("of {} bytes", bytes.len()), rule))
}

pub(super) fn founded(
    cluster: &ClusterId,
    spec: &MemberSpec,
    identities: Option<&FoundingIdentities>,
) -> storage::FoundCluster {
    let message = storage::FoundCluster {
        cluster_id: cluster.to_string(),
        member: Some(spec.into()),
        ..storage::FoundCluster::default()
    };
    let Some(FoundingIdentities { authority, founder_key, transport }) = identities else { return message };
    storage::FoundCluster {
        authority: authority.to_vec(),
        founder_key: founder_key.map(|key| key.0.to_vec()).unwrap_or_default(),
        transport: transport_number(*transport),
        ..message
    }
}

/// What a cluster is founded with; nothing without an authority.
pub(super) fn founding(
    authority: Vec<u8>,
    founder_key: &[u8],
    number: i32,
) -> Result<Option<FoundingIdentities>, DecodeError> {
    if authority.is_empty() {
        return Ok(None);
    }
    Ok(Some(FoundingIdentities {
        authority: user::certificate(authority)?,
        founder_key: Some(founder_key).filter(|bytes| !bytes.is_empty()).map(key).transpose()?,
        transport: transport(number)?,
    }))
}

pub(super) fn pin_message(id: MemberId, key: &KeyPin) -> storage::PinMemberKey {
    storage::PinMemberKey { member_id: id.0, key: key.0.to_vec() }
}

pub(super) fn pinned(message: &storage::PinMemberKey) -> Result<Command, DecodeError> {
    Ok(Command::PinMemberKey { id: member::member_id(message.member_id)?, key: key(&message.key)? })
}

pub(super) fn keys_message((id, keys): (&MemberId, &Vec<KeyPin>)) -> storage::MemberKeys {
    storage::MemberKeys { member_id: id.0, keys: keys.iter().map(|key| key.0.to_vec()).collect() }
}

pub(super) fn keys(message: &storage::MemberKeys) -> Result<(MemberId, Vec<KeyPin>), DecodeError> {
    let keys = message.keys.iter().map(|bytes| key(bytes)).collect::<Result<_, _>>()?;
    Ok((member::member_id(message.member_id)?, keys))
}
