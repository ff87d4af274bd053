//! The data plane as the rest of the program holds it: starting, asking, stopping.

pub(crate) mod fitness;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use trestle_model::{ClusterState, PoolName, Revision};

use crate::accept::listener::Listener;
use crate::check::command::World;
use crate::check::{self, LocalCheck, LocalRun};
use crate::connection::relay_state::RelayState;
use crate::forwarder::Forwarder;
use crate::machine::budget::BudgetUse;
use crate::machine::shortage::{ShortageKind, Shortages};
use crate::machine::threads::{ThreadEnds, ThreadLiveness};
use crate::observe::access_log::AccessLogQueue;
use crate::observe::check_result::CheckResult;
use crate::observe::close_reason::CloseReason;
use crate::observe::counters::TrafficCounts;
use crate::observe::snapshot::ConnectionSnapshot;
use crate::plane::fitness::AcceptFault;
use crate::reconcile::{ReconcileCommand, Reconciler};
use crate::relay::reactor;
use crate::resolve;
use crate::settings::DataPlaneSettings;
use crate::table::Table;
use crate::upstream::backend::Backend;
use crate::upstream::loop_guard::LoopGuard;
use crate::worker::relay_forwarder::RelayForwarder;

/// What a forwarder shares with the rest of the data plane.
#[derive(Debug)]
pub(crate) struct Common {
    /// The table to begin with.
    pub(crate) table: Arc<Table>,
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) access_log: Option<Arc<AccessLogQueue>>,
}

/// How long connections get to notice that they are closed by force, before their threads end anyway.
const FORCED_CLOSE: Duration = Duration::from_secs(1);

/// A running data plane. Dropping it ends its threads and with them all connections.
#[derive(Debug)]
pub struct DataPlane {
    forwarder: Arc<dyn Forwarder>,
    table: Arc<ArcSwap<Table>>,
    shortages: Arc<Shortages>,
    access_log: Option<Arc<AccessLogQueue>>,
    in_force: watch::Receiver<Revision>,
    commands: Mutex<Option<mpsc::UnboundedSender<ReconcileCommand>>>,
    local_checks: mpsc::UnboundedSender<LocalRun>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    ended: ThreadEnds,
    /// The liveness of the threads that exist once.
    liveness: Vec<Arc<ThreadLiveness>>,
}

/// The threads of a data plane while they are started.
struct Threads {
    ended: ThreadEnds,
    handles: Vec<JoinHandle<()>>,
    liveness: Vec<Arc<ThreadLiveness>>,
}

impl Threads {
    /// The sign of life of a thread that is about to be started.
    fn sign(&mut self, name: &str) -> Arc<ThreadLiveness> {
        let sign = Arc::new(ThreadLiveness::new(name.to_owned()));
        self.liveness.push(sign.clone());
        sign
    }

    /// Starts a thread for `body`, with a runtime of its own.
    fn spawn(&mut self, name: &str, body: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (sign, watched, ended) = (self.sign(name), self.ended.thread(name), self.ended.clone());
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let _watched = watched;
            ended.install();
            runtime.block_on(sign.during(body));
        });
        self.handles.push(thread?);
        Ok(())
    }
}

impl DataPlane {
    /// Starts the threads, which from now on follow `target`.
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub fn start(
        settings: DataPlaneSettings,
        target: watch::Receiver<Arc<ClusterState>>,
    ) -> io::Result<Self> {
        Self::start_with(settings, target, |settings, common, ended| {
            let Common { table, shortages, access_log } = common;
            let (source, descriptors) = (settings.source.clone(), settings.descriptors);
            let state = RelayState::new(table, source, descriptors, shortages, access_log);
            let (relay, threads) = RelayForwarder::start(Arc::new(state), settings.workers.get(), ended)?;
            Ok((Arc::new(relay), threads))
        })
    }

    /// As [`DataPlane::start`], with the forwarder and the threads that `forward` starts.
    pub(crate) fn start_with(
        settings: DataPlaneSettings,
        target: watch::Receiver<Arc<ClusterState>>,
        forward: impl FnOnce(
            &DataPlaneSettings,
            Common,
            &ThreadEnds,
        ) -> io::Result<(Arc<dyn Forwarder>, Vec<JoinHandle<()>>)>,
    ) -> io::Result<Self> {
        let ended = ThreadEnds::default();
        let log = settings.access_log.clone().map(|log| AccessLogQueue::start(log, &ended)).transpose()?;
        let (access_log, shortages) = (log.map(Arc::new), Arc::<Shortages>::default());
        // What this member knows by itself holds from the first check on.
        let loop_guard =
            LoopGuard::new(&ClusterState::default(), [], settings.data_address, &settings.targets());
        let first = Arc::new(Table { loop_guard: Arc::new(loop_guard), ..Table::default() });
        let table = Arc::new(ArcSwap::new(first.clone()));
        let common = Common { table: first, shortages: shortages.clone(), access_log: access_log.clone() };
        let (forwarder, handles) = forward(&settings, common, &ended)?;
        let mut threads = Threads { ended: ended.clone(), handles, liveness: Vec::new() };
        let (reports, reported) = mpsc::unbounded_channel();
        let (prober, checks) = mpsc::unbounded_channel();
        let (local_checks, local) = mpsc::unbounded_channel();
        let (resolver, questions) = mpsc::unbounded_channel();
        let world =
            World { table: table.clone(), source: settings.source.clone(), shortages: shortages.clone() };
        let (sign, doubts) = (threads.sign("trestle-probe"), resolver.clone());
        let probe = move || sign.during(check::run(world, doubts, checks, local, reports));
        threads.handles.push(reactor::spawn("trestle-probe".to_owned(), &ended, probe)?);
        let (revision, in_force) = watch::channel(0);
        let (sender, commands) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::unbounded_channel();
        let files = (settings.resolv_conf.clone(), settings.hosts.clone());
        threads.spawn("trestle-names", resolve::run(files.0, files.1, questions, answers))?;
        let reconciler =
            Reconciler::new(settings, forwarder.clone(), table.clone(), prober, resolver, revision);
        threads.spawn("trestle-table", reconciler.run(target, commands, reported, answered))?;
        let Threads { handles, liveness, .. } = threads;
        let (commands, threads) = (Mutex::new(Some(sender)), Mutex::new(handles));
        Ok(Self {
            forwarder,
            table,
            shortages,
            access_log,
            in_force,
            commands,
            local_checks,
            threads,
            ended,
            liveness,
        })
    }

    /// Resolves when a thread, or a task that nobody else would miss, has ended although the data plane was not told to,
    /// with its name. The process must end then: what it did is done no more.
    pub async fn failed(&self) -> String {
        let first = self.ended.first().await;
        if self.commands.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            std::future::pending::<()>().await;
        }
        first
    }

    /// The threads that have given no sign of life for long, in words. Workers are asked by [`Self::accepting`].
    pub fn silent(&self) -> Vec<String> {
        let words = |sign: &Arc<ThreadLiveness>| {
            Some(format!("{} has given no sign of life for {} s", sign.name, sign.silent()?.as_secs()))
        };
        if self.commands.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Vec::new();
        }
        self.liveness.iter().filter_map(words).collect()
    }

    /// The revision that the table and the listening sockets reflect. An address that cannot be bound does not hold
    /// it up; the table says so.
    pub fn in_force(&self) -> watch::Receiver<Revision> {
        self.in_force.clone()
    }

    /// The table as it is now, for metrics and reports.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Whether an own port of a member is at this address, as far as this member knows.
    pub fn is_own_port(&self, address: SocketAddr) -> bool {
        self.table.load().loop_guard.is_own_port(address)
    }

    /// Connections that are open now, on all workers.
    pub fn open_connections(&self) -> usize {
        self.forwarder.open_connections()
    }

    /// The connections that are open now, in the order of their numbers.
    pub fn connections(&self) -> Vec<ConnectionSnapshot> {
        self.forwarder.connections()
    }

    /// Resets the connections with these numbers, and says how many of them were there. They end as
    /// [`CloseReason::ClosedByOperator`], unless something else was ending them already.
    pub fn close_connections(&self, ids: &[u64]) -> usize {
        self.forwarder.close(ids, CloseReason::ClosedByOperator)
    }

    /// What was counted for a listener up to now.
    pub fn listener_counts(&self, listener: &Listener) -> TrafficCounts {
        self.forwarder.listener_counts(listener)
    }

    /// What was counted for a backend up to now.
    pub fn backend_counts(&self, backend: &Backend) -> TrafficCounts {
        self.forwarder.backend_counts(backend)
    }

    /// File descriptors that the data plane has, and may have.
    pub fn descriptors(&self) -> BudgetUse {
        self.forwarder.descriptors()
    }

    /// What this member itself lacks for connections to backends and for checks, in words, with what helps. What nobody has
    /// met for 10 s, or for two checks, is not in it.
    pub fn shortages(&self) -> Vec<String> {
        self.shortages.current(Instant::now())
    }

    /// How often each kind of shortage was met.
    pub fn shortage_counts(&self) -> impl Iterator<Item = (ShortageKind, u64)> {
        self.shortages.counts().into_iter()
    }

    /// Opens the access log's file anew, so that another program can have renamed it.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Lines that the access log dropped because they could not be written, or not fast enough.
    pub fn access_log_dropped(&self) -> u64 {
        self.access_log.as_ref().map_or(0, |log| log.dropped())
    }

    fn command(&self, command: ReconcileCommand) {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commands) = &*commands {
            // Fails only when the reconciler has ended, which it does only after the sender is gone.
            let _ = commands.send(command);
        }
    }

    /// Closes every listening socket whose address is not a virtual IP's, after accepting what waits there, so that
    /// clients and outer balancers go elsewhere; established connections go on. `false` opens them again. Said again it
    /// changes nothing.
    ///
    /// `within` ends the connections that are left by that time after the sockets were closed first, those of each pool over the
    /// last [part](trestle_model::PoolSpec::close_spread_percent) of it; another time moves the end, and `None` leaves them.
    ///
    /// Wildcards are closed too, through which virtual IPs are reached as well: say `true` only once this member holds
    /// none, and `false` before it claims one, which it does while no other member can.
    pub fn drain(&self, drained: bool, within: Option<Duration>) {
        self.command(ReconcileCommand::Drain { drained, within });
    }

    /// Whether this member accepts connections wherever virtual IPs are reached. Cheap; it judges workers by what it saw
    /// before, so ask at least every second. A lack of file descriptors is load and no fault.
    ///
    /// # Errors
    /// Everything that keeps it from that: a thread that has ended or does not run, an address that is not bound.
    pub fn accepting(&self) -> Result<(), Vec<AcceptFault>> {
        let mut faults: Vec<_> = self.ended_threads().into_iter().map(AcceptFault::of_thread).collect();
        let table = self.table.load();
        faults.extend(fitness::closed(&table));
        let stalled = self.forwarder.stalled(Instant::now());
        faults.extend(stalled.into_iter().map(AcceptFault::of_thread));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Pools that a listener leads to, and none of whose backends is usable here: there are backends that no operator has
    /// drained or disabled, and this member has found all of those unhealthy.
    pub fn dead_pools(&self) -> Vec<PoolName> {
        fitness::dead_pools(&self.table.load())
    }

    /// Makes a check of a service on this machine, on the thread that checks backends. `None` once the data plane has stopped.
    pub async fn check_local(&self, check: &Arc<LocalCheck>) -> Option<CheckResult> {
        let (answer, answered) = oneshot::channel();
        self.local_checks.send(LocalRun { check: check.clone(), answer }).ok()?;
        answered.await.ok()
    }

    /// The names of threads that have ended, in words.
    pub fn ended_threads(&self) -> Vec<String> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_empty() {
            return vec!["the data plane has stopped".to_owned()];
        }
        let ended = threads.iter().filter(|thread| thread.is_finished());
        ended.map(|t| format!("thread {} has ended; see the log", t.thread().name().unwrap_or("?"))).collect()
    }

    /// Ends all connections within `time` from now as [`CloseReason::Drained`], unless a drain ends them sooner: those of each
    /// pool over the last [part](trestle_model::PoolSpec::close_spread_percent) of the time, however they are drained. `None`
    /// lets them go on after all. For a member that was removed, and may be taken in again.
    pub fn end_within(&self, time: Option<Duration>) {
        self.command(ReconcileCommand::EndWithin(time.map(|time| (time, CloseReason::Drained))));
    }

    /// Closes every listening socket, after accepting what waits there. Established connections go on, and the
    /// configuration is followed in everything else.
    pub fn stop_accepting(&self) {
        self.command(ReconcileCommand::StopAccepting { done: None });
    }

    /// Stops accepting, lets connections finish for `grace`, resets those that are left, and ends all threads. Those of each
    /// pool are reset over the last [part](trestle_model::PoolSpec::close_spread_percent) of that time. Returns how many were
    /// reset; a second call does nothing and returns 0.
    pub async fn finish(&self, grace: Duration) -> usize {
        let (done, stopped) = oneshot::channel();
        self.command(ReconcileCommand::StopAccepting { done: Some(done) });
        let _ = stopped.await;
        self.command(ReconcileCommand::EndWithin(Some((grace, CloseReason::MemberShutdown))));
        if timeout(grace, self.forwarder.until_idle()).await.is_err() {
            self.command(ReconcileCommand::CloseAll);
            let _ = timeout(FORCED_CLOSE, self.forwarder.until_idle()).await;
        }
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let log = self.access_log.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let joined = threads.into_iter().map(JoinHandle::join).all(|r| r.is_ok());
            if let Some(log) = &log {
                log.finish();
            }
            joined
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a thread of the data plane ended by a panic; see the log above");
        }
        self.forwarder.take_cut()
    }
}

#[cfg(test)]
pub(crate) mod tests;
