//! Virtual IPs.

use trestle_model::{
    Document, Invalid, Violations, Vip, VipAddress, VipEvent, VipEventKind, VipName, VipSpec,
};

use super::name::{member_name, parse_vip_name, vip_name};
use super::write::{Asked, parse_etag};
use super::{Write, etag};
use crate::settings::{self, Masked as _, Reader, Settings as _};
use crate::v1;

/// Renders a virtual IP.
pub fn vip(vip: &Vip) -> v1::Vip {
    let mut message = v1::Vip {
        name: vip_name(&vip.name),
        revision: vip.revision,
        etag: etag(vip.revision),
        ..v1::Vip::default()
    };
    vip.spec.write_to(&mut message);
    message
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

/// The document that a message stands for: what is not set has its default.
pub(super) fn read(name: Option<VipName>, message: &v1::Vip, reader: &mut Reader) -> Option<Vec<Document>> {
    let spec = settings::vip(message, reader)?;
    if reader.found.is_empty() {
        spec.check(&mut reader.found);
    }
    name.map(|name| vec![(name, spec).into()])
}

/// Parses the creation of a virtual IP.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_vip(request: &v1::CreateVipRequest) -> Result<Write, Invalid> {
    let v1::CreateVipRequest { vip_id, vip, request_id, validate_only, if_absent: _ } = request;
    let mut reader = Reader::default();
    let message = vip.clone().unwrap_or_default();
    let address = VipAddress::parse(&message.address).ok();
    if let Some(what) = address.and_then(|address| address.stands_for()) {
        let rule = format!("must be the address of a host; it is {what} of its network");
        reader.found.add("vip.address", &message.address, rule);
    }
    let name = match (vip_id.as_str(), address) {
        ("", Some(address)) => {
            let named = address.default_name();
            reader.found.take("vip_id", "", named.map_err(|_| "must be given for this address".to_owned()))
        }
        ("", None) => None,
        (id, _) => reader.found.take("vip_id", id, VipName::parse(id)),
    };
    let documents = read(name, &message, &mut reader);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    asked.create(documents, reader.found)
}

/// Parses the change of a virtual IP, whose address never changes.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_vip(request: &v1::UpdateVipRequest) -> Result<Write, Invalid> {
    let v1::UpdateVipRequest { vip, update_mask, request_id, validate_only } = request;
    let mut v = Violations::new();
    let message = vip.clone().unwrap_or_default();
    let name = parse_vip_name("vip.name", &message.name, &mut v);
    let expected = parse_etag("vip.etag", &message.etag, &mut v);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    let mut paths = VipSpec::paths();
    paths.retain(|path| path != "address");
    let documents = |reader: &mut Reader| {
        // The address that is not given is wrong, and not asked for.
        let spec = settings::vip(&message, reader)?;
        spec.check(&mut reader.found);
        name.map(|name| vec![(name, spec).into()])
    };
    asked.update("vip", (update_mask.as_ref(), &paths), expected, documents, v)
}

/// Parses the deletion of a virtual IP.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_vip(request: &v1::DeleteVipRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_vip_name("name", &request.name, &mut v);
    let expected = parse_etag("etag", &request.etag, &mut v);
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    asked.delete(name.map(Into::into), expected, v)
}
