//! Listeners.

use trestle_model::{Document, Listener, ListenerName, ListenerSpec, Outcome, Violations};

use super::name::listener_name;
use super::{ConvertResource, etag, parse_listener_name};
use crate::resource::CreateCall;
use crate::settings::{self, Masked as _, Reader, Settings as _};
use crate::v1;

/// Renders a listener.
pub fn listener(listener: &Listener) -> v1::Listener {
    let mut message = v1::Listener {
        name: listener_name(&listener.name),
        revision: listener.revision,
        etag: etag(listener.revision),
        create_revision: listener.created,
        addresses: listener.binds.iter().map(ToString::to_string).collect(),
        ..v1::Listener::default()
    };
    listener.spec.write_to(&mut message);
    message
}

impl ConvertResource for v1::Listener {
    type Id = ListenerName;

    fn render(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Listener(one) => Some(listener(one)),
            _ => None,
        }
    }

    fn parse_name(field: &str, name: &str, v: &mut Violations) -> Option<ListenerName> {
        parse_listener_name(field, name, v)
    }

    fn new_name(call: &CreateCall<Self>, v: &mut Violations) -> Option<ListenerName> {
        v.take("listener_id", &call.id, ListenerName::parse(&call.id))
    }

    fn paths() -> Vec<String> {
        ListenerSpec::paths()
    }

    fn documents(&self, id: Option<ListenerName>, reader: &mut Reader) -> Option<Vec<Document>> {
        let spec = settings::listener(self, reader)?;
        // Addresses that are wrong are not counted.
        if reader.found.is_empty() {
            spec.check(&mut reader.found);
        }
        id.map(|id| vec![(id, spec).into()])
    }
}
