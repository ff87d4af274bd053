//! When connections end: those of backends that are drained, removed or disabled, and of a member that stops or is drained.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::CloseSchedule;
use trestle_model::PoolName;

use super::PoolReconciler;
use crate::forwarder::Forwarder;
use crate::observe::close_reason::CloseReason;
use crate::reconcile::backends::{TrackedBackend, close};
use crate::reconcile::endings::{Ending, Grace};

impl PoolReconciler {
    /// Finds out when a backend's connections end, by what the operator wants of it and by when this member stops.
    pub(super) fn plan_end(
        &mut self,
        pool: &PoolName,
        state: &mut TrackedBackend,
        spread_percent: u32,
        now: Duration,
    ) {
        let (name, wanted) = (state.entry.config.name.clone(), state.entry.config.admin_state);
        if let Some(ending) = state.ending.take() {
            self.endings.remove(&(ending.next(), pool.clone(), name.clone()));
        }
        let mut drain_ends = None;
        let drain = match state.drain_state.learn(wanted, spread_percent, now) {
            CloseSchedule::Never => None,
            CloseSchedule::Between(from, deadline) => {
                drain_ends = Some(Instant::now() + deadline.saturating_sub(now));
                Some(Ending::new(CloseReason::Drained, from, deadline))
            }
            CloseSchedule::Now(cause) => {
                close(&mut self.signals, Arc::make_mut(&mut state.entry), cause.into());
                self.dirty.insert(pool.clone());
                None
            }
        };
        if state.entry.drain_ends != drain_ends {
            Arc::make_mut(&mut state.entry).drain_ends = drain_ends;
            self.dirty.insert(pool.clone());
        }
        let leave = [self.grace, self.drain].into_iter().flatten().map(|grace| grace.ending(spread_percent));
        state.ending = drain.into_iter().chain(leave).min_by_key(Ending::deadline);
        if let Some(ending) = &state.ending {
            self.endings.insert((ending.next(), pool.clone(), name));
        }
    }

    /// Ends all connections by the end of `grace`, each pool's spread over the last part of it; without one, lets those go on
    /// that nothing else ends.
    pub(in crate::reconcile) fn end_within(&mut self, grace: Option<Grace>, now: Duration) {
        self.grace = grace;
        self.plan_ends(now);
    }

    /// The same while this member is drained, until `None` takes it back.
    pub(in crate::reconcile) fn drain(&mut self, grace: Option<Grace>, now: Duration) {
        if self.drain.is_some() || grace.is_some() {
            self.drain = grace;
            self.plan_ends(now);
        }
    }

    /// Finds out anew when connections end.
    fn plan_ends(&mut self, now: Duration) {
        for (name, mut pool) in std::mem::take(&mut self.pools) {
            let spread = pool.config.pool.spec.close_spread_percent;
            for state in pool.backends.values_mut() {
                self.plan_end(&name, state, spread, now);
            }
            self.pools.insert(name, pool);
        }
    }

    /// Ends connections whose moment has come by `now`, and what is left on backends whose drain has ended; lets shares grow
    /// that are to by then.
    pub(in crate::reconcile) fn expire(&mut self, now: Duration, forwarder: &dyn Forwarder) {
        let due = self.growing.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone());
        self.dirty.extend(due);
        let mut due = Vec::new();
        while self.next_ending().is_some_and(|at| at <= now) {
            due.extend(self.endings.pop_first());
        }
        let blank = due.iter().filter_map(|(_, pool, name)| {
            let state = self.pools.get(pool)?.backends.get(name)?;
            state.ending.as_ref()?.is_blank(now).then(|| state.entry.runtime.clone())
        });
        let mut connections = forwarder.connections_of(&blank.collect::<Vec<_>>());
        for (_, pool, name) in due {
            let Some(state) = self.pools.get_mut(&pool).and_then(|p| p.backends.get_mut(&name)) else {
                continue;
            };
            let Some(ending) = &mut state.ending else { continue };
            if let Some(connections) = connections.remove(&Arc::as_ptr(&state.entry.runtime)) {
                ending.fill(connections);
            }
            if ending.deadline() > now {
                ending.end_due(now);
                self.endings.insert((ending.next(), pool, name));
                continue;
            }
            state.ending = None;
            let wanted = state.entry.config.admin_state;
            // What is left when this member stops is closed with everything else.
            let drained = self.drain.is_some_and(|drain| drain.deadline() <= now);
            match state.drain_state.learn(wanted, 0, now) {
                CloseSchedule::Now(cause) => {
                    close(&mut self.signals, Arc::make_mut(&mut state.entry), cause.into());
                }
                _ if drained => {
                    close(&mut self.signals, Arc::make_mut(&mut state.entry), CloseReason::Drained);
                }
                _ => {}
            }
            self.dirty.insert(pool);
        }
    }
}
