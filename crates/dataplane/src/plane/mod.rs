//! Starting and stopping the data plane; what the rest of the program holds of it.

pub(crate) mod fitness;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use trestle_model::{ClusterState, PoolName, Revision};

use crate::accept::client_counts::ClientCounts;
use crate::check::{self, LocalCheck, LocalRun};
use crate::connection::connection_table::{self, ConnectionTable};
use crate::machine::budget::{Budget, BudgetUse};
use crate::machine::shortage::{ShortageKind, Shortages};
use crate::machine::threads::{ThreadEnds, ThreadLiveness};
use crate::observe::access_log::{AccessLog, AccessLogQueue};
use crate::observe::check_result::CheckResult;
use crate::observe::close_reason::CloseReason;
use crate::observe::event::OnEvent;
use crate::observe::snapshot::Connection;
use crate::plane::fitness::{self, AcceptFault, WorkerWatch};
use crate::reconcile::{ReconcileCommand, Reconciler};
use crate::relay::count_pipes;
use crate::relay::reactor;
use crate::resolve;
use crate::table::Table;
use crate::upstream::loop_guard::{LoopGuard, OwnTargets};
use crate::upstream::source::Sources;
use crate::worker;

/// How long connections get to notice that they are closed by force, before their threads end anyway.
const FORCED_CLOSE: Duration = Duration::from_secs(1);

/// A running data plane. Dropping it ends its threads and with them all connections.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<SharedState>,
    /// The connections of each worker.
    connection_tables: Vec<Arc<ConnectionTable>>,
    in_force: watch::Receiver<Revision>,
    commands: Mutex<Option<mpsc::UnboundedSender<ReconcileCommand>>>,
    local_checks: mpsc::UnboundedSender<LocalRun>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    watch: Mutex<WorkerWatch>,
    ended: ThreadEnds,
    /// Of the threads that there is one of each.
    liveness: Vec<Arc<ThreadLiveness>>,
}

/// Starts a thread with a runtime of its own, where nothing else runs, and a [reactor].
fn on_reactor<F: Future<Output = ()>>(
    name: String,
    ended: &ThreadEnds,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (runtime, source) = reactor::runtime()?;
    let (ended, watched) = (ended.clone(), ended.thread(&name));
    Builder::new().name(name).spawn(move || {
        let _watched = watched;
        ended.install();
        source.install();
        runtime.block_on(start());
    })
}

/// Starts the thread of worker `number`.
fn worker(
    number: usize,
    connections: Arc<ConnectionTable>,
    commands: mpsc::UnboundedReceiver<worker::command::WorkerCommand>,
    ended: &ThreadEnds,
) -> io::Result<JoinHandle<()>> {
    on_reactor(format!("trestle-data-{number}"), ended, || {
        count_pipes(connections.shared.budget.clone());
        worker::run(connections, commands)
    })
}

impl DataPlane {
    /// Starts the threads, which from now on follow `target`.
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub fn start(settings: Settings, target: watch::Receiver<Arc<ClusterState>>) -> io::Result<Self> {
        let (ended, mut liveness, mut threads) = (ThreadEnds::default(), Vec::new(), Vec::new());
        let shared = Arc::new(SharedState::new(&settings, &ended)?);
        let (mut workers, mut connection_tables) = (Vec::new(), Vec::new());
        for number in 0..settings.workers.get() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let connections = Arc::new(ConnectionTable::new(shared.clone()));
            threads.push(worker(number, connections.clone(), receiver, &ended)?);
            workers.push(sender);
            connection_tables.push(connections);
        }
        let (reports, reported) = mpsc::unbounded_channel();
        let (prober, checks) = mpsc::unbounded_channel();
        let (local_checks, local) = mpsc::unbounded_channel();
        let (resolver, questions) = mpsc::unbounded_channel();
        let (probed, doubts) = (shared.clone(), resolver.clone());
        let sign = Arc::new(ThreadLiveness::new("trestle-probe".to_owned()));
        liveness.push(sign.clone());
        let probe = move || sign.during(check::run(probed, doubts, checks, local, reports));
        threads.push(on_reactor("trestle-probe".to_owned(), &ended, probe)?);
        let mut spawn = |name: String, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (sign, watched) = (Arc::new(ThreadLiveness::new(name.clone())), ended.thread(&name));
            liveness.push(sign.clone());
            let ended = ended.clone();
            let thread = Builder::new().name(name).spawn(move || {
                let _watched = watched;
                ended.install();
                runtime.block_on(sign.during(future));
            });
            threads.push(thread?);
            io::Result::Ok(())
        };
        let (revision, in_force) = watch::channel(0);
        let (sender, commands) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::unbounded_channel();
        let files = (settings.resolv_conf.clone(), settings.hosts.clone());
        spawn("trestle-names".to_owned(), Box::pin(resolve::run(files.0, files.1, questions, answers)))?;
        let watch = Mutex::new(WorkerWatch::new(&workers));
        let reconciler = Reconciler::new(
            settings,
            shared.clone(),
            connection_tables.clone(),
            workers,
            prober,
            resolver,
            revision,
        );
        spawn("trestle-table".to_owned(), Box::pin(reconciler.run(target, commands, reported, answered)))?;
        let (commands, threads) = (Mutex::new(Some(sender)), Mutex::new(threads));
        Ok(Self {
            shared,
            connection_tables,
            in_force,
            commands,
            local_checks,
            threads,
            watch,
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
        self.shared.table.load_full()
    }

    /// Whether an own port of a member is at this address, as far as this member knows.
    pub fn is_own_port(&self, address: SocketAddr) -> bool {
        self.shared.table.load().guard.is_own_port(address)
    }

    /// Connections that are open now, on all workers.
    pub fn open_connections(&self) -> usize {
        self.shared.open()
    }

    /// The connections that are open now, in the order of their numbers.
    pub fn connections(&self) -> Vec<Connection> {
        connection_table::list(&self.connection_tables)
    }

    /// Resets the connections with these numbers, and says how many of them were there. They end as
    /// [`CloseReason::ClosedByOperator`], unless something else was ending them already.
    pub fn close_connections(&self, ids: &[u64]) -> usize {
        connection_table::close(&self.connection_tables, ids, CloseReason::ClosedByOperator)
    }

    /// File descriptors that the data plane has, and may have.
    pub fn descriptors(&self) -> BudgetUse {
        self.shared.budget.read()
    }

    /// What this member itself lacks for connections to backends and for checks, in words, with what helps. What nobody has
    /// met for 10 s, or for two checks, is not in it.
    pub fn shortages(&self) -> Vec<String> {
        self.shared.shortages.current(Instant::now())
    }

    /// How often each kind of shortage was met.
    pub fn shortage_counts(&self) -> impl Iterator<Item = (ShortageKind, u64)> {
        self.shared.shortages.counts().into_iter()
    }

    /// Opens the access log's file anew, so that another program can have renamed it.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.shared.access_log {
            log.reopen();
        }
    }

    /// Lines that the access log dropped because they could not be written, or not fast enough.
    pub fn access_log_dropped(&self) -> u64 {
        self.shared.access_log.as_ref().map_or(0, AccessLogQueue::dropped)
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
        let table = self.shared.table.load();
        faults.extend(fitness::closed(&table));
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        faults.extend(watch.look(Instant::now()));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Pools that a listener leads to, and none of whose backends is usable here: there are backends that no operator has
    /// drained or disabled, and this member has found all of those unhealthy.
    pub fn dead_pools(&self) -> Vec<PoolName> {
        fitness::dead_pools(&self.shared.table.load())
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
        if timeout(grace, self.shared.idle()).await.is_err() {
            self.command(ReconcileCommand::CloseAll);
            let _ = timeout(FORCED_CLOSE, self.shared.idle()).await;
        }
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let shared = self.shared.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let joined = threads.into_iter().map(JoinHandle::join).all(|r| r.is_ok());
            if let Some(log) = &shared.access_log {
                log.finish();
            }
            joined
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a thread of the data plane ended by a panic; see the log above");
        }
        self.shared.take_cut()
    }
}

#[cfg(test)]
pub(crate) mod tests;
