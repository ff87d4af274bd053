//! What this member's data plane can tell of its fitness to hold virtual IPs.

use std::net::SocketAddr;
use std::sync::Arc;

use trestle_engine::Verdict;
use trestle_model::{AdminState, ListenerName, PoolName};

use crate::accept::bind;
use crate::accept::listener::Listener;
use crate::table::Table;
use crate::upstream::pool::Pool;

/// Why connections are not accepted wherever virtual IPs are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptFault {
    /// The listener that is not open at an address; `None` for a fault of the threads.
    pub listener: Option<ListenerName>,
    /// The fault in words.
    pub why: String,
}

impl AcceptFault {
    pub(crate) fn of_thread(why: String) -> Self {
        Self { listener: None, why }
    }
}

/// Listeners that are not bound at an address at which virtual IPs are reached, for another reason than load.
pub(crate) fn closed(table: &Table) -> Vec<AcceptFault> {
    let meets = |address: SocketAddr| {
        let ip = address.ip();
        table.vips.contains(&ip)
            || ip.is_unspecified() && table.vips.iter().any(|vip| vip.is_ipv4() == ip.is_ipv4())
    };
    let fault = |listener: &Arc<Listener>| {
        // One that waits for its first checks, which is none that failed, does so on every member, and not for long.
        let failed = listener.failed().filter(|(address, error)| !error.is_load() && meets(*address));
        let why = bind::told(failed).join("; ");
        let name = &listener.config.name;
        let why = (!why.is_empty()).then(|| format!("listener {name}: {why}"))?;
        Some(AcceptFault { listener: Some(name.clone()), why })
    };
    table.listeners.values().filter_map(fault).collect()
}

/// Pools that a listener leads to and whose backends are all unhealthy here.
pub(crate) fn dead_pools(table: &Table) -> Vec<PoolName> {
    let used = table.used_pools().into_iter();
    used.filter(|name| table.pools.get(*name).is_some_and(|p| is_dead(table, p))).cloned().collect()
}

/// What an operator has drained or disabled is no sign of anything.
fn is_dead(table: &Table, pool: &Pool) -> bool {
    let mut in_use = pool.backends.iter().filter(|b| b.config.admin_state == AdminState::Enabled).peekable();
    in_use.peek().is_some() && in_use.all(|backend| table.verdict(backend) == Verdict::Unhealthy)
}
