//! The whole state machine, as a snapshot holds it.

use std::sync::Arc;

use trestle_model::defaults::TIME_MS_MAX;
use trestle_model::{
    Authority, ClusterState, JoinToken, Listener, Machine, Member, MemberId, PoolEntry, Remembered,
    RequestId, RevisionRecord, Staged, User, Vip, VipEvent,
};

use super::{DecodeError, identity, member, number, number_up_to, parsed, required, token};
use crate::storage;

impl From<&Remembered> for storage::Remembered {
    fn from(remembered: &Remembered) -> Self {
        let Remembered { id, fingerprint, revision, outcome } = remembered;
        Self {
            request_id: id.to_string(),
            fingerprint: *fingerprint,
            revision: *revision,
            outcome: Some(outcome.into()),
        }
    }
}

impl TryFrom<storage::Remembered> for Remembered {
    type Error = DecodeError;

    fn try_from(message: storage::Remembered) -> Result<Self, DecodeError> {
        Ok(Self {
            id: parsed("request id", &message.request_id, RequestId::parse)?,
            fingerprint: message.fingerprint,
            revision: number("revision", message.revision)?,
            outcome: required("remembered answer", "outcome", message.outcome)?.try_into()?,
        })
    }
}

impl From<&Machine> for storage::Machine {
    fn from(machine: &Machine) -> Self {
        let ClusterState {
            cluster_id,
            recovery,
            recovery_draws,
            feature_level,
            revision,
            pools,
            listeners,
            members,
            vips,
            authorities,
            transport,
            member_keys,
            tokens,
            joins_as,
            users,
            time_ms,
            starts,
            sockets,
            tenure,
            vip_events,
            records,
        } = &machine.state;
        let staged = machine.staged.as_ref().map(|staged| storage::Staged {
            upload: staged.upload,
            pieces: staged.pieces.iter().map(|piece| piece.to_vec()).collect(),
            index: staged.index,
        });
        Self {
            cluster_id: cluster_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            revision: *revision,
            feature_level: *feature_level,
            pools: pools.values().map(|entry| entry.as_ref().into()).collect(),
            listeners: listeners.values().map(|listener| listener.as_ref().into()).collect(),
            members: members.values().map(|member| member.as_ref().into()).collect(),
            remembered: machine.remembered().map(Into::into).collect(),
            vips: vips.values().map(|vip| vip.as_ref().into()).collect(),
            authorities: authorities.values().map(|authority| authority.as_ref().into()).collect(),
            transport: identity::transport_number(*transport),
            member_keys: member_keys.iter().map(identity::keys_message).collect(),
            tokens: tokens.values().map(|token| token.as_ref().into()).collect(),
            joined_members: joins_as.iter().map(token::joined_message).collect(),
            users: users.values().map(|user| user.as_ref().into()).collect(),
            time_ms: *time_ms,
            starts: starts
                .iter()
                .map(|(id, start)| member::started(*id, *start, 0, sockets.get(id).map(|s| s.as_ref())))
                .collect(),
            tenure: tenure.as_ref().map(Into::into),
            vip_events: vip_events.iter().map(|event| event.as_ref().into()).collect(),
            staged,
            records: records.iter().map(|record| record.as_ref().into()).collect(),
            recovery: *recovery,
            recoveries: recovery_draws
                .iter()
                .map(|(recovery, draw)| storage::Recover { member_id: 0, recovery: *recovery, draw: *draw })
                .collect(),
        }
    }
}

impl TryFrom<storage::Machine> for Machine {
    type Error = DecodeError;

    fn try_from(message: storage::Machine) -> Result<Self, DecodeError> {
        let pools = message.pools.into_iter().map(|m| {
            let entry = PoolEntry::try_from(m)?;
            Ok((entry.pool.name.clone(), Arc::new(entry)))
        });
        let listeners = message.listeners.into_iter().map(|m| {
            let listener = Listener::try_from(m)?;
            Ok((listener.name.clone(), Arc::new(listener)))
        });
        let members = message.members.into_iter().map(|m| {
            let member = Member::try_from(m)?;
            Ok((member.id, Arc::new(member)))
        });
        let vips = message.vips.into_iter().map(|m| {
            let vip = Vip::try_from(m)?;
            Ok((vip.name.clone(), Arc::new(vip)))
        });
        let authorities = message.authorities.into_iter().map(|m| {
            let authority = Authority::try_from(m)?;
            Ok((authority.generation, Arc::new(authority)))
        });
        let tokens = message.tokens.into_iter().map(|m| {
            let token = JoinToken::try_from(m)?;
            Ok((token.spec.id, Arc::new(token)))
        });
        let users = message.users.into_iter().map(|m| {
            let user = User::try_from(m)?;
            Ok((user.spec.name.clone(), Arc::new(user)))
        });
        let sockets =
            message.starts.iter().filter_map(|m| Some((MemberId(m.member_id), m.sockets.as_ref()?)));
        let sockets = sockets.map(|(id, sockets)| Ok((id, Arc::new(sockets.try_into()?))));
        let vip_events = message.vip_events.into_iter().map(|m| VipEvent::try_from(m).map(Arc::new));
        let records = message.records.into_iter().map(|m| RevisionRecord::try_from(m).map(Arc::new));
        let state = ClusterState {
            cluster_id: match message.cluster_id.as_str() {
                "" => None,
                id => Some(member::cluster_id(id)?),
            },
            recovery: number("recovery number", message.recovery)?,
            recovery_draws: message.recoveries.iter().map(|m| (m.recovery, m.draw)).collect(),
            feature_level: message.feature_level,
            revision: number("revision", message.revision)?,
            pools: pools.collect::<Result<_, DecodeError>>()?,
            listeners: listeners.collect::<Result<_, DecodeError>>()?,
            members: members.collect::<Result<_, DecodeError>>()?,
            vips: vips.collect::<Result<_, DecodeError>>()?,
            authorities: authorities.collect::<Result<_, DecodeError>>()?,
            transport: identity::transport(message.transport)?,
            member_keys: message.member_keys.iter().map(identity::keys).collect::<Result<_, _>>()?,
            tokens: tokens.collect::<Result<_, DecodeError>>()?,
            joins_as: message.joined_members.iter().map(token::joined).collect::<Result<_, _>>()?,
            users: users.collect::<Result<_, DecodeError>>()?,
            time_ms: number_up_to("time of the log", message.time_ms, TIME_MS_MAX)?,
            starts: message.starts.iter().map(|m| (MemberId(m.member_id), m.start)).collect(),
            sockets: sockets.collect::<Result<_, DecodeError>>()?,
            tenure: message.tenure.map(TryInto::try_into).transpose()?,
            vip_events: vip_events.collect::<Result<_, DecodeError>>()?,
            records: records.collect::<Result<_, DecodeError>>()?,
        };
        let remembered: Vec<Remembered> =
            message.remembered.into_iter().map(TryInto::try_into).collect::<Result<_, DecodeError>>()?;
        let staged = message.staged.map(|staged| Staged {
            upload: staged.upload,
            pieces: staged.pieces.into_iter().map(Into::into).collect(),
            index: staged.index,
        });
        let mut machine = Self::restore(state, remembered);
        machine.staged = staged;
        Ok(machine)
    }
}
