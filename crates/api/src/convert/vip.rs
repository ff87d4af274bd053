//! Virtual IPs.

use trestle_model::{
    Document, Outcome, Violations, Vip, VipAddress, VipEvent, VipEventKind, VipName, VipSpec,
};

use super::name::{member_name, parse_vip_name, vip_name};
use super::{ConvertResource, etag};
use crate::resource::CreateCall;
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

impl ConvertResource for v1::Vip {
    type Id = VipName;

    fn render(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Vip(one) => Some(vip(one)),
            _ => None,
        }
    }

    fn parse_name(field: &str, name: &str, v: &mut Violations) -> Option<VipName> {
        parse_vip_name(field, name, v)
    }

    /// Without an id, the address names it.
    fn new_name(call: &CreateCall<Self>, v: &mut Violations) -> Option<VipName> {
        let text = call.resource.as_ref().map(|vip| vip.address.as_str()).unwrap_or_default();
        let address = VipAddress::parse(text).ok();
        if let Some(what) = address.and_then(|address| address.stands_for()) {
            let rule = format!("must be the address of a host; it is {what} of its network");
            v.add("vip.address", text, rule);
        }
        match (call.id.as_str(), address) {
            ("", Some(address)) => {
                let named = address.default_name();
                v.take("vip_id", "", named.map_err(|_| "must be given for this address".to_owned()))
            }
            ("", None) => None,
            (id, _) => v.take("vip_id", id, VipName::parse(id)),
        }
    }

    /// Its address never changes.
    fn paths() -> Vec<String> {
        VipSpec::paths().into_iter().filter(|path| path != "address").collect()
    }

    fn documents(&self, id: Option<VipName>, reader: &mut Reader) -> Option<Vec<Document>> {
        let spec = settings::vip(self, reader)?;
        spec.check(&mut reader.found);
        id.map(|id| vec![(id, spec).into()])
    }
}
