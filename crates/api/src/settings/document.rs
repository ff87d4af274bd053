//! The settings of each kind of document. A new setting is one word here.

use std::collections::BTreeMap;

use trestle_model::defaults::FIRST_BYTES_TIMEOUT;
use trestle_model::{
    AdminState, BackendAddress, BackendSpec, HealthCheck, InterfaceName, ListenAddress, ListenerSpec,
    MemberName, OnSilence, PoolName, PoolSpec, Route, VipAddress, VipSpec,
};

use super::text::Text;
use super::{Field, Path, Reader, Settings, settings};
use crate::{storage, v1};

settings! {
    PoolSpec: [v1::Pool, storage::PoolSpec] {
        algorithm,
        connect_timeout,
        connect_retries,
        on_down,
        on_primary_up,
        all_down,
        minimum_healthy,
        queue_length,
        queue_timeout,
        slow_start,
        stickiness,
        idle_timeout,
        max_lifetime,
        close_spread_percent,
        dead_peer_timeout,
        send_proxy;
        nested health: health_check as HealthCheck;
        metadata metadata
    }
}

settings! {
    BackendSpec: [v1::Backend, storage::BackendSpec] {
        address, weight, backup, max_connections;
        metadata metadata
    }
}

settings! {
    ListenerSpec: [v1::Listener, storage::ListenerSpec] {
        binds,
        pool,
        routes,
        accept_proxy_from,
        allow,
        deny,
        max_connections,
        max_connections_per_source,
        accept_rate,
        accept_rate_per_source;
        added first_bytes_timeout = FIRST_BYTES_TIMEOUT, on_silence = OnSilence::Reset;
        metadata metadata
    }
}

settings! { Route: [v1::Route, storage::Route] { server_names, alpn, pool } }

settings! {
    VipSpec: [v1::Vip, storage::VipSpec] {
        address, interface, interface_overrides, on_quorum_loss, preferred, preference_delay;
        metadata metadata
    }
}

macro_rules! both {
    ($($side:ident),+) => {$(
        impl Field<Vec<$side::Route>> for Vec<Route> {
            fn write(&self) -> Vec<$side::Route> {
                self.iter().filter_map(Field::<Option<$side::Route>>::write).collect()
            }

            fn read(field: &Vec<$side::Route>, at: &Path<'_>, _: &Self, reader: &mut Reader) -> Self {
                let Some(pool) = any_pool() else { return Vec::new() };
                let none = Route { server_names: Vec::new(), alpn: Vec::new(), pool };
                let routes = field.iter().enumerate();
                routes.map(|(i, one)| Route::read_from(one, &Path::Item(at, i), &none, reader)).collect()
            }
        }

        impl Field<Vec<$side::InterfaceOverride>> for BTreeMap<MemberName, InterfaceName> {
            fn write(&self) -> Vec<$side::InterfaceOverride> {
                let one = |(member, interface): (&MemberName, &InterfaceName)| $side::InterfaceOverride {
                    member: member.text(),
                    interface: interface.text(),
                };
                self.iter().map(one).collect()
            }

            fn read(
                field: &Vec<$side::InterfaceOverride>,
                at: &Path<'_>,
                _: &Self,
                reader: &mut Reader,
            ) -> Self {
                let mut overrides = BTreeMap::new();
                for (i, one) in field.iter().enumerate() {
                    let item = Path::Item(at, i);
                    let at = |name| Path::Field(&item, name);
                    let member = reader.take(&at("member"), &one.member, Text::parse(&one.member, reader.stored));
                    let parsed = InterfaceName::parse(&one.interface);
                    let interface = reader.take(&at("interface"), &one.interface, parsed);
                    let Some((member, interface)) = member.zip(interface) else { continue };
                    if overrides.insert(member, interface).is_some() {
                        let rule = "must not be named twice";
                        reader.found.add(at("member").to_string(), &one.member, rule);
                    }
                }
                overrides
            }
        }
    )+};
}

both!(v1, storage);

/// What stands for a pool that is not named, or not well, until that mistake is told.
fn any_pool() -> Option<PoolName> {
    PoolName::parse("none").ok()
}

/// Reads a pool's settings.
pub(crate) fn pool<M>(message: &M, reader: &mut Reader) -> PoolSpec
where
    PoolSpec: Settings<M>,
{
    PoolSpec::read_from(message, &Path::Root("pool"), &PoolSpec::default(), reader)
}

/// The default of the fast interval is no longer than the interval.
pub(crate) fn health(message: &v1::Pool, mut spec: PoolSpec) -> PoolSpec {
    if message.health_check.as_ref().is_none_or(|check| check.fast_interval.is_none()) {
        spec.health.fast_interval = spec.health.fast_interval.min(spec.health.interval);
    }
    spec
}

/// Reads a backend's settings; nothing where its address is wrong, which is noted.
pub(crate) fn backend<M>(message: &M, reader: &mut Reader) -> Option<BackendSpec>
where
    BackendSpec: Settings<M>,
{
    let default = BackendSpec::at(BackendAddress::parse("127.0.0.1:1").ok()?);
    Some(BackendSpec::read_from(message, &Path::Root("backend"), &default, reader))
}

/// Reads a listener's settings; a pool that is wrong is noted.
pub(crate) fn listener<M>(message: &M, reader: &mut Reader) -> Option<ListenerSpec>
where
    ListenerSpec: Settings<M>,
{
    let default = ListenerSpec::new(Vec::<ListenAddress>::new(), any_pool()?);
    Some(ListenerSpec::read_from(message, &Path::Root("listener"), &default, reader))
}

/// Reads the settings of a virtual IP; an address that is wrong is noted.
pub(crate) fn vip<M>(message: &M, reader: &mut Reader) -> Option<VipSpec>
where
    VipSpec: Settings<M>,
{
    let default = VipSpec::new(VipAddress::parse("192.0.2.1").ok()?);
    Some(VipSpec::read_from(message, &Path::Root("vip"), &default, reader))
}

const STATES: &str = "ADMIN_STATE_ENABLED (1), ADMIN_STATE_DRAINING (2) or ADMIN_STATE_DISABLED (3)";

/// Reads what a backend is switched to, from the number of the state and the time of a drain.
pub(crate) fn admin_state(
    number: i32,
    timeout: Option<prost_types::Duration>,
    reader: &mut Reader,
) -> AdminState {
    let root = Path::Root("backend");
    let at = Path::Field(&root, "drain_timeout");
    let timeout = Option::<std::time::Duration>::read(&timeout, &at, &None, reader);
    if let (Some(timeout), 0 | 1 | 3) = (timeout, number) {
        let rule = "goes only with admin_state ADMIN_STATE_DRAINING";
        reader.found.add(at.to_string(), format!("{timeout:?}"), rule);
    }
    match number {
        0 | 1 => AdminState::Enabled,
        2 => AdminState::Draining { timeout },
        3 => AdminState::Disabled,
        other => {
            reader.found.add("backend.admin_state", other, format!("must be {STATES}"));
            AdminState::Enabled
        }
    }
}
