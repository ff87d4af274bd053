//! Proposals: what an entry of the log holds.

use std::sync::Arc;

use trestle_model::defaults::TIME_MS_MAX;
use trestle_model::{
    Command, Configuration, Document, HostPort, MemberId, MemberName, Operation, Proposal, Request, RequestId,
};

use super::member::{feature_level, level_number, started};
use super::{
    DecodeError, authority, duration, identity, member, number_up_to, parsed, required, token, user, vip,
};
use crate::storage::{self, proposal::Command as Message};

fn updated_member(
    id: MemberId,
    peer_address: Option<&HostPort>,
    admin_address: Option<&HostPort>,
) -> storage::UpdateMember {
    storage::UpdateMember {
        id: id.0,
        peer_address: peer_address.map(ToString::to_string),
        admin_address: admin_address.map(ToString::to_string),
    }
}

fn found_cluster(mut m: storage::FoundCluster) -> Result<Command, DecodeError> {
    Ok(Command::FoundCluster {
        cluster_id: member::cluster_id(&m.cluster_id)?,
        identities: identity::founding(&mut m)?,
        member: required("founding", "member", m.member)?.try_into()?,
    })
}

fn note_start(m: &storage::NoteStart) -> Result<Command, DecodeError> {
    let member = member::member_id(m.member_id)?;
    let sockets = m.sockets.as_ref().map(|sockets| sockets.try_into().map(Arc::new)).transpose()?;
    let feature_level_max = feature_level(m.feature_level_max);
    Ok(Command::NoteStart { member, start: m.start, replaces: m.replaces, sockets, feature_level_max })
}

fn update_member(m: storage::UpdateMember) -> Result<Command, DecodeError> {
    let address =
        |what, text: Option<String>| text.map(|text| parsed(what, &text, HostPort::parse)).transpose();
    Ok(Command::UpdateMember {
        id: member::member_id(m.id)?,
        peer_address: address("peer address", m.peer_address)?,
        admin_address: address("admin address", m.admin_address)?,
    })
}

fn recover(m: &storage::Recover) -> Command {
    Command::Recover { member: MemberId(m.member_id), recovery: m.recovery, draw: m.draw }
}

impl From<&Command> for Message {
    fn from(command: &Command) -> Self {
        match command {
            Command::FoundCluster { cluster_id, member, identities } => {
                Self::FoundCluster(identity::founded(cluster_id, member, identities.as_ref()))
            }
            Command::PinMemberKey { id, key } => Self::PinMemberKey(identity::pin_message(*id, key)),
            Command::SetTransport(transport) => Self::SetTransport(identity::transport_number(*transport)),
            Command::AddMember(spec) => Self::AddMember(spec.into()),
            Command::RemoveMember(id) => Self::RemoveMember(id.0),
            Command::UpdateMember { id, peer_address, admin_address } => {
                Self::UpdateMember(updated_member(*id, peer_address.as_ref(), admin_address.as_ref()))
            }
            Command::NoteStart { member, start, replaces, sockets, feature_level_max } => {
                let feature_level_max = level_number(*feature_level_max);
                let start = started(*member, *start, *replaces, sockets.as_deref());
                Self::NoteStart(storage::NoteStart { feature_level_max, ..start })
            }
            Command::Batch(operations) => {
                Self::Batch(storage::Batch { operations: operations.iter().map(Into::into).collect() })
            }
            Command::DrainMember { name, draining, timeout } => member::drained(name, *draining, *timeout),
            Command::Restore { configuration, replace } => {
                let documents = configuration.0.iter().map(Into::into).collect();
                Self::Restore(storage::Restore { documents, replace: *replace })
            }
            Command::StagePiece { upload, number, bytes } => {
                let (upload, number) = (*upload, *number);
                Self::StagePiece(storage::StagePiece { upload, number, bytes: bytes.to_vec() })
            }
            Command::ApplyStaged { upload, pieces } => {
                Self::ApplyStaged(storage::ApplyStaged { upload: *upload, pieces: *pieces })
            }
            Command::Recover { member, recovery, draw } => {
                Self::Recover(storage::Recover { member_id: member.0, recovery: *recovery, draw: *draw })
            }
            Command::RaiseLevel { level } => Self::RaiseLevel(*level),
            Command::PutToken { token, time_ms } => token::put_message(token, *time_ms),
            Command::DeleteToken(id) => Self::DeleteToken(id.0.to_vec()),
            Command::JoinMember { spec, key, token, secret_hash, time_ms } => {
                token::join_message(spec, key, *token, secret_hash, *time_ms)
            }
            Command::NoteKeyHolder { generation, member } => {
                Self::NoteKeyHolder(storage::NoteKeyHolder { generation: *generation, member_id: member.0 })
            }
            Command::AddAuthority { generation, certificate, cross, maker } => {
                authority::add_message(*generation, certificate, cross.as_ref(), *maker)
            }
            Command::ActivateAuthority(generation) => Self::ActivateAuthority(*generation),
            Command::RetireAuthority(generation) => Self::RetireAuthority(*generation),
            Command::NoteTime { time_ms } => Self::NoteTime(*time_ms),
            Command::NoteUserCertificate { user, key } => user::certificate_message(user, key),
            Command::PutUser { user, expected } => user::put_message(user, *expected),
            Command::DeleteUser { name, expected } => {
                Self::DeleteUser(storage::DeleteUser { name: name.to_string(), revision: *expected })
            }
            Command::TakeVips { tenure, time_ms, reason } => {
                Self::TakeVips(vip::take_message(tenure, *time_ms, reason))
            }
            Command::ReleaseVips { member, term, time_ms, reason } => {
                Self::ReleaseVips(vip::release_message(*member, *term, *time_ms, reason))
            }
        }
    }
}

impl TryFrom<Message> for Command {
    type Error = DecodeError;

    fn try_from(message: Message) -> Result<Self, DecodeError> {
        Ok(match message {
            Message::FoundCluster(m) => found_cluster(m)?,
            Message::AddMember(spec) => Self::AddMember(spec.try_into()?),
            Message::RemoveMember(id) => Self::RemoveMember(MemberId(id)),
            Message::UpdateMember(m) => update_member(m)?,
            Message::NoteStart(m) => note_start(&m)?,
            Message::Batch(m) => {
                let operations: Result<Vec<Operation>, DecodeError> =
                    m.operations.into_iter().map(TryInto::try_into).collect();
                Self::Batch(operations?.into())
            }
            Message::DrainMember(m) => Self::DrainMember {
                name: parsed("member name", &m.name, MemberName::parse)?,
                draining: m.draining,
                timeout: m.timeout.map(|time| duration("drain timeout", time)).transpose()?,
            },
            Message::Restore(m) => {
                let documents: Result<Vec<Document>, DecodeError> =
                    m.documents.into_iter().map(TryInto::try_into).collect();
                let configuration = Arc::new(Configuration(documents?));
                Self::Restore { configuration, replace: m.replace }
            }
            Message::StagePiece(m) => {
                Self::StagePiece { upload: m.upload, number: m.number, bytes: m.bytes.into() }
            }
            Message::ApplyStaged(m) => Self::ApplyStaged { upload: m.upload, pieces: m.pieces },
            Message::Recover(m) => recover(&m),
            Message::RaiseLevel(level) => Self::RaiseLevel { level },
            Message::PinMemberKey(m) => identity::pinned(&m)?,
            Message::SetTransport(number) => Self::SetTransport(identity::transport(number)?),
            Message::PutToken(m) => token::put(m)?,
            Message::DeleteToken(id) => token::delete(&id)?,
            Message::JoinMember(m) => token::join(m)?,
            Message::NoteKeyHolder(m) => authority::key_holder(&m)?,
            Message::AddAuthority(m) => authority::add(m)?,
            Message::ActivateAuthority(generation) => Self::ActivateAuthority(generation),
            Message::RetireAuthority(generation) => Self::RetireAuthority(generation),
            Message::NoteTime(time_ms) => {
                Self::NoteTime { time_ms: number_up_to("time of the log", time_ms, TIME_MS_MAX)? }
            }
            Message::NoteUserCertificate(m) => user::note_certificate(m)?,
            Message::PutUser(m) => user::put(m)?,
            Message::DeleteUser(m) => user::delete(&m)?,
            Message::TakeVips(m) => vip::take(m)?,
            Message::ReleaseVips(m) => vip::release(m)?,
        })
    }
}

impl From<&Proposal> for storage::Proposal {
    fn from(proposal: &Proposal) -> Self {
        let Proposal { request, origin, command } = proposal;
        Self {
            request_id: request.as_ref().map(|r| r.id.to_string()).unwrap_or_default(),
            fingerprint: request.as_ref().map(|r| r.fingerprint).unwrap_or_default(),
            command: Some(command.into()),
            origin: origin.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<storage::Proposal> for Proposal {
    type Error = DecodeError;

    fn try_from(message: storage::Proposal) -> Result<Self, DecodeError> {
        let request = match message.request_id.as_str() {
            "" => None,
            id => Some(Request {
                id: parsed("request id", id, RequestId::parse)?,
                fingerprint: message.fingerprint,
            }),
        };
        let command = message.command.ok_or(DecodeError::Newer("command"))?.try_into()?;
        let origin = message.origin.map(Into::into);
        Ok(Self { request, origin, command })
    }
}
