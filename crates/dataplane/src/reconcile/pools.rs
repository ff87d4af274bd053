//! Pools and backends: from configuration and check reports to table entries, checks and close signals.

mod ends;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trestle_engine::{Candidates, Verdict};
use trestle_model::{
    self as model, AdminState, BackendName, ClusterState, Host, MemberName, OnDown, PoolEntry, PoolName,
};

use super::backends::{TrackedBackend, TrackedPool, close};
use super::changes::changes;
use super::endings::Grace;
use super::names::NameUsers;
use super::news;
use super::schedule::PoolRuntime;
use crate::check::command::{CheckId, CheckReport, CheckRequest};
use crate::check::{self, CheckPlan};
use crate::forwarder::Publication;
use crate::observe::check_result::CheckResult;
use crate::observe::close_reason::CloseReason;
use crate::observe::event::{Event, OnEvent};
use crate::resolve;
use crate::table::Table;
use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::{BackendRuntime, next_epoch};
use crate::upstream::pool::Pool;

type Prober = mpsc::UnboundedSender<check::command::ProbeCommand>;

/// All pools.
pub(super) struct PoolReconciler {
    /// This member's name.
    member: Option<MemberName>,
    /// The first turn of pools that are new here.
    first_turn: u64,
    /// The number of pools with stickiness.
    remembering: usize,
    prober: Prober,
    on_event: OnEvent,
    names: NameUsers,
    /// The directory of files that checks read.
    check_directory: Arc<Path>,
    pools: BTreeMap<PoolName, TrackedPool>,
    published: Arc<BTreeMap<PoolName, Arc<Pool>>>,
    /// Pools whose table entry is out of date, or that are gone.
    dirty: BTreeSet<PoolName>,
    /// The backend of each run of checks.
    checks: BTreeMap<CheckId, (PoolName, BackendName)>,
    last_check: CheckId,
    /// When connections of backends end next, because the backend is drained or this member stops.
    endings: BTreeSet<(Duration, PoolName, BackendName)>,
    /// The grace in which all connections end, once this member stops.
    grace: Option<Grace>,
    /// The grace in which all connections end while this member is drained with a deadline.
    drain: Option<Grace>,
    /// Pools in which shares are growing, and when they grow next.
    growing: BTreeMap<PoolName, Duration>,
    /// Epochs that begin, and so connections that close, once the table is published.
    signals: Vec<(Arc<BackendRuntime>, u32)>,
    /// Pools whose condition may be another one, of which is told once the table is published.
    changed: BTreeSet<PoolName>,
    /// Addresses of backends that are dead while others of the same backend are not; connections there close once the table is
    /// published.
    dead: Vec<(Arc<BackendRuntime>, IpAddr)>,
}

impl PoolReconciler {
    pub(super) fn new(
        prober: Prober,
        names: NameUsers,
        check_directory: Arc<Path>,
        member: Option<MemberName>,
        on_event: OnEvent,
    ) -> Self {
        Self {
            member,
            first_turn: 0,
            remembering: 0,
            prober,
            on_event,
            names,
            check_directory,
            pools: BTreeMap::new(),
            published: Arc::default(),
            dirty: BTreeSet::new(),
            checks: BTreeMap::new(),
            last_check: 0,
            endings: BTreeSet::new(),
            grace: None,
            drain: None,
            growing: BTreeMap::new(),
            signals: Vec::new(),
            changed: BTreeSet::new(),
            dead: Vec::new(),
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When the next connection ends or the next share grows.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.next_ending().into_iter().chain(self.growing.values().copied()).min()
    }

    fn next_ending(&self) -> Option<Duration> {
        self.endings.first().map(|(at, _, _)| *at)
    }

    /// Takes over the pools of `state`; those that did not change cost one comparison of addresses.
    pub(super) fn follow(&mut self, state: &ClusterState, now: Duration) {
        let gone: Vec<PoolName> =
            self.pools.keys().filter(|n| !state.pools.contains_key(n)).cloned().collect();
        for name in gone {
            for (backend, was) in self.pools.remove(&name).map(|p| p.backends).into_iter().flatten() {
                self.remove(&name, &backend, was);
            }
            self.dirty.insert(name);
        }
        let own = |member: &Arc<model::Member>| Some(&member.spec.name) == self.member.as_ref();
        // Members are in the order of their ids, so that each begins with another backend.
        self.first_turn = state.members.values().position(own).map_or(0, |place| place as u64);
        let remembering = state.pools.values().filter(|p| !p.pool.spec.stickiness.is_zero()).count();
        if std::mem::replace(&mut self.remembering, remembering) != remembering {
            self.pools.values().for_each(|pool| pool.pool_runtime.share(remembering));
        }
        for (name, config) in &state.pools {
            if self.pools.get(name).is_none_or(|p| !Arc::ptr_eq(&p.config, config)) {
                self.follow_pool(name, config, now);
            }
        }
    }

    fn follow_pool(&mut self, name: &PoolName, config: &Arc<PoolEntry>, now: Duration) {
        self.dirty.insert(name.clone());
        let mut pool = self.pools.remove(name).unwrap_or_else(|| TrackedPool {
            config: Arc::new(PoolEntry { pool: config.pool.clone(), backends: BTreeMap::new() }),
            plan: Arc::new(CheckPlan::new(&config.pool.spec, &self.check_directory)),
            backends: BTreeMap::new(),
            pool_runtime: PoolRuntime::new(self.first_turn),
            down: false,
        });
        let (was, is) = (&pool.config.pool.spec, &config.pool.spec);
        let rechecked = was.health != is.health || was.send_proxy != is.send_proxy;
        // A check of another pace asks the same.
        let asked_anew = was.health.kind != is.health.kind || was.health.port != is.health.port;
        if rechecked {
            pool.plan = Arc::new(CheckPlan::new(is, &self.check_directory));
        }
        let spread = is.close_spread_percent;
        let all = rechecked || was.close_spread_percent != spread;
        for (backend, wanted) in changes(&pool.config.backends, &config.backends, all) {
            let was = pool.backends.remove(&backend);
            match wanted {
                Some(wanted) => {
                    let was =
                        was.unwrap_or_else(|| TrackedBackend::new(name, &wanted, &pool.pool_runtime.queue));
                    let mut state = self.update(name, &pool.plan, &wanted, was, rechecked);
                    self.plan_end(name, &mut state, spread, now);
                    if asked_anew {
                        state.outage.renew();
                    }
                    pool.backends.insert(backend, state);
                }
                None => was.into_iter().for_each(|was| self.remove(name, &backend, was)),
            }
        }
        pool.config = config.clone();
        self.pools.insert(name.clone(), pool);
    }

    fn remove(&mut self, pool: &PoolName, name: &BackendName, was: TrackedBackend) {
        self.forget(was.check);
        self.names.leave(&was.entry.config.spec.address.host, &(pool.clone(), name.clone()));
        if let Some(ending) = was.ending {
            self.endings.remove(&(ending.next(), pool.clone(), name.clone()));
        }
        let epoch = next_epoch(was.entry.epoch, CloseReason::BackendRemoved);
        self.signals.push((was.entry.runtime.clone(), epoch));
    }

    /// A new backend, or one with other settings; `rechecked` when the pool's check is another one.
    fn update(
        &mut self,
        pool_name: &PoolName,
        plan: &Arc<CheckPlan>,
        wanted: &Arc<model::Backend>,
        mut state: TrackedBackend,
        rechecked: bool,
    ) -> TrackedBackend {
        let was = &state.entry.config.spec.address;
        let moved = *was != wanted.spec.address;
        if was.host != wanted.spec.address.host {
            self.names.leave(&was.host, &(pool_name.clone(), wanted.name.clone()));
        }
        let mut entry = Backend { config: wanted.clone(), ..Backend::clone(&state.entry) };
        entry.admit(&state.entry.config, Instant::now());
        if moved || rechecked || state.check.is_none() {
            self.forget(state.check.take());
            self.start_check(pool_name, plan, &mut entry, &mut state.check, moved);
        }
        if moved {
            state.outage.renew();
        }
        state.entry = Arc::new(entry);
        state
    }

    /// Starts checks; what is known of the backend stays, unless it is at another address now.
    fn start_check(
        &mut self,
        pool_name: &PoolName,
        plan: &Arc<CheckPlan>,
        entry: &mut Backend,
        check: &mut Option<CheckId>,
        moved: bool,
    ) {
        let address = &entry.config.spec.address;
        let user = (pool_name.clone(), entry.config.name.clone());
        let found = self.names.find(&address.host, user.clone());
        let candidates =
            found.and_then(|all| Ok((Candidates::new(&all, entry.ip).ok_or_else(Arc::<str>::default)?, all)));
        let (candidates, addresses) = match candidates {
            Ok(found) => found,
            Err(reason) => {
                entry.ip = None;
                return entry.judge(Verdict::Unknown, CheckResult::Unresolved(reason), Instant::now());
            }
        };
        let ip = candidates.current();
        let moved = entry.ip.replace(ip) != Some(ip) || moved;
        let name = match &address.host {
            Host::Name(name) => Some(name.clone()),
            Host::Ip(_) => None,
        };
        entry.addresses = if name.is_some() { addresses } else { Arc::default() };
        let port = plan.port(address.port);
        if port.is_none() {
            entry.judge(Verdict::Unknown, CheckResult::Off, Instant::now());
        } else if moved || entry.reason == CheckResult::Off {
            let verdict = plan.health.initial_state.into();
            entry.judge(verdict, CheckResult::Awaited, Instant::now());
        }
        if port.is_none() && name.is_none() {
            return;
        }
        self.last_check += 1;
        self.checks.insert(self.last_check, user);
        *check = Some(self.last_check);
        let (plan, verdict, runtime) = (plan.clone(), entry.verdict, entry.runtime.clone());
        let started = CheckRequest { candidates, name, port, plan, verdict, runtime };
        // Fails only when the prober's thread is gone, of which the log tells.
        let _ = self.prober.send(check::command::ProbeCommand::Watch(self.last_check, started));
    }

    /// Takes over what a name stands for. A backend whose address is still among those stays there. Others of that name move:
    /// their checks start anew, and connections to the former address go on.
    pub(super) fn resolved(&mut self, report: resolve::ResolverReport) {
        let found = report.found.clone();
        let is_first = self.names.is_first(&report);
        for (pool_name, name) in self.names.report(report) {
            let Some(mut pool) = self.pools.remove(&pool_name) else { continue };
            if let Some(state) = pool.backends.get_mut(&name) {
                let mut entry = Backend::clone(&state.entry);
                let is_kept = |all: &&Arc<[IpAddr]>| entry.ip.is_some_and(|ip| all.contains(&ip));
                if let (Some(id), Some(all)) = (state.check, found.as_ref().ok().filter(is_kept)) {
                    entry.addresses = all.clone();
                    let _ = self.prober.send(check::command::ProbeCommand::Renew(id, all.clone()));
                } else {
                    self.forget(state.check.take());
                    let (was_known, first) = (entry.ip.is_some(), is_first && !state.unresolved);
                    self.start_check(&pool_name, &pool.plan, &mut entry, &mut state.check, true);
                    state.outage.renew();
                    if let (Err(reason), true) = (&found, was_known || first) {
                        state.unresolved = true;
                        let (pool, backend, reason) = (pool_name.clone(), name.clone(), reason.to_string());
                        let verdict = Verdict::Unknown;
                        self.on_event.tell(Event::Verdict { pool, backend, verdict, reason });
                    }
                }
                state.entry = Arc::new(entry);
            }
            self.dirty.insert(pool_name.clone());
            self.pools.insert(pool_name, pool);
        }
    }

    fn forget(&mut self, check: Option<CheckId>) {
        if let Some(id) = check {
            self.checks.remove(&id);
            let _ = self.prober.send(check::command::ProbeCommand::Forget(id));
        }
    }

    /// The backends of a pool that clients would be led to, and that have not been looked up or checked yet.
    fn awaited(&self, pool: &PoolName) -> impl Iterator<Item = &Arc<Backend>> {
        let backends = self.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
        backends.map(|backend| &backend.entry).filter(|entry| {
            let spec = &entry.config.spec;
            entry.config.admin_state == AdminState::Enabled
                && spec.weight > 0
                && (entry.reason == CheckResult::Awaited || self.names.is_awaited(&spec.address.host))
        })
    }

    fn is_awaited(&self, pool: &PoolName) -> bool {
        self.awaited(pool).next().is_some()
    }

    /// Whether there are such backends beside those of which the pool's initial state says enough.
    fn is_unchecked(&self, pool: &PoolName) -> bool {
        self.awaited(pool).any(|entry| entry.verdict == Verdict::Unknown)
    }

    /// As [`PoolReconciler::is_unchecked`], looking at each pool once: many listeners may use a large one.
    pub(super) fn unchecked(&self) -> impl FnMut(&PoolName) -> bool {
        let mut known = BTreeMap::new();
        move |pool| *known.entry(pool.clone()).or_insert_with(|| self.is_unchecked(pool))
    }

    /// Takes over a verdict or an address; a report of a run that was replaced is ignored.
    pub(super) fn report(&mut self, report: CheckReport) {
        let Some((pool_name, name)) = self.checks.get(&report.id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(pool_name) else {
            return;
        };
        let Some(state) = pool.backends.get_mut(name) else {
            return;
        };
        self.dirty.insert(pool_name.clone());
        let mut entry = Backend::clone(&state.entry);
        if let Some(CheckResult::NotMade(shortage)) = report.result {
            entry.unchecked = Some(shortage);
            state.entry = Arc::new(entry);
            return;
        }
        if entry.addresses.contains(&report.ip)
            && let Some(was) = entry.ip.replace(report.ip).filter(|was| *was != report.ip)
        {
            let (pool, ip) = (pool_name, report.ip);
            tracing::info!(%pool, backend = %name, %was, %ip, "backend is led to at another address of its name");
        }
        if pool.config.pool.spec.on_down == OnDown::Close {
            self.dead.extend(report.dead.into_iter().map(|ip| (entry.runtime.clone(), ip)));
        }
        if let Some(result) = report.result {
            let told = std::mem::take(&mut state.unresolved);
            let event = news::of_verdict(pool_name, name, &entry, told, report.verdict, &result);
            event.into_iter().for_each(|event| self.on_event.tell(event));
            state.outage.found(report.verdict == Verdict::Healthy);
            entry.reason_ip = (!entry.addresses.is_empty()).then_some(report.ip);
            entry.judge(report.verdict, result, report.at);
        }
        state.entry = Arc::new(entry);
    }

    /// Closes every connection.
    pub(super) fn close_all(&mut self) {
        for (name, pool) in &mut self.pools {
            pool.pool_runtime.queue.stop();
            for state in pool.backends.values_mut() {
                let mut entry = Backend::clone(&state.entry);
                close(&mut self.signals, &mut entry, CloseReason::MemberShutdown);
                state.entry = Arc::new(entry);
            }
            self.dirty.insert(name.clone());
        }
    }

    /// The pools for the next table, with what changed built anew.
    pub(super) fn publish(&mut self, now: Duration) -> Arc<BTreeMap<PoolName, Arc<Pool>>> {
        if self.dirty.is_empty() {
            return self.published.clone();
        }
        let mut pools = BTreeMap::clone(&self.published);
        self.changed.extend(self.dirty.iter().cloned());
        for name in std::mem::take(&mut self.dirty) {
            self.growing.remove(&name);
            let before = pools.remove(&name);
            let Some(state) = self.pools.get_mut(&name) else { continue };
            state.close_left(&mut self.signals);
            let backends = state.backends.values().map(|b| b.entry.clone()).collect();
            let before = before.as_ref().map(|p| &p.schedule);
            let (entry, holds) =
                state.pool_runtime.entry(&state.config.pool, self.remembering, backends, before);
            if let Some(holds) = holds {
                self.growing.insert(name.clone(), now.saturating_add(holds));
            }
            pools.insert(name, Arc::new(entry));
        }
        self.published = Arc::new(pools);
        self.published.clone()
    }

    /// Has all pools looked at, when what they depend on beside their backends has changed.
    pub(super) fn look_at_all(&mut self) {
        self.changed.extend(self.pools.keys().cloned());
    }

    /// Tells of pools that are down, or up again, by the table that was just published.
    pub(super) fn tell(&mut self, table: &Table) {
        if self.changed.is_empty() {
            return;
        }
        let used = table.used_pools();
        for name in std::mem::take(&mut self.changed) {
            let (Some(pool), true) = (table.pools.get(&name), self.pools.contains_key(&name)) else {
                continue;
            };
            let awaited = self.is_awaited(&name);
            let Some(state) = self.pools.get_mut(&name) else { continue };
            let event = news::of_pool(table, pool, used.contains(&name), awaited, &mut state.down);
            event.into_iter().for_each(|event| self.on_event.tell(event));
        }
    }

    /// The table to be published, with what ends then: connections of earlier epochs, and those at dead addresses.
    pub(super) fn publication(&mut self, table: Arc<Table>) -> Publication {
        Publication { table, epochs: std::mem::take(&mut self.signals), dead: std::mem::take(&mut self.dead) }
    }
}
