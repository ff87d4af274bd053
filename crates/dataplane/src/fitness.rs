//! What this member's data plane can tell of its fitness to hold virtual IPs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use trestle_engine::Verdict;
use trestle_model::{AdminState, PoolName};

use crate::bind::BindError;
use crate::pulse::Pulse;
use crate::table::{Pool, Table};
use crate::worker::Order;

/// A pause of accepting that lasts longer is no passing shortage: connections that wait that long have been given up by
/// most clients, and another member may have descriptors.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// What is seen of workers and descriptors from one look to the next.
#[derive(Debug)]
pub(crate) struct Watch {
    pulses: Vec<Pulse>,
    /// The number of a pause, and when it was first seen.
    pause: Option<(u64, Instant)>,
}

impl Watch {
    /// Watches the workers that these give orders to.
    pub(crate) fn new(workers: &[UnboundedSender<Order>]) -> Self {
        let now = Instant::now();
        Self { pulses: workers.iter().map(|orders| Pulse::new(orders, now)).collect(), pause: None }
    }

    /// What is wrong. `pause` is the number of the pause of accepting that lasts now.
    pub(crate) fn look(&mut self, pause: Option<u64>, now: Instant) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, pulse) in self.pulses.iter_mut().enumerate() {
            if let Some(silent) = pulse.look(now) {
                faults.push(format!("worker {number} has not run for {:.1} s", silent.as_secs_f64()));
            }
        }
        self.pause = pause.map(|number| match self.pause {
            Some((seen, since)) if seen == number => (seen, since),
            _ => (number, now),
        });
        let paused = self.pause.map(|(_, since)| now.saturating_duration_since(since));
        if let Some(paused) = paused.filter(|paused| *paused > PAUSE_MAX) {
            let seconds = paused.as_secs_f64();
            faults.push(format!("no file descriptor has been free for a connection for {seconds:.1} s"));
        }
        faults
    }
}

/// Addresses at which virtual IPs are reached and that are not bound, in words.
pub(crate) fn closed(table: &Table) -> Vec<String> {
    let meets = |address: SocketAddr| {
        let ip = address.ip();
        table.vips.contains(&ip)
            || ip.is_unspecified() && table.vips.iter().any(|vip| vip.is_ipv4() == ip.is_ipv4())
    };
    let binds = table
        .listeners
        .values()
        .flat_map(|listener| listener.binds.iter().map(move |bind| (&listener.config.name, bind)));
    let failing = binds.filter(|(_, bind)| meets(bind.effective));
    let failing = failing.filter_map(|(name, bind)| Some((name, bind.error.as_deref()?)));
    // One that waits for its first checks does so on every member, and not for long.
    let failing = failing.filter(|(_, error)| !matches!(error, BindError::Unchecked(_)));
    failing.map(|(name, error)| format!("listener {name}: {error}")).collect()
}

/// Pools that a listener leads to and whose backends are all unhealthy here.
pub(crate) fn dead_pools(table: &Table) -> Vec<PoolName> {
    let specs = table.listeners.values().map(|listener| &listener.config.spec);
    let led_to: BTreeSet<&PoolName> =
        specs.flat_map(|spec| spec.routes.iter().map(|route| &route.pool).chain([&spec.pool])).collect();
    led_to.into_iter().filter(|name| table.pools.get(*name).is_some_and(|p| is_dead(p))).cloned().collect()
}

/// What an operator has drained or disabled is no sign of anything.
fn is_dead(pool: &Pool) -> bool {
    let mut in_use =
        pool.backends.iter().filter(|b| b.config.spec.admin_state == AdminState::Enabled).peekable();
    in_use.peek().is_some() && in_use.all(|backend| backend.verdict == Verdict::Unhealthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pause_that_lasts_is_a_fault() {
        let mut watch = Watch::new(&[]);
        let start = Instant::now();
        let mut look = |pause, ms| watch.look(pause, start + Duration::from_millis(ms));
        assert_eq!(look(Some(1), 0), [""; 0]);
        assert_eq!(look(Some(1), 3000), [""; 0]);
        assert_eq!(look(Some(1), 3500), ["no file descriptor has been free for a connection for 3.5 s"]);
        // Another pause: connections were accepted in between.
        assert_eq!(look(Some(2), 3600), [""; 0]);
        assert_eq!(look(None, 7000), [""; 0]);
        assert_eq!(look(Some(2), 7100), [""; 0]);
    }
}
