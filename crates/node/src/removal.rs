//! What a removed member still does with the configuration that it had: it lets its connections finish, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;
use trestle_model::{AdminState, Backend, ClusterState};

/// How far a member has got out of its cluster.
#[derive(Debug, Default)]
pub(crate) struct RemovalGrace {
    /// When it was removed, if it was.
    since: Option<Instant>,
    /// Whether it has ended everything.
    ended: bool,
}

impl RemovalGrace {
    /// Whether this member takes its leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.since.is_some()
    }

    /// What is left of the state that this member `known`: all of it while it is a member; for the time of `grace` after it was
    /// removed no listener and no virtual IP, and backends that are drained, so that open connections can finish; then nothing.
    /// Also answers when to ask again.
    pub(crate) fn remaining_state(
        &mut self,
        known: Arc<ClusterState>,
        removed: bool,
        grace: Duration,
        now: Instant,
    ) -> (Arc<ClusterState>, Option<Instant>) {
        if !removed {
            *self = Self::default();
            return (known, None);
        }
        if self.since.is_none() && !known.listeners.is_empty() {
            warn!(
                "this member was removed: it takes no more connections, and ends those that are open in {grace:?}"
            );
        }
        let end = self.since.get_or_insert(now).checked_add(grace);
        if self.ended || end.is_some_and(|end| end <= now) {
            self.ended = true;
            return (Arc::default(), None);
        }
        let mut left = ClusterState::clone(&known);
        left.listeners.clear();
        left.vips.clear();
        for pool in left.pools.values_mut() {
            for backend in Arc::make_mut(pool).backends.values_mut() {
                drain(backend);
            }
        }
        (Arc::new(left), end)
    }
}

/// Drains a backend that is not drained or disabled anyway. Nothing is said of a deadline: the time of a drain counts from when
/// it began, which for some is long ago, and the data plane knows when this member takes its leave.
fn drain(backend: &mut Arc<Backend>) {
    if backend.admin_state == AdminState::Enabled {
        Arc::make_mut(backend).admin_state = AdminState::Draining { timeout: None };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use trestle_model::{
        BackendAddress, BackendName, BackendSpec, Bind, Command, ListenerName, ListenerSpec, Operation,
        PoolName, PoolSpec,
    };

    use super::*;

    const DRAINED: AdminState = AdminState::Draining { timeout: None };

    fn serving() -> Arc<ClusterState> {
        let mut state = ClusterState::default();
        let pool = PoolName::parse("web").unwrap();
        state.apply(1, &Command::create((pool.clone(), PoolSpec::default()))).unwrap();
        for (index, name, admin_state) in
            [(2, "on", AdminState::Enabled), (3, "off", AdminState::Disabled), (4, "out", DRAINED)]
        {
            let address = BackendAddress::parse("10.0.0.1:80").unwrap();
            let (pool, name) = (pool.clone(), BackendName::parse(name).unwrap());
            let spec = BackendSpec::at(address);
            let operations = [
                Operation::create((pool.clone(), name.clone(), spec)),
                Operation::put((pool, name, admin_state)),
            ];
            state.apply(index, &Command::Batch(operations.into())).unwrap();
        }
        let spec = ListenerSpec::new(vec![Bind::parse("0.0.0.0:80").unwrap()], pool);
        let name = ListenerName::parse("web").unwrap();
        state.apply(5, &Command::create((name, spec))).unwrap();
        Arc::new(state)
    }

    #[test]
    fn a_removed_member_stops_listening_then_ends_and_may_begin_anew() {
        let (mut removal, known, start) = (RemovalGrace::default(), serving(), Instant::now());
        let grace = Duration::from_secs(30);
        let mut at = |seconds, removed| {
            removal.remaining_state(known.clone(), removed, grace, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, false), (known.clone(), None));
        let (left, end) = at(1, true);
        assert!(left.listeners.is_empty() && left.vips.is_empty());
        assert_eq!(left.revision, known.revision);
        let states = left.pools.values().flat_map(|pool| pool.backends.values());
        let states: Vec<_> = states.map(|b| (b.name.as_str(), b.admin_state)).collect();
        assert_eq!(states, [("off", AdminState::Disabled), ("on", DRAINED), ("out", DRAINED)]);
        assert_eq!(end, Some(start + Duration::from_secs(31)));
        assert_eq!(at(30, true).0, left);
        assert_eq!(at(31, true), (Arc::default(), None));
        assert_eq!(at(99, true), (Arc::default(), None));
        assert_eq!(at(100, false), (known.clone(), None));
        assert_eq!(at(101, true).1, Some(start + Duration::from_secs(131)));
    }
}
