//! Who may hold the virtual IPs, and who did.

use std::time::Duration;

use trestle_model::defaults::{REACH_MAX, TIME_MS_MAX};
use trestle_model::{Command, MemberId, MemberName, Tenure, VipEvent, VipEventKind, VipName};

use super::member::member_id;
use super::{DecodeError, duration_message, duration_up_to, number, number_up_to, parsed, required};
use crate::storage;

fn time_ms(value: u64) -> Result<u64, DecodeError> {
    number_up_to("time", value, TIME_MS_MAX)
}

fn member_name(text: &str) -> Result<MemberName, DecodeError> {
    parsed("member name", text, MemberName::parse)
}

fn vip_name(text: &str) -> Result<VipName, DecodeError> {
    parsed("vip name", text, VipName::parse)
}

impl From<&Tenure> for storage::Tenure {
    fn from(tenure: &Tenure) -> Self {
        let Tenure { member, term, reach, released } = tenure;
        Self { member_id: member.0, term: *term, reach: Some(duration_message(*reach)), released: *released }
    }
}

impl TryFrom<storage::Tenure> for Tenure {
    type Error = DecodeError;

    fn try_from(message: storage::Tenure) -> Result<Self, DecodeError> {
        Ok(Self {
            member: member_id(message.member_id)?,
            term: number("term", message.term)?,
            reach: match message.reach {
                Some(reach) => duration_up_to("reach", reach, REACH_MAX)?,
                None => Duration::ZERO,
            },
            released: message.released,
        })
    }
}

pub(super) fn take_message(tenure: &Tenure, time_ms: u64, reason: &str) -> storage::TakeVips {
    storage::TakeVips { tenure: Some(tenure.into()), time_ms, reason: reason.to_owned() }
}

pub(super) fn take(message: storage::TakeVips) -> Result<Command, DecodeError> {
    let tenure = required("taking of the vips", "tenure", message.tenure)?.try_into()?;
    Ok(Command::TakeVips { tenure, time_ms: time_ms(message.time_ms)?, reason: message.reason.into() })
}

pub(super) fn release_message(
    member: MemberId,
    term: u64,
    time_ms: u64,
    reason: &str,
) -> storage::ReleaseVips {
    storage::ReleaseVips { member_id: member.0, term, time_ms, reason: reason.to_owned() }
}

pub(super) fn release(message: storage::ReleaseVips) -> Result<Command, DecodeError> {
    Ok(Command::ReleaseVips {
        member: member_id(message.member_id)?,
        term: number("term", message.term)?,
        time_ms: time_ms(message.time_ms)?,
        reason: message.reason.into(),
    })
}

impl From<&VipEvent> for storage::VipEvent {
    fn from(event: &VipEvent) -> Self {
        let VipEvent { revision, time_ms, member, name, term, kind, reason, vips } = event;
        let kind = match kind {
            VipEventKind::Taken => storage::VipEventKind::Taken,
            VipEventKind::Released => storage::VipEventKind::Released,
        };
        Self {
            revision: *revision,
            time_ms: *time_ms,
            member_id: member.0,
            name: name.as_ref().map(ToString::to_string).unwrap_or_default(),
            term: *term,
            kind: kind.into(),
            reason: reason.to_string(),
            vips: vips.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<storage::VipEvent> for VipEvent {
    type Error = DecodeError;

    fn try_from(message: storage::VipEvent) -> Result<Self, DecodeError> {
        let kind = match message.kind() {
            storage::VipEventKind::Taken => VipEventKind::Taken,
            storage::VipEventKind::Released => VipEventKind::Released,
            storage::VipEventKind::Unspecified => {
                return Err(DecodeError::Newer("kind of event"));
            }
        };
        Ok(Self {
            revision: number("revision", message.revision)?,
            time_ms: time_ms(message.time_ms)?,
            member: member_id(message.member_id)?,
            name: match message.name.as_str() {
                "" => None,
                name => Some(member_name(name)?),
            },
            term: number("term", message.term)?,
            kind,
            reason: message.reason.into(),
            vips: message.vips.iter().map(|name| vip_name(name)).collect::<Result<_, _>>()?,
        })
    }
}
