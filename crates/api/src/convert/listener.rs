//! Listeners.

use trestle_model::{
    Bind, Command, Invalid, Listener, ListenerName, ListenerPatch, ListenerSpec, Violations,
};

use super::name::{listener_name, pool_name};
use super::{Write, etag, field, finish, parse_etag, parse_listener_name, parse_pool_name};
use crate::v1;

const OUTPUT_ONLY: &[&str] = &["revision", "etag", "name"];

/// Renders a listener.
pub fn listener(listener: &Listener) -> v1::Listener {
    v1::Listener {
        name: listener_name(&listener.name),
        binds: listener.spec.binds.iter().map(ToString::to_string).collect(),
        pool: pool_name(&listener.spec.pool),
        revision: listener.revision,
        etag: etag(listener.revision),
    }
}

fn binds(message: &v1::Listener, v: &mut Violations) -> Vec<Bind> {
    let field = |i| {
        if message.binds.len() == 1 { "listener.binds".to_owned() } else { format!("listener.binds[{i}]") }
    };
    let parse = |(i, text): (usize, &String)| v.take(&field(i), text, Bind::parse(text));
    message.binds.iter().enumerate().filter_map(parse).collect()
}

/// Parses the creation of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_listener(request: &v1::CreateListenerRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = v.take("listener_id", &request.listener_id, ListenerName::parse(&request.listener_id));
    let message = request.listener.clone().unwrap_or_default();
    let binds = binds(&message, &mut v);
    let spec =
        parse_pool_name("listener.pool", &message.pool, &mut v).map(|pool| ListenerSpec { binds, pool });
    if let (true, Some(spec)) = (v.is_empty(), &spec) {
        spec.check(&mut v);
    }
    let command = name.zip(spec).map(|(name, spec)| Command::CreateListener { name, spec });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the change of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_listener(request: &v1::UpdateListenerRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let message = request.listener.clone().unwrap_or_default();
    let name = parse_listener_name("listener.name", &message.name, &mut v);
    let expect = parse_etag("listener.etag", &message.etag, &mut v);
    let paths = field::mask(request.update_mask.as_ref(), &["binds", "pool"], OUTPUT_ONLY, &mut v);
    let mut patch = ListenerPatch::default();
    if paths.contains(&"binds") {
        if message.binds.is_empty() {
            v.add("listener.binds", "", "must name at least one address");
        }
        patch.binds = Some(binds(&message, &mut v));
    }
    if paths.contains(&"pool") {
        patch.pool = parse_pool_name("listener.pool", &message.pool, &mut v);
    }
    let command = name.map(|name| Command::UpdateListener { name, patch, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the deletion of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_listener(request: &v1::DeleteListenerRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_listener_name("name", &request.name, &mut v);
    let expect = parse_etag("etag", &request.etag, &mut v);
    let command = name.map(|name| Command::DeleteListener { name, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}
