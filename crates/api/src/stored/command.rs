//! Proposals: what an entry of the log holds.

use std::sync::Arc;

use trestle_model::{
    BackendName, Command, HostPort, ListenerName, ListenerPatch, MemberId, MemberName, PoolName, Proposal,
    Request, RequestId, Revision,
};

use super::member::started;
use super::vip::{self, vip_name};
use super::{DecodeError, duration, member, parsed, required, whole};
use crate::storage::{self, proposal::Command as Message};

fn named(name: impl ToString, expect: Option<Revision>) -> storage::DeleteNamed {
    storage::DeleteNamed { name: name.to_string(), expect }
}

pub(super) fn pool_name(text: &str) -> Result<PoolName, DecodeError> {
    parsed("pool name", text, PoolName::parse)
}

pub(super) fn backend_name(text: &str) -> Result<BackendName, DecodeError> {
    parsed("backend name", text, BackendName::parse)
}

pub(super) fn listener_name(text: &str) -> Result<ListenerName, DecodeError> {
    parsed("listener name", text, ListenerName::parse)
}

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

fn deleted_backend(pool: &PoolName, name: &BackendName, expect: Option<Revision>) -> storage::DeleteBackend {
    storage::DeleteBackend { pool: pool.to_string(), name: name.to_string(), expect }
}

fn found_cluster(m: storage::FoundCluster) -> Result<Command, DecodeError> {
    Ok(Command::FoundCluster {
        cluster_id: member::cluster_id(&m.cluster_id)?,
        member: required("founding", "member", m.member)?.try_into()?,
    })
}

fn note_start(m: &storage::NoteStart) -> Result<Command, DecodeError> {
    let member = member::member_id(m.member_id)?;
    let sockets = m.sockets.as_ref().map(|sockets| sockets.try_into().map(Arc::new)).transpose()?;
    Ok(Command::NoteStart { member, start: m.start, replaces: m.replaces, sockets })
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

fn updated_listener(
    name: &ListenerName,
    patch: &ListenerPatch,
    expect: Option<u64>,
) -> storage::UpdateListener {
    storage::UpdateListener { name: name.to_string(), patch: Some(patch.into()), expect }
}

impl From<&Command> for Message {
    fn from(command: &Command) -> Self {
        match command {
            Command::FoundCluster { cluster_id, member } => {
                Self::FoundCluster(member::founded(cluster_id, member))
            }
            Command::AddMember(spec) => Self::AddMember(spec.into()),
            Command::RemoveMember(id) => Self::RemoveMember(id.0),
            Command::UpdateMember { id, peer_address, admin_address } => {
                Self::UpdateMember(updated_member(*id, peer_address.as_ref(), admin_address.as_ref()))
            }
            Command::NoteStart { member, start, replaces, sockets } => {
                Self::NoteStart(started(*member, *start, *replaces, sockets.as_deref()))
            }
            Command::CreatePool { name, spec } => Self::CreatePool(whole::create_pool(name, spec)),
            Command::UpdatePool { name, patch, expect } => Self::UpdatePool(storage::UpdatePool {
                name: name.to_string(),
                patch: Some(patch.into()),
                expect: *expect,
            }),
            Command::DeletePool { name, expect } => Self::DeletePool(named(name, *expect)),
            Command::CreateBackend { pool, name, spec } => {
                Self::CreateBackend(whole::create_backend(pool, name, spec))
            }
            Command::UpdateBackend { pool, name, patch, expect } => {
                Self::UpdateBackend(storage::UpdateBackend {
                    pool: pool.to_string(),
                    name: name.to_string(),
                    patch: Some(patch.into()),
                    expect: *expect,
                })
            }
            Command::DeleteBackend { pool, name, expect } => {
                Self::DeleteBackend(deleted_backend(pool, name, *expect))
            }
            Command::CreateListener { name, spec } => {
                Self::CreateListener(whole::create_listener(name, spec))
            }
            Command::UpdateListener { name, patch, expect } => {
                Self::UpdateListener(updated_listener(name, patch, *expect))
            }
            Command::DeleteListener { name, expect } => Self::DeleteListener(named(name, *expect)),
            Command::DrainMember { name, draining, timeout } => member::drained(name, *draining, *timeout),
            Command::CreateVip { name, spec } => Self::CreateVip(whole::create_vip(name, spec)),
            Command::UpdateVip { name, patch, expect } => Self::UpdateVip(storage::UpdateVip {
                name: name.to_string(),
                patch: Some(patch.into()),
                expect: *expect,
            }),
            Command::DeleteVip { name, expect } => Self::DeleteVip(named(name, *expect)),
            Command::Restore { configuration, replace } => {
                Self::Restore(whole::restore(configuration, *replace))
            }
            Command::StagePiece { upload, number, bytes } => {
                Self::StagePiece(whole::piece(*upload, *number, bytes))
            }
            Command::ApplyStaged { upload, pieces } => {
                Self::ApplyStaged(storage::ApplyStaged { upload: *upload, pieces: *pieces })
            }
            Command::Recover { member, recovery, draw } => {
                Self::Recover(storage::Recover { member_id: member.0, recovery: *recovery, draw: *draw })
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
            Message::CreatePool(m) => Self::CreatePool {
                name: pool_name(&m.name)?,
                spec: required("creation of a pool", "settings", m.spec)?.try_into()?,
            },
            Message::UpdatePool(m) => Self::UpdatePool {
                name: pool_name(&m.name)?,
                patch: required("change of a pool", "patch", m.patch)?.try_into()?,
                expect: m.expect,
            },
            Message::DeletePool(m) => Self::DeletePool { name: pool_name(&m.name)?, expect: m.expect },
            Message::CreateBackend(m) => Self::CreateBackend {
                pool: pool_name(&m.pool)?,
                name: backend_name(&m.name)?,
                spec: required("creation of a backend", "settings", m.spec)?.try_into()?,
            },
            Message::UpdateBackend(m) => Self::UpdateBackend {
                pool: pool_name(&m.pool)?,
                name: backend_name(&m.name)?,
                patch: required("change of a backend", "patch", m.patch)?.try_into()?,
                expect: m.expect,
            },
            Message::DeleteBackend(m) => Self::DeleteBackend {
                pool: pool_name(&m.pool)?,
                name: backend_name(&m.name)?,
                expect: m.expect,
            },
            Message::CreateListener(m) => Self::CreateListener {
                name: listener_name(&m.name)?,
                spec: required("creation of a listener", "settings", m.spec)?.try_into()?,
            },
            Message::UpdateListener(m) => Self::UpdateListener {
                name: listener_name(&m.name)?,
                patch: required("change of a listener", "patch", m.patch)?.try_into()?,
                expect: m.expect,
            },
            Message::DeleteListener(m) => {
                Self::DeleteListener { name: listener_name(&m.name)?, expect: m.expect }
            }
            Message::DrainMember(m) => Self::DrainMember {
                name: parsed("member name", &m.name, MemberName::parse)?,
                draining: m.draining,
                timeout: m.timeout.map(|time| duration("drain timeout", time)).transpose()?,
            },
            Message::CreateVip(m) => Self::CreateVip {
                name: vip_name(&m.name)?,
                spec: required("creation of a vip", "settings", m.spec)?.try_into()?,
            },
            Message::UpdateVip(m) => Self::UpdateVip {
                name: vip_name(&m.name)?,
                patch: required("change of a vip", "patch", m.patch)?.try_into()?,
                expect: m.expect,
            },
            Message::DeleteVip(m) => Self::DeleteVip { name: vip_name(&m.name)?, expect: m.expect },
            Message::Restore(m) => {
                Self::Restore { replace: m.replace, configuration: Arc::new(whole::configuration(m)?) }
            }
            Message::StagePiece(m) => {
                Self::StagePiece { upload: m.upload, number: m.number, bytes: m.bytes.into() }
            }
            Message::ApplyStaged(m) => Self::ApplyStaged { upload: m.upload, pieces: m.pieces },
            Message::Recover(m) => recover(&m),
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
        let command = required("proposal", "command", message.command)?.try_into()?;
        let origin = message.origin.map(Into::into);
        Ok(Self { request, origin, command })
    }
}
