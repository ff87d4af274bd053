//! Listeners.

use std::fmt::Display;

use trestle_model::{
    Bind, Cidr, Command, Invalid, Listener, ListenerName, ListenerPatch, ListenerSpec, NamePattern, Route,
    Violations,
};

use super::name::{listener_name, pool_name};
use super::{Write, etag, field, finish, parse_etag, parse_listener_name, parse_pool_name};
use crate::v1;

const OUTPUT_ONLY: &[&str] = &["revision", "etag", "name", "warnings"];
const PATHS: &[&str] = &[
    "binds",
    "pool",
    "routes",
    "accept_proxy_from",
    "allow",
    "deny",
    "max_connections",
    "max_connections_per_source",
    "accept_rate",
    "accept_rate_per_source",
];

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Renders a listener.
pub fn listener(listener: &Listener) -> v1::Listener {
    let spec = &listener.spec;
    let route = |route: &Route| v1::Route {
        server_names: texts(&route.server_names),
        alpn: texts(&route.alpn),
        pool: pool_name(&route.pool),
    };
    v1::Listener {
        name: listener_name(&listener.name),
        binds: texts(&spec.binds),
        pool: pool_name(&spec.pool),
        routes: spec.routes.iter().map(route).collect(),
        accept_proxy_from: texts(&spec.accept_proxy_from),
        allow: texts(&spec.allow),
        deny: texts(&spec.deny),
        max_connections: spec.max_connections,
        max_connections_per_source: spec.max_connections_per_source,
        accept_rate: spec.accept_rate,
        accept_rate_per_source: spec.accept_rate_per_source,
        revision: listener.revision,
        etag: etag(listener.revision),
        warnings: Vec::new(),
    }
}

/// Parses every text of a list; a mistake is noted under the field, with its place where there are several.
fn list<T>(
    field: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
    v: &mut Violations,
) -> Vec<T> {
    let field = |i| if texts.len() == 1 { field.to_owned() } else { format!("{field}[{i}]") };
    let one = |(i, text): (usize, &String)| v.take(&field(i), text, parse(text));
    texts.iter().enumerate().filter_map(one).collect()
}

fn routes(message: &v1::Listener, v: &mut Violations) -> Vec<Route> {
    let mut routes = Vec::new();
    for (i, route) in message.routes.iter().enumerate() {
        let field = format!("listener.routes[{i}]");
        let server_names = list(&format!("{field}.server_names"), &route.server_names, NamePattern::parse, v);
        let alpn = route.alpn.iter().map(|name| name.as_str().into()).collect();
        if let Some(pool) = parse_pool_name(&format!("{field}.pool"), &route.pool, v) {
            routes.push(Route { server_names, alpn, pool });
        }
    }
    routes
}

/// Every setting of a message but its pool, as a patch in which all are set.
fn given(message: &v1::Listener, v: &mut Violations) -> ListenerPatch {
    ListenerPatch {
        binds: Some(list("listener.binds", &message.binds, Bind::parse, v)),
        pool: None,
        routes: Some(routes(message, v)),
        accept_proxy_from: Some(list(
            "listener.accept_proxy_from",
            &message.accept_proxy_from,
            Cidr::parse,
            v,
        )),
        allow: Some(list("listener.allow", &message.allow, Cidr::parse, v)),
        deny: Some(list("listener.deny", &message.deny, Cidr::parse, v)),
        max_connections: Some(message.max_connections),
        max_connections_per_source: Some(message.max_connections_per_source),
        accept_rate: Some(message.accept_rate),
        accept_rate_per_source: Some(message.accept_rate_per_source),
    }
}

/// Parses the creation of a listener.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_listener(request: &v1::CreateListenerRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = v.take("listener_id", &request.listener_id, ListenerName::parse(&request.listener_id));
    let message = request.listener.clone().unwrap_or_default();
    let given = given(&message, &mut v);
    let pool = parse_pool_name("listener.pool", &message.pool, &mut v);
    let spec = pool.map(|pool| ListenerSpec::new(Vec::new(), pool).patched(&given));
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
    let paths = field::mask(request.update_mask.as_ref(), PATHS, OUTPUT_ONLY, &mut v);
    let named = |path: &str| paths.contains(&path);
    if named("binds") && message.binds.is_empty() {
        v.add("listener.binds", "", "must name at least one address");
    }
    // Only what the mask names is looked at.
    let mut all = Violations::new();
    let given = given(&message, &mut all);
    v.extend(all.into_vec().into_iter().filter(|found| {
        let field = found.field.strip_prefix("listener.").unwrap_or(&found.field);
        named(field.split(['[', '.']).next().unwrap_or(field))
    }));
    let patch = ListenerPatch {
        binds: given.binds.filter(|_| named("binds")),
        pool: if named("pool") { parse_pool_name("listener.pool", &message.pool, &mut v) } else { None },
        routes: given.routes.filter(|_| named("routes")),
        accept_proxy_from: given.accept_proxy_from.filter(|_| named("accept_proxy_from")),
        allow: given.allow.filter(|_| named("allow")),
        deny: given.deny.filter(|_| named("deny")),
        max_connections: given.max_connections.filter(|_| named("max_connections")),
        max_connections_per_source: given
            .max_connections_per_source
            .filter(|_| named("max_connections_per_source")),
        accept_rate: given.accept_rate.filter(|_| named("accept_rate")),
        accept_rate_per_source: given.accept_rate_per_source.filter(|_| named("accept_rate_per_source")),
    };
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
