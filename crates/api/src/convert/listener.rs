//! Listeners.

use trestle_model::{Document, Invalid, Listener, ListenerName, ListenerSpec, Violations};

use super::name::listener_name;
use super::write::{Asked, parse_etag};
use super::{Write, etag, parse_listener_name};
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

/// The document that a message stands for: what is not set has its default.
pub(super) fn read(
    name: Option<ListenerName>,
    message: &v1::Listener,
    reader: &mut Reader,
) -> Option<Vec<Document>> {
    let spec = settings::listener(message, reader)?;
    // Addresses that are wrong are not counted.
    if reader.found.is_empty() {
        spec.check(&mut reader.found);
    }
    name.map(|name| vec![(name, spec).into()])
}

/// Parses the creation of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_listener(request: &v1::CreateListenerRequest) -> Result<Write, Invalid> {
    let v1::CreateListenerRequest { listener_id, listener, request_id, validate_only, if_absent: _ } =
        request;
    let mut reader = Reader::default();
    let name = reader.found.take("listener_id", listener_id, ListenerName::parse(listener_id));
    let documents = read(name, &listener.clone().unwrap_or_default(), &mut reader);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    asked.create(documents, reader.found)
}

/// Parses the change of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_listener(request: &v1::UpdateListenerRequest) -> Result<Write, Invalid> {
    let v1::UpdateListenerRequest { listener, update_mask, request_id, validate_only } = request;
    let mut v = Violations::new();
    let message = listener.clone().unwrap_or_default();
    let name = parse_listener_name("listener.name", &message.name, &mut v);
    let expected = parse_etag("listener.etag", &message.etag, &mut v);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    let documents = |reader: &mut Reader| read(name, &message, reader);
    asked.update("listener", (update_mask.as_ref(), &ListenerSpec::paths()), expected, documents, v)
}

/// Parses the deletion of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_listener(request: &v1::DeleteListenerRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_listener_name("name", &request.name, &mut v);
    let expected = parse_etag("etag", &request.etag, &mut v);
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    asked.delete(name.map(Into::into), expected, v)
}
