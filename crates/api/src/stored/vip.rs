//! Virtual IPs, who may hold them, and who did.

use std::time::Duration;

use trestle_model::defaults::{REACH_MAX, TIME_MS_MAX};
use trestle_model::{
    Command, InterfaceName, MemberId, MemberName, OnQuorumLoss, Tenure, Vip, VipAddress, VipEvent,
    VipEventKind, VipName, VipPatch, VipSpec,
};

use super::member::member_id;
use super::{
    DecodeError, duration, duration_message, duration_up_to, in_bounds, number, number_up_to, parsed,
    required,
};
use crate::storage;

fn time_ms(value: u64) -> Result<u64, DecodeError> {
    number_up_to("time", value, TIME_MS_MAX)
}

fn member_name(text: &str) -> Result<MemberName, DecodeError> {
    parsed("member name", text, MemberName::parse)
}

pub(super) fn vip_name(text: &str) -> Result<VipName, DecodeError> {
    parsed("vip name", text, VipName::parse)
}

/// An interface, where none is written as nothing.
fn interface(text: &str) -> Result<Option<InterfaceName>, DecodeError> {
    if text.is_empty() { Ok(None) } else { parsed("interface", text, InterfaceName::parse).map(Some) }
}

impl From<&VipPatch> for storage::VipSpec {
    fn from(patch: &VipPatch) -> Self {
        let VipPatch { interface, interface_overrides, on_quorum_loss, preferred, preference_delay } = patch;
        let one = |(member, interface): (&MemberName, &InterfaceName)| storage::InterfaceOverride {
            member: member.to_string(),
            interface: interface.to_string(),
        };
        let text = |name: &Option<InterfaceName>| name.as_ref().map(ToString::to_string).unwrap_or_default();
        let on_quorum_loss = on_quorum_loss.map(|policy| match policy {
            OnQuorumLoss::Release => storage::OnQuorumLoss::Release,
            OnQuorumLoss::Hold => storage::OnQuorumLoss::Hold,
        });
        Self {
            address: String::new(),
            interface: interface.as_ref().map(text),
            interface_overrides: interface_overrides
                .as_ref()
                .map(|all| storage::InterfaceOverrides { overrides: all.iter().map(one).collect() }),
            on_quorum_loss: on_quorum_loss.map(Into::into),
            preferred: preferred
                .as_ref()
                .map(|names| storage::MemberNames { names: names.iter().map(ToString::to_string).collect() }),
            preference_delay: preference_delay.map(duration_message),
        }
    }
}

impl TryFrom<storage::VipSpec> for VipPatch {
    type Error = DecodeError;

    fn try_from(message: storage::VipSpec) -> Result<Self, DecodeError> {
        let one = |o: storage::InterfaceOverride| {
            Ok((member_name(&o.member)?, parsed("interface", &o.interface, InterfaceName::parse)?))
        };
        let overrides = message.interface_overrides.map(|m| m.overrides.into_iter().map(one).collect());
        let preferred = message.preferred.map(|m| m.names.iter().map(|name| member_name(name)).collect());
        let on_quorum_loss = message.on_quorum_loss.map(|number| match number.try_into() {
            Ok(storage::OnQuorumLoss::Release) => Ok(OnQuorumLoss::Release),
            Ok(storage::OnQuorumLoss::Hold) => Ok(OnQuorumLoss::Hold),
            _ => Err(DecodeError::rule("policy for a lost quorum", number, "is not known")),
        });
        let delay = message.preference_delay.map(|time| duration("preference delay", time));
        Ok(Self {
            interface: message.interface.as_deref().map(interface).transpose()?,
            interface_overrides: overrides.transpose()?,
            on_quorum_loss: on_quorum_loss.transpose()?,
            preferred: preferred.transpose()?,
            preference_delay: delay.transpose()?,
        })
    }
}

impl From<&VipSpec> for storage::VipSpec {
    fn from(spec: &VipSpec) -> Self {
        let VipSpec { address, interface, interface_overrides, on_quorum_loss, preferred, preference_delay } =
            spec;
        let patch = VipPatch {
            interface: Some(interface.clone()),
            interface_overrides: Some(interface_overrides.clone()),
            on_quorum_loss: Some(*on_quorum_loss),
            preferred: Some(preferred.clone()),
            preference_delay: Some(*preference_delay),
        };
        Self { address: address.to_string(), ..Self::from(&patch) }
    }
}

impl TryFrom<storage::VipSpec> for VipSpec {
    type Error = DecodeError;

    fn try_from(message: storage::VipSpec) -> Result<Self, DecodeError> {
        let address = parsed("vip address", &message.address, VipAddress::parse)?;
        Ok(Self::new(address).patched(&message.try_into()?))
    }
}

impl From<&Vip> for storage::Vip {
    fn from(vip: &Vip) -> Self {
        let Vip { name, spec, revision } = vip;
        Self { name: name.to_string(), spec: Some(spec.into()), revision: *revision }
    }
}

impl TryFrom<storage::Vip> for Vip {
    type Error = DecodeError;

    fn try_from(message: storage::Vip) -> Result<Self, DecodeError> {
        let spec: VipSpec = required("vip", "settings", message.spec)?.try_into()?;
        in_bounds(|v| spec.check_numbers(v))?;
        let (name, revision) = (vip_name(&message.name)?, number("revision", message.revision)?);
        Ok(Self { name, spec, revision })
    }
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
                return Err(DecodeError::rule("kind of event", message.kind, "is not known"));
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
