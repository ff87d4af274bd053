//! Authorities.

use std::sync::Arc;

use trestle_model::defaults::CERTIFICATE_MAX;
use trestle_model::{Authority, AuthorityState, Command, CrossCertificate, MemberId};

use super::{DecodeError, member, number};
use crate::storage::{self, proposal::Command as Message};

/// A certificate is kept as it is: whoever believes it reads it.
pub(super) fn certificate(bytes: Vec<u8>) -> Result<Arc<[u8]>, DecodeError> {
    if bytes.len() > CERTIFICATE_MAX {
        let rule = format!("must be at most {CERTIFICATE_MAX} bytes");
        return Err(DecodeError::rule("certificate", format_args!("of {} bytes", bytes.len()), rule));
    }
    Ok(bytes.into())
}

impl From<&Authority> for storage::Authority {
    fn from(authority: &Authority) -> Self {
        use storage::authority::State;
        let Authority { generation, certificate, state, external, key_holders, cross } = authority;
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
            cross: cross.as_ref().map(Into::into),
            external: *external,
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
            external: message.external,
            key_holders: holders.collect::<Result<_, _>>()?,
            cross: message.cross.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&CrossCertificate> for storage::CrossCertificate {
    fn from(cross: &CrossCertificate) -> Self {
        Self { signer: cross.signer, certificate: cross.certificate.to_vec() }
    }
}

impl TryFrom<storage::CrossCertificate> for CrossCertificate {
    type Error = DecodeError;

    fn try_from(message: storage::CrossCertificate) -> Result<Self, DecodeError> {
        Ok(Self { signer: message.signer, certificate: certificate(message.certificate)? })
    }
}

pub(super) fn add_message(
    generation: u32,
    certificate: &[u8],
    cross: Option<&CrossCertificate>,
    maker: Option<MemberId>,
) -> Message {
    Message::AddAuthority(storage::AddAuthority {
        generation,
        certificate: certificate.to_vec(),
        cross: cross.map(Into::into),
        maker_id: maker.map_or(0, |maker| maker.0),
    })
}

pub(super) fn add(message: storage::AddAuthority) -> Result<Command, DecodeError> {
    Ok(Command::AddAuthority {
        generation: message.generation,
        certificate: certificate(message.certificate)?,
        cross: message.cross.map(TryInto::try_into).transpose()?,
        maker: (message.maker_id > 0).then(|| member::member_id(message.maker_id)).transpose()?,
    })
}

pub(super) fn key_holder(message: &storage::NoteKeyHolder) -> Result<Command, DecodeError> {
    Ok(Command::NoteKeyHolder {
        generation: message.generation,
        member: member::member_id(message.member_id)?,
    })
}
