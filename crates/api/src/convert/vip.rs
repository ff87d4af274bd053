//! Virtual IPs.

use std::collections::BTreeMap;

use trestle_model::{
    Command, InterfaceName, Invalid, MemberName, OnQuorumLoss, Violations, Vip, VipAddress, VipEvent,
    VipEventKind, VipName, VipPatch, VipSpec,
};

use super::name::{member_name, parse_vip_name, vip_name};
use super::{Write, duration, etag, field, finish, parse_etag, parse_member_name};
use crate::v1;

const ON_QUORUM_LOSS: &str = "ON_QUORUM_LOSS_RELEASE (1) or ON_QUORUM_LOSS_HOLD (2)";
const OUTPUT_ONLY: &[&str] = &["revision", "etag", "name"];
const PATHS: &[&str] =
    &["interface", "interface_overrides", "on_quorum_loss", "preferred", "preference_delay"];

/// Renders a virtual IP.
pub fn vip(vip: &Vip) -> v1::Vip {
    let VipSpec { address, interface, interface_overrides, on_quorum_loss, preferred, preference_delay } =
        &vip.spec;
    let one = |(member, interface): (&MemberName, &InterfaceName)| v1::InterfaceOverride {
        member: member_name(member),
        interface: interface.to_string(),
    };
    let on_quorum_loss = match on_quorum_loss {
        OnQuorumLoss::Release => v1::OnQuorumLoss::Release,
        OnQuorumLoss::Hold => v1::OnQuorumLoss::Hold,
    };
    v1::Vip {
        name: vip_name(&vip.name),
        address: address.to_string(),
        interface: interface.as_ref().map(ToString::to_string).unwrap_or_default(),
        interface_overrides: interface_overrides.iter().map(one).collect(),
        on_quorum_loss: on_quorum_loss.into(),
        preferred: preferred.iter().map(member_name).collect(),
        preference_delay: Some(duration(*preference_delay)),
        revision: vip.revision,
        etag: etag(vip.revision),
    }
}

/// Renders a time, given in milliseconds since the beginning of 1970.
pub fn time_of_millis(time_ms: u64) -> prost_types::Timestamp {
    let (seconds, millis) = (time_ms / 1000, time_ms % 1000);
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis * 1_000_000).unwrap_or(0),
    }
}

/// Renders a line of the virtual IPs' history.
pub fn vip_event(event: &VipEvent) -> v1::VipEvent {
    let kind = match event.kind {
        VipEventKind::Taken => v1::VipEventType::Taken,
        VipEventKind::Released => v1::VipEventType::Released,
    };
    v1::VipEvent {
        time: Some(time_of_millis(event.time_ms)),
        r#type: kind.into(),
        member: event.name.as_ref().map(member_name).unwrap_or_default(),
        term: event.term,
        reason: event.reason.to_string(),
        vips: event.vips.iter().map(vip_name).collect(),
        index: event.revision,
    }
}

fn overrides(message: &v1::Vip, v: &mut Violations) -> BTreeMap<MemberName, InterfaceName> {
    let mut overrides = BTreeMap::new();
    for (i, one) in message.interface_overrides.iter().enumerate() {
        let at = format!("vip.interface_overrides[{i}]");
        let member = parse_member_name(&format!("{at}.member"), &one.member, v);
        let parsed = InterfaceName::parse(&one.interface);
        let interface = v.take(&format!("{at}.interface"), &one.interface, parsed);
        let Some((member, interface)) = member.zip(interface) else { continue };
        if overrides.insert(member, interface).is_some() {
            v.add(format!("{at}.member"), &one.member, "must not be named twice");
        }
    }
    overrides
}

/// Every setting of a message but its address, as a patch in which all are set. What is not set has its default.
fn given(message: &v1::Vip, v: &mut Violations) -> VipPatch {
    let interface = match message.interface.as_str() {
        "" => None,
        name => v.take("vip.interface", name, InterfaceName::parse(name)),
    };
    let field = "vip.on_quorum_loss";
    let on_quorum_loss = match field::known(field, message.on_quorum_loss, ON_QUORUM_LOSS, v) {
        Some(v1::OnQuorumLoss::Hold) => OnQuorumLoss::Hold,
        Some(v1::OnQuorumLoss::Release | v1::OnQuorumLoss::Unspecified) | None => OnQuorumLoss::Release,
    };
    let mut preferred = Vec::new();
    for (i, name) in message.preferred.iter().enumerate() {
        preferred.extend(parse_member_name(&format!("vip.preferred[{i}]"), name, v));
    }
    let delay = field::duration("vip.preference_delay", message.preference_delay.as_ref(), v);
    VipPatch {
        interface: Some(interface),
        interface_overrides: Some(overrides(message, v)),
        on_quorum_loss: Some(on_quorum_loss),
        preferred: Some(preferred),
        preference_delay: Some(delay.unwrap_or(trestle_model::defaults::PREFERENCE_DELAY)),
    }
}

/// Parses the creation of a virtual IP.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_vip(request: &v1::CreateVipRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let message = request.vip.clone().unwrap_or_default();
    let address = v.take("vip.address", &message.address, VipAddress::parse(&message.address));
    if let Some(what) = address.and_then(|address| address.stands_for()) {
        let rule = format!("must be the address of a host; it is {what} of its network");
        v.add("vip.address", &message.address, rule);
    }
    let name = match (request.vip_id.as_str(), address) {
        ("", Some(address)) => {
            let named = address.default_name();
            v.take("vip_id", "", named.map_err(|_| "must be given for this address".to_owned()))
        }
        ("", None) => None,
        (id, _) => v.take("vip_id", id, VipName::parse(id)),
    };
    let given = given(&message, &mut v);
    let spec = address.map(|address| VipSpec::new(address).patched(&given));
    if let (true, Some(spec)) = (v.is_empty(), &spec) {
        spec.check(&mut v);
    }
    let command = name.zip(spec).map(|(name, spec)| Command::CreateVip { name, spec });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the change of a virtual IP.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_vip(request: &v1::UpdateVipRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let message = request.vip.clone().unwrap_or_default();
    let name = parse_vip_name("vip.name", &message.name, &mut v);
    let expect = parse_etag("vip.etag", &message.etag, &mut v);
    if request.update_mask.iter().flat_map(|mask| &mask.paths).any(|path| path == "address") {
        v.add("update_mask", "address", "must not name the address, which never changes; create another vip");
    }
    let ignored = [OUTPUT_ONLY, &["address"]].concat();
    let paths = field::mask(request.update_mask.as_ref(), PATHS, &ignored, &mut v);
    let named = |path: &str| paths.contains(&path);
    // Only what the mask names is looked at.
    let mut all = Violations::new();
    let given = given(&message, &mut all);
    v.extend(all.into_vec().into_iter().filter(|found| {
        let field = found.field.strip_prefix("vip.").unwrap_or(&found.field);
        named(field.split(['[', '.']).next().unwrap_or(field))
    }));
    let patch = VipPatch {
        interface: given.interface.filter(|_| named("interface")),
        interface_overrides: given.interface_overrides.filter(|_| named("interface_overrides")),
        on_quorum_loss: given.on_quorum_loss.filter(|_| named("on_quorum_loss")),
        preferred: given.preferred.filter(|_| named("preferred")),
        preference_delay: given.preference_delay.filter(|_| named("preference_delay")),
    };
    let command = name.map(|name| Command::UpdateVip { name, patch, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the deletion of a virtual IP.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_vip(request: &v1::DeleteVipRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_vip_name("name", &request.name, &mut v);
    let expect = parse_etag("etag", &request.etag, &mut v);
    let command = name.map(|name| Command::DeleteVip { name, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}
