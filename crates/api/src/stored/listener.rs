//! Listeners.

use trestle_model::{
    Bind, Cidr, Listener, ListenerName, ListenerPatch, ListenerSpec, NamePattern, PoolName, Route,
};

use super::{DecodeError, in_bounds, number, parsed, required};
use crate::storage;

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn list<T>(
    field: &'static str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, DecodeError> {
    texts.iter().map(|text| parsed(field, text, &parse)).collect()
}

fn networks_message(networks: &[Cidr]) -> storage::Networks {
    storage::Networks { cidrs: texts(networks) }
}

fn networks(
    field: &'static str,
    message: Option<storage::Networks>,
) -> Result<Option<Vec<Cidr>>, DecodeError> {
    message.map(|message| list(field, &message.cidrs, Cidr::parse)).transpose()
}

fn routes_message(routes: &[Route]) -> storage::Routes {
    let route = |Route { server_names, alpn, pool }: &Route| storage::Route {
        server_names: texts(server_names),
        alpn: texts(alpn),
        pool: pool.to_string(),
    };
    storage::Routes { routes: routes.iter().map(route).collect() }
}

fn route(message: storage::Route) -> Result<Route, DecodeError> {
    Ok(Route {
        server_names: list("server name", &message.server_names, NamePattern::parse)?,
        alpn: message.alpn.into_iter().map(Into::into).collect(),
        pool: parsed("pool name", &message.pool, PoolName::parse)?,
    })
}

impl From<&ListenerPatch> for storage::ListenerSpec {
    fn from(patch: &ListenerPatch) -> Self {
        let ListenerPatch {
            binds,
            pool,
            routes,
            accept_proxy_from,
            allow,
            deny,
            max_connections,
            max_connections_per_source,
            accept_rate,
            accept_rate_per_source,
        } = patch;
        let networks = |list: &Option<Vec<Cidr>>| list.as_deref().map(networks_message);
        Self {
            binds: texts(binds.as_deref().unwrap_or_default()),
            pool: pool.as_ref().map(ToString::to_string),
            no_binds: binds.as_ref().is_some_and(Vec::is_empty),
            routes: routes.as_deref().map(routes_message),
            accept_proxy_from: networks(accept_proxy_from),
            allow: networks(allow),
            deny: networks(deny),
            max_connections: *max_connections,
            max_connections_per_source: *max_connections_per_source,
            accept_rate: *accept_rate,
            accept_rate_per_source: *accept_rate_per_source,
        }
    }
}

impl TryFrom<storage::ListenerSpec> for ListenerPatch {
    type Error = DecodeError;

    fn try_from(message: storage::ListenerSpec) -> Result<Self, DecodeError> {
        let changed = message.no_binds || !message.binds.is_empty();
        let routes = message.routes.map(|m| m.routes.into_iter().map(route).collect());
        Ok(Self {
            binds: if changed { Some(list("listener address", &message.binds, Bind::decode)?) } else { None },
            pool: message.pool.map(|pool| parsed("pool name", &pool, PoolName::parse)).transpose()?,
            routes: routes.transpose()?,
            accept_proxy_from: networks("network of PROXY headers", message.accept_proxy_from)?,
            allow: networks("allowed network", message.allow)?,
            deny: networks("denied network", message.deny)?,
            max_connections: message.max_connections,
            max_connections_per_source: message.max_connections_per_source,
            accept_rate: message.accept_rate,
            accept_rate_per_source: message.accept_rate_per_source,
        })
    }
}

impl From<&ListenerSpec> for storage::ListenerSpec {
    fn from(spec: &ListenerSpec) -> Self {
        /// Empty lists and bounds of 0 are left out: that is what older versions meant.
        fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
            (!list.is_empty()).then(|| list.to_vec())
        }
        let bound = |bound: &u32| Some(*bound).filter(|bound| *bound > 0);
        let ListenerSpec {
            binds,
            pool,
            routes,
            accept_proxy_from,
            allow,
            deny,
            max_connections,
            max_connections_per_source,
            accept_rate,
            accept_rate_per_source,
        } = spec;
        let patch = ListenerPatch {
            binds: Some(binds.clone()),
            pool: Some(pool.clone()),
            routes: some(routes),
            accept_proxy_from: some(accept_proxy_from),
            allow: some(allow),
            deny: some(deny),
            max_connections: bound(max_connections),
            max_connections_per_source: bound(max_connections_per_source),
            accept_rate: bound(accept_rate),
            accept_rate_per_source: bound(accept_rate_per_source),
        };
        // A listener's settings that name no address are read as such without a flag.
        Self { no_binds: false, ..Self::from(&patch) }
    }
}

impl TryFrom<storage::ListenerSpec> for ListenerSpec {
    type Error = DecodeError;

    fn try_from(message: storage::ListenerSpec) -> Result<Self, DecodeError> {
        let patch = ListenerPatch::try_from(message)?;
        let pool = required("listener", "pool", patch.pool.clone())?;
        Ok(Self::new(Vec::new(), pool).patched(&patch))
    }
}

impl From<&Listener> for storage::Listener {
    fn from(listener: &Listener) -> Self {
        let Listener { name, spec, revision, created } = listener;
        Self { name: name.to_string(), spec: Some(spec.into()), revision: *revision, created: *created }
    }
}

impl TryFrom<storage::Listener> for Listener {
    type Error = DecodeError;

    fn try_from(message: storage::Listener) -> Result<Self, DecodeError> {
        let spec: ListenerSpec = required("listener", "settings", message.spec)?.try_into()?;
        in_bounds(|v| spec.check_numbers(v))?;
        let name = parsed("listener name", &message.name, ListenerName::parse)?;
        let revision = number("revision", message.revision)?;
        // Without a record of it, it is no older than it is.
        let created = match number("revision of the creation", message.created)? {
            0 => revision,
            created => created,
        };
        Ok(Self { name, spec, revision, created })
    }
}
