//! Keys of members, and what ports accept.

use trestle_model::{
    Choice, ClusterId, Command, FoundingIdentities, KeyPin, MemberId, MemberSpec, TransportSecurity,
};

use super::{DecodeError, authority as stored_authority, member, token as stored_token};
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
    let Some(FoundingIdentities { authority, external, founder_key, transport, token }) = identities else {
        return message;
    };
    storage::FoundCluster {
        authority: authority.to_vec(),
        external: *external,
        founder_key: founder_key.map(|key| key.0.to_vec()).unwrap_or_default(),
        transport: transport_number(*transport),
        token: token.as_ref().map(stored_token::token_message),
        ..message
    }
}

/// What a cluster is founded with; nothing without an authority.
pub(super) fn founding(
    message: &mut storage::FoundCluster,
) -> Result<Option<FoundingIdentities>, DecodeError> {
    let authority = std::mem::take(&mut message.authority);
    if authority.is_empty() {
        return Ok(None);
    }
    let founder_key = Some(&message.founder_key).filter(|bytes| !bytes.is_empty());
    Ok(Some(FoundingIdentities {
        authority: stored_authority::certificate(authority)?,
        external: message.external,
        founder_key: founder_key.map(|bytes| key(bytes)).transpose()?,
        transport: transport(message.transport)?,
        token: message.token.as_ref().map(stored_token::token_spec).transpose()?,
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
