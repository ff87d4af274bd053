//! Changes of some settings, for tests that begin with what is there: only what is `Some` changes.

use std::time::Duration;

use trestle_model::{
    Algorithm, AllDown, BackendAddress, BackendSpec, CheckKind, Cidr, HealthCheck, InitialState,
    ListenAddress, ListenerSpec, OnDown, OnPrimaryUp, OnSilence, PoolName, PoolSpec, Port, Route, SendProxy,
};

macro_rules! patch {
    ($($name:ident of $spec:ident { $($field:ident: $type:ty),* $(,)? $(; $nested:ident: $patch:ident)? })+) => {$(
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: Option<$type>,)*
            $(pub(crate) $nested: $patch,)?
        }

        impl $name {
            pub(crate) fn apply(self, spec: &mut $spec) {
                $(if let Some(value) = self.$field {
                    spec.$field = value;
                })*
                $(self.$nested.apply(&mut spec.$nested);)?
            }
        }
    )+};
}

patch! {
    HealthPatch of HealthCheck {
        kind: CheckKind,
        interval: Duration,
        fast_interval: Duration,
        timeout: Duration,
        rise: u32,
        fall: u32,
        jitter_percent: u32,
        port: Option<Port>,
        initial_state: InitialState,
    }
    PoolPatch of PoolSpec {
        algorithm: Algorithm,
        connect_timeout: Duration,
        connect_retries: u32,
        on_down: OnDown,
        on_primary_up: OnPrimaryUp,
        all_down: AllDown,
        minimum_healthy: u32,
        queue_length: u32,
        queue_timeout: Duration,
        slow_start: Duration,
        stickiness: Duration,
        idle_timeout: Duration,
        max_lifetime: Duration,
        close_spread_percent: u32,
        dead_peer_timeout: Duration,
        send_proxy: SendProxy;
        health: HealthPatch
    }
    BackendPatch of BackendSpec { address: BackendAddress, weight: u16, backup: bool, max_connections: u32 }
    ListenerPatch of ListenerSpec {
        binds: Vec<ListenAddress>,
        pool: PoolName,
        routes: Vec<Route>,
        accept_proxy_from: Vec<Cidr>,
        allow: Vec<Cidr>,
        deny: Vec<Cidr>,
        max_connections: u32,
        max_connections_per_source: u32,
        accept_rate: u32,
        accept_rate_per_source: u32,
        first_bytes_timeout: Duration,
        on_silence: OnSilence,
    }
}
