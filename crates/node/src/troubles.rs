//! What this member sees wrong with listeners and pools, for the status.

use trestle_api::{convert, peer};
use trestle_dataplane::{Listener, Pool, Table, Verdict};
use trestle_model::{AdminState, AllDown, Backend, PoolName};

use crate::report::count;

/// Most listeners, and most pools, that are told of.
const TOLD_MAX: usize = 64;
/// Most unhealthy backends of a pool that are named.
const EXAMPLES_MAX: usize = 4;

/// What keeps a listener's addresses from being bound, by reason.
pub(crate) fn bind_failures(listener: &Listener) -> Vec<peer::BindFailure> {
    let failures = listener.bind_failures().into_iter();
    failures.map(|failure| message(&failure)).collect()
}

fn message(failure: &trestle_dataplane::BindFailure) -> peer::BindFailure {
    peer::BindFailure {
        addresses: failure.ranges.iter().map(ToString::to_string).collect(),
        more: count(failure.more),
        reason: failure.why.clone(),
    }
}

/// The listeners that lack addresses which they should have.
pub(crate) fn unbound_listeners(table: &Table) -> Vec<peer::ListenerReport> {
    let unbound = |listener: &std::sync::Arc<Listener>| {
        let failures: Vec<_> =
            listener.bind_failures().into_iter().filter(|failure| !failure.meant).collect();
        (!failures.is_empty()).then(|| peer::ListenerReport {
            name: convert::listener_name(&listener.config.name),
            bind_failures: failures.iter().map(message).collect(),
            ..Default::default()
        })
    };
    table.listeners.values().filter_map(unbound).take(TOLD_MAX).collect()
}

/// The pools that can do less than they were given to.
pub(crate) fn troubled_pools(table: &Table) -> Vec<peer::PoolTrouble> {
    let used = table.used_pools();
    let trouble =
        |(name, pool): (&PoolName, &std::sync::Arc<Pool>)| trouble(table, name, pool, used.contains(name));
    table.pools.iter().filter_map(trouble).take(TOLD_MAX).collect()
}

fn trouble(table: &Table, name: &PoolName, pool: &Pool, used: bool) -> Option<peer::PoolTrouble> {
    let is_enabled = |config: &Backend| config.admin_state == AdminState::Enabled && config.spec.weight > 0;
    let enabled = || pool.backends.iter().filter(|backend| is_enabled(&backend.config));
    // No client is led to a name without an address either.
    let unhealthy = || enabled().filter(|b| table.verdict(b) == Verdict::Unhealthy || b.ip.is_none());
    let (all, bad) = (enabled().count(), unhealthy().count());
    let is_down = all.saturating_sub(bad) < pool.config.spec.minimum_healthy as usize;
    if bad == 0 && !(is_down && used) {
        return None;
    }
    let example = |backend: &std::sync::Arc<trestle_dataplane::Backend>| peer::UnhealthyBackend {
        backend: convert::backend_name(name, &backend.config.name),
        reason: table.grounds(backend),
    };
    Some(peer::PoolTrouble {
        pool: convert::pool_name(name),
        backends: count(pool.backends.len()),
        enabled: count(all),
        unhealthy: count(bad),
        used,
        fail_open: pool.config.spec.all_down == AllDown::FailOpen,
        examples: unhealthy().take(EXAMPLES_MAX).map(example).collect(),
        down: is_down,
    })
}
