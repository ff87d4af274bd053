//! What this member sees wrong with listeners and pools, for the status.

use trestle_api::{convert, peer};
use trestle_dataplane::{Backend, Listener, Pool, PoolCondition, Table};
use trestle_model::{AllDown, PoolName};

use crate::report_values::count;

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

/// The pools that can do less than they were given to, those that are down first, and how many there are.
pub(crate) fn troubled_pools(table: &Table) -> (Vec<peer::PoolTrouble>, usize) {
    let used = table.used_pools();
    let troubled = |(name, pool): (&PoolName, &std::sync::Arc<Pool>)| {
        let (condition, used) = (table.condition(pool), used.contains(name));
        (condition.unhealthy > 0 || condition.is_down() && used).then(|| (pool.clone(), condition, used))
    };
    let mut troubled: Vec<_> = table.pools.iter().filter_map(troubled).collect();
    troubled.sort_by_key(|(_, condition, _)| !condition.is_down());
    let total = troubled.len();
    troubled.truncate(TOLD_MAX);
    (
        troubled.into_iter().map(|(pool, condition, used)| trouble(table, &pool, condition, used)).collect(),
        total,
    )
}

fn trouble(table: &Table, pool: &Pool, condition: PoolCondition, used: bool) -> peer::PoolTrouble {
    let name = &pool.config.name;
    let example = |backend: &std::sync::Arc<Backend>| peer::UnhealthyBackend {
        backend: convert::backend_name(name, &backend.config.name),
        reason: table.grounds(backend),
    };
    peer::PoolTrouble {
        pool: convert::pool_name(name),
        backends: count(condition.backends),
        enabled: count(condition.enabled),
        unhealthy: count(condition.unhealthy),
        used,
        fail_open: pool.config.spec.all_down == AllDown::FailOpen,
        examples: table.unhealthy(pool).take(EXAMPLES_MAX).map(example).collect(),
        down: condition.is_down(),
    }
}
