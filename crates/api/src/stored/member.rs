//! Members and what they say of themselves.

use std::time::Duration;

use trestle_model::defaults::FEATURE_LEVEL_FIRST;
use trestle_model::{ClusterId, HostPort, Member, MemberId, MemberName, MemberSockets, MemberSpec};

use super::{DecodeError, duration, duration_message, number, parsed, required};
use crate::storage::{self, proposal::Command as Message};

pub(super) fn cluster_id(text: &str) -> Result<ClusterId, DecodeError> {
    parsed("cluster id", text, ClusterId::parse)
}

pub(super) fn member_id(value: u64) -> Result<MemberId, DecodeError> {
    number("member id", value).map(MemberId)
}

pub(super) fn started(
    member: MemberId,
    start: u64,
    replaces: u64,
    sockets: Option<&MemberSockets>,
) -> storage::NoteStart {
    let sockets = sockets.map(Into::into);
    storage::NoteStart { member_id: member.0, start, replaces, sockets, feature_level_max: 0 }
}

/// The highest feature level that a program knows, as it is written: the first one is not.
pub(super) fn level_number(level: u32) -> u32 {
    if level <= FEATURE_LEVEL_FIRST { 0 } else { level }
}

/// The highest feature level that a program knows, from what it said, which may be nothing.
pub fn feature_level(number: u32) -> u32 {
    number.max(FEATURE_LEVEL_FIRST)
}

impl From<&MemberSockets> for storage::MemberSockets {
    fn from(sockets: &MemberSockets) -> Self {
        let MemberSockets { admin, peer, http, data_address, network } = sockets;
        Self {
            admin: admin.to_string(),
            peer: peer.to_string(),
            http: http.to_string(),
            data_address: data_address.map(|address| address.to_string()).unwrap_or_default(),
            network: *network,
        }
    }
}

impl TryFrom<&storage::MemberSockets> for MemberSockets {
    type Error = DecodeError;

    fn try_from(message: &storage::MemberSockets) -> Result<Self, DecodeError> {
        let socket = |field, text: &str| {
            parsed(field, text, |text| text.parse().map_err(|_| "must be IP:PORT".to_owned()))
        };
        let ip = |text: &str| text.parse().map_err(|_| "must be an IP address".to_owned());
        let data_address = match message.data_address.as_str() {
            "" => None,
            text => Some(parsed("data address of a member", text, ip)?),
        };
        Ok(Self {
            admin: socket("admin socket of a member", &message.admin)?,
            peer: socket("peer socket of a member", &message.peer)?,
            http: socket("HTTP socket of a member", &message.http)?,
            data_address,
            network: message.network,
        })
    }
}

pub(super) fn drained(name: &MemberName, draining: bool, timeout: Option<Duration>) -> Message {
    Message::DrainMember(storage::DrainMember {
        name: name.to_string(),
        draining,
        timeout: timeout.map(duration_message),
    })
}

impl From<&MemberSpec> for storage::MemberSpec {
    fn from(spec: &MemberSpec) -> Self {
        let MemberSpec { name, peer_address, admin_address, feature_level_max } = spec;
        Self {
            name: name.to_string(),
            peer_address: peer_address.to_string(),
            admin_address: admin_address.to_string(),
            feature_level_max: level_number(*feature_level_max),
        }
    }
}

impl TryFrom<storage::MemberSpec> for MemberSpec {
    type Error = DecodeError;

    fn try_from(message: storage::MemberSpec) -> Result<Self, DecodeError> {
        Ok(Self {
            name: parsed("member name", &message.name, MemberName::parse)?,
            peer_address: parsed("peer address", &message.peer_address, HostPort::parse)?,
            admin_address: parsed("admin address", &message.admin_address, HostPort::parse)?,
            feature_level_max: feature_level(message.feature_level_max),
        })
    }
}

impl From<&Member> for storage::Member {
    fn from(member: &Member) -> Self {
        let Member { id, spec, draining, drain_timeout, revision } = member;
        Self {
            id: id.0,
            spec: Some(spec.into()),
            draining: *draining,
            drain_timeout: drain_timeout.map(duration_message),
            revision: *revision,
        }
    }
}

impl TryFrom<storage::Member> for Member {
    type Error = DecodeError;

    fn try_from(message: storage::Member) -> Result<Self, DecodeError> {
        Ok(Self {
            id: member_id(message.id)?,
            spec: required("member", "settings", message.spec)?.try_into()?,
            draining: message.draining,
            drain_timeout: message.drain_timeout.map(|time| duration("drain timeout", time)).transpose()?,
            revision: number("revision", message.revision)?,
        })
    }
}
