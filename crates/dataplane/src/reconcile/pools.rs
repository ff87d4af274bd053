//! Pools and backends: from configuration and check reports to table entries, checks and close signals.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trestle_engine::{Admission, Closing, Schedule, Verdict};
use trestle_model::{self as model, BackendName, ClusterState, OnDown, PoolEntry, PoolName};

use crate::live::{Live, next_epoch};
use crate::probe::{self, Check, CheckId, Plan, Report};
use crate::reason::CloseReason;
use crate::table::{Backend, CheckResult, Pool, Turns};

type Prober = mpsc::UnboundedSender<probe::Order>;

/// A backend and all that this member knows of it.
struct BackendState {
    entry: Arc<Backend>,
    admission: Admission,
    deadline: Option<Duration>,
    check: Option<CheckId>,
}

/// A pool, its backends, how they are checked, and the turns that outlive its table entries.
struct PoolState {
    config: Arc<PoolEntry>,
    plan: Arc<Plan>,
    backends: BTreeMap<BackendName, BackendState>,
    turns: Arc<Turns>,
}

/// All pools.
pub(super) struct Pools {
    prober: Prober,
    pools: BTreeMap<PoolName, PoolState>,
    published: Arc<BTreeMap<PoolName, Arc<Pool>>>,
    /// Pools whose table entry is out of date, or that are gone.
    dirty: BTreeSet<PoolName>,
    /// Which backend each run of checks is for.
    checks: BTreeMap<CheckId, (PoolName, BackendName)>,
    last_check: CheckId,
    /// Ends of drains.
    deadlines: BTreeSet<(Duration, PoolName, BackendName)>,
    /// Epochs that begin, and so connections that close, once the table is published.
    signals: Vec<(Arc<Live>, u32)>,
}

impl Pools {
    pub(super) fn new(prober: Prober) -> Self {
        Self {
            prober,
            pools: BTreeMap::new(),
            published: Arc::default(),
            dirty: BTreeSet::new(),
            checks: BTreeMap::new(),
            last_check: 0,
            deadlines: BTreeSet::new(),
            signals: Vec::new(),
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When the next drain ends.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _, _)| *deadline)
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
        for (name, config) in &state.pools {
            if self.pools.get(name).is_none_or(|p| !Arc::ptr_eq(&p.config, config)) {
                self.follow_pool(name, config, now);
            }
        }
    }

    fn follow_pool(&mut self, name: &PoolName, config: &Arc<PoolEntry>, now: Duration) {
        self.dirty.insert(name.clone());
        let mut pool = self.pools.remove(name).unwrap_or_else(|| PoolState {
            config: Arc::new(PoolEntry { pool: config.pool.clone(), backends: BTreeMap::new() }),
            plan: Arc::new(Plan::new(&config.pool.spec.health)),
            backends: BTreeMap::new(),
            turns: Arc::default(),
        });
        let rechecked = pool.config.pool.spec.health != config.pool.spec.health;
        if rechecked {
            pool.plan = Arc::new(Plan::new(&config.pool.spec.health));
        }
        for (backend, wanted) in changes(&pool.config.backends, &config.backends, rechecked) {
            let was = pool.backends.remove(&backend);
            match wanted {
                Some(wanted) => {
                    let state = self.update(name, &pool.plan, &wanted, was, rechecked, now);
                    pool.backends.insert(backend, state);
                }
                None => was.into_iter().for_each(|was| self.remove(name, &backend, was)),
            }
        }
        pool.config = config.clone();
        self.pools.insert(name.clone(), pool);
    }

    fn remove(&mut self, pool: &PoolName, name: &BackendName, was: BackendState) {
        self.forget(was.check);
        if let Some(deadline) = was.deadline {
            self.deadlines.remove(&(deadline, pool.clone(), name.clone()));
        }
        let epoch = next_epoch(was.entry.epoch, CloseReason::BackendRemoved);
        self.signals.push((was.entry.live.clone(), epoch));
    }

    /// A new backend, or one with other settings; `rechecked` when the pool's check is another one.
    fn update(
        &mut self,
        pool_name: &PoolName,
        plan: &Arc<Plan>,
        wanted: &Arc<model::Backend>,
        was: Option<BackendState>,
        rechecked: bool,
        now: Duration,
    ) -> BackendState {
        let mut state = was.unwrap_or_else(|| BackendState {
            entry: Arc::new(Backend {
                config: wanted.clone(),
                verdict: Verdict::Unknown,
                reason: CheckResult::Awaited,
                since: Instant::now(),
                ip: wanted.spec.address.ip(),
                live: Arc::default(),
                epoch: 0,
            }),
            admission: Admission::default(),
            deadline: None,
            check: None,
        });
        let moved = state.entry.config.spec.address != wanted.spec.address;
        let mut entry = Backend { config: wanted.clone(), ..Backend::clone(&state.entry) };
        if moved || rechecked || state.check.is_none() {
            self.forget(state.check.take());
            self.start_check(pool_name, plan, &mut entry, &mut state.check, moved);
        }
        if let Some(deadline) = state.deadline.take() {
            self.deadlines.remove(&(deadline, pool_name.clone(), wanted.name.clone()));
        }
        match state.admission.learn(wanted.spec.admin_state, now) {
            Closing::Never => {}
            Closing::At(deadline) => {
                state.deadline = Some(deadline);
                self.deadlines.insert((deadline, pool_name.clone(), wanted.name.clone()));
            }
            Closing::Now(cause) => self.close(&mut entry, cause.into()),
        }
        state.entry = Arc::new(entry);
        state
    }

    /// Starts checks; what is known of the backend stays, unless it is at another address now.
    fn start_check(
        &mut self,
        pool_name: &PoolName,
        plan: &Arc<Plan>,
        entry: &mut Backend,
        check: &mut Option<CheckId>,
        moved: bool,
    ) {
        entry.ip = entry.config.spec.address.ip();
        let Some((port, ip)) = plan.port(entry.config.spec.address.port).zip(entry.ip) else {
            if entry.reason != CheckResult::Off {
                (entry.verdict, entry.reason, entry.since) =
                    (Verdict::Unknown, CheckResult::Off, Instant::now());
            }
            return;
        };
        if moved || entry.reason == CheckResult::Off {
            (entry.verdict, entry.reason, entry.since) =
                (Verdict::Unknown, CheckResult::Awaited, Instant::now());
        }
        self.last_check += 1;
        self.checks.insert(self.last_check, (pool_name.clone(), entry.config.name.clone()));
        *check = Some(self.last_check);
        let started = Check {
            address: (ip, port.get()).into(),
            plan: plan.clone(),
            verdict: entry.verdict,
            live: entry.live.clone(),
        };
        // Fails only when the prober's thread is gone, of which the log tells.
        let _ = self.prober.send(probe::Order::Watch(self.last_check, started));
    }

    fn forget(&mut self, check: Option<CheckId>) {
        if let Some(id) = check {
            self.checks.remove(&id);
            let _ = self.prober.send(probe::Order::Forget(id));
        }
    }

    /// Takes over a verdict; a report of a run that was replaced is ignored.
    pub(super) fn report(&mut self, report: Report) {
        let Some((pool_name, name)) = self.checks.get(&report.id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(pool_name) else {
            return;
        };
        let Some(state) = pool.backends.get_mut(name) else {
            return;
        };
        let was = &state.entry;
        if was.verdict != report.verdict {
            let (pool, backend, reason) = (pool_name, name, &report.result);
            match (was.verdict, report.verdict) {
                // What every backend goes through when it is added is no news.
                (Verdict::Unknown, Verdict::Healthy) => {
                    tracing::debug!(%pool, backend = %backend, %reason, "backend is healthy");
                }
                (_, verdict) => tracing::info!(%pool, backend = %backend, %reason, "backend is {verdict}"),
            }
        }
        let since = if was.verdict == report.verdict { was.since } else { report.at };
        // Not from unknown: a backend that was moved to an address where it does not answer has connections to the one
        // where it did, and nobody has found those to be down.
        let fell = was.verdict == Verdict::Healthy && report.verdict == Verdict::Unhealthy;
        let mut entry =
            Backend { verdict: report.verdict, reason: report.result, since, ..Backend::clone(was) };
        if fell && pool.config.pool.spec.on_down == OnDown::Close {
            close(&mut self.signals, &mut entry, CloseReason::BackendDown);
        }
        state.entry = Arc::new(entry);
        self.dirty.insert(pool_name.clone());
    }

    /// Closes what is left on backends whose drain has ended by `now`.
    pub(super) fn expire(&mut self, now: Duration) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Some((_, pool, name)) = self.deadlines.pop_first() else {
                return;
            };
            let Some(state) = self.pools.get_mut(&pool).and_then(|p| p.backends.get_mut(&name)) else {
                continue;
            };
            state.deadline = None;
            let mut entry = Backend::clone(&state.entry);
            if let Closing::Now(cause) = state.admission.learn(entry.config.spec.admin_state, now) {
                close(&mut self.signals, &mut entry, cause.into());
            }
            state.entry = Arc::new(entry);
            self.dirty.insert(pool);
        }
    }

    fn close(&mut self, entry: &mut Backend, reason: CloseReason) {
        close(&mut self.signals, entry, reason);
    }

    /// Closes every connection.
    pub(super) fn close_all(&mut self) {
        for (name, pool) in &mut self.pools {
            for state in pool.backends.values_mut() {
                let mut entry = Backend::clone(&state.entry);
                close(&mut self.signals, &mut entry, CloseReason::MemberShutdown);
                state.entry = Arc::new(entry);
            }
            self.dirty.insert(name.clone());
        }
    }

    /// The pools for the next table, with what changed built anew.
    pub(super) fn publish(&mut self) -> Arc<BTreeMap<PoolName, Arc<Pool>>> {
        if self.dirty.is_empty() {
            return self.published.clone();
        }
        let mut pools = BTreeMap::clone(&self.published);
        for name in std::mem::take(&mut self.dirty) {
            match self.pools.get(&name) {
                Some(state) => {
                    let entry = entry(state, pools.get(&name).map(|p| &p.schedule));
                    pools.insert(name, Arc::new(entry))
                }
                None => pools.remove(&name),
            };
        }
        self.published = Arc::new(pools);
        self.published.clone()
    }

    /// Begins the epochs of what the table that was just published closes.
    pub(super) fn signal(&mut self) {
        for (live, epoch) in self.signals.drain(..) {
            live.begin(epoch);
        }
    }
}

fn close(signals: &mut Vec<(Arc<Live>, u32)>, entry: &mut Backend, reason: CloseReason) {
    entry.epoch = next_epoch(entry.epoch, reason);
    signals.push((entry.live.clone(), entry.epoch));
}

fn entry(state: &PoolState, before: Option<&Schedule>) -> Pool {
    let pool = &state.config.pool;
    let backends: Vec<Arc<Backend>> = state.backends.values().map(|b| b.entry.clone()).collect();
    let verdicts = backends.iter().map(|b| (&*b.config, b.verdict));
    let schedule = Schedule::build(&pool.spec, verdicts, before);
    Pool { config: pool.clone(), backends, schedule, turns: state.turns.clone() }
}

type Wanted = Arc<model::Backend>;

/// What is different in `new`: backends as they are now, or `None` for one that is gone. With `all`, also what is not
/// different. Walks both in order, because a pool can have 20 000 backends of which one changed.
fn changes(
    old: &BTreeMap<BackendName, Wanted>,
    new: &BTreeMap<BackendName, Wanted>,
    all: bool,
) -> Vec<(BackendName, Option<Wanted>)> {
    let (mut old, mut new) = (old.values().peekable(), new.values().peekable());
    let mut found = Vec::new();
    while let Some(order) = match (old.peek(), new.peek()) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(was), Some(is)) if Arc::ptr_eq(was, is) => Some(Ordering::Equal),
        (Some(was), Some(is)) => Some(was.name.cmp(&is.name)),
    } {
        let was = old.next_if(|_| order.is_le());
        let is = new.next_if(|_| order.is_ge());
        match (was, is) {
            (Some(was), None) => found.push((was.name.clone(), None)),
            (Some(was), Some(is)) if Arc::ptr_eq(was, is) && !all => {}
            (_, Some(is)) => found.push((is.name.clone(), Some(is.clone()))),
            (None, None) => {}
        }
    }
    found
}
