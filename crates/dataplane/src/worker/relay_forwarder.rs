//! The forwarder in user space: workers that accept, and relay bytes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;

use super::command::WorkerCommand;
use super::liveness::WorkerLiveness;
use super::open_sockets::OpenSockets;
use crate::accept::bind::BindError;
use crate::accept::listener::Listener;
use crate::connection::connection_table::{self, ConnectionTable};
use crate::connection::relay_state::RelayState;
use crate::forwarder::{Completion, Connections, Forwarder, OpenMode, Publication};
use crate::machine::budget::BudgetUse;
use crate::machine::threads::ThreadEnds;
use crate::observe::close_reason::CloseReason;
use crate::observe::counters::TrafficCounts;
use crate::observe::snapshot::ConnectionSnapshot;
use crate::relay::count_pipes;
use crate::relay::reactor;
use crate::table::Table;
use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::pool::Pool;
use crate::upstream::queue::SlotSource;

/// What is seen of workers from one look to the next.
///
/// Nothing is seen of file descriptors, queues and limits: what clients can use up is load, and load that moved virtual IPs
/// would follow them.
#[derive(Debug)]
pub(crate) struct WorkerWatch {
    workers: Vec<WorkerLiveness>,
}

impl WorkerWatch {
    /// Watches the workers that get these commands.
    pub(crate) fn new(workers: &[mpsc::UnboundedSender<WorkerCommand>]) -> Self {
        let now = Instant::now();
        Self { workers: workers.iter().map(|commands| WorkerLiveness::new(commands, now)).collect() }
    }

    /// Workers that do not run.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<String> {
        let silent = self.workers.iter_mut().enumerate().filter_map(|(number, worker)| {
            let seconds = worker.look(now)?.as_secs_f64();
            Some(format!("worker {number} has not run for {seconds:.1} s"))
        });
        silent.collect()
    }
}

/// All workers of this member.
#[derive(Debug)]
pub(crate) struct RelayForwarder {
    state: Arc<RelayState>,
    /// The connections of each worker.
    tables: Vec<Arc<ConnectionTable>>,
    sockets: Mutex<OpenSockets>,
    watch: Mutex<WorkerWatch>,
}

/// Starts the thread of worker `number`.
fn start_worker(
    number: usize,
    connections: Arc<ConnectionTable>,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    ended: &ThreadEnds,
) -> io::Result<JoinHandle<()>> {
    reactor::spawn(format!("trestle-data-{number}"), ended, || {
        count_pipes(connections.shared.budget.clone());
        super::run(connections, commands)
    })
}

impl RelayForwarder {
    /// Starts so many workers, and returns their threads.
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub(crate) fn start(
        state: Arc<RelayState>,
        workers: usize,
        ended: &ThreadEnds,
    ) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (mut commands, mut tables, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..workers {
            let (sender, receiver) = mpsc::unbounded_channel();
            let table = Arc::new(ConnectionTable::new(state.clone()));
            threads.push(start_worker(number, table.clone(), receiver, ended)?);
            commands.push(sender);
            tables.push(table);
        }
        let watch = Mutex::new(WorkerWatch::new(&commands));
        let sockets = Mutex::new(OpenSockets::new(commands, state.clone()));
        Ok((Self { state, tables, sockets, watch }, threads))
    }

    fn sockets(&self) -> MutexGuard<'_, OpenSockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the queues of pools that are new or changed their pools, whose slots those who wait then get; those of pools that are
/// gone get none.
fn renew_queues(before: &Table, table: &Table) {
    if Arc::ptr_eq(&before.pools, &table.pools) {
        return;
    }
    for (name, pool) in &*table.pools {
        if before.pools.get(name).is_none_or(|was| !Arc::ptr_eq(was, pool)) {
            let source: Weak<dyn SlotSource> = Arc::<Pool>::downgrade(pool);
            pool.queue.set_source(Some(source));
        }
    }
    for (name, gone) in &*before.pools {
        if table.pools.get(name).is_none_or(|pool| !Arc::ptr_eq(&pool.queue, &gone.queue)) {
            gone.queue.set_source(None);
        }
    }
}

impl Forwarder for RelayForwarder {
    fn begin_opening(&self) {
        self.sockets().begin();
    }

    fn is_open(&self, address: SocketAddr) -> bool {
        self.sockets().is_open(address)
    }

    fn open(&self, address: SocketAddr, opening: OpenMode) -> Result<(), BindError> {
        self.sockets().open(address, opening)
    }

    fn has_put_off(&self) -> bool {
        self.sockets().has_put_off()
    }

    fn close_except(&self, keep: &dyn Fn(SocketAddr) -> bool) -> Completion<'static> {
        Box::pin(self.sockets().close_except(keep))
    }

    fn accept_opened(&self) {
        self.sockets().hand_over();
    }

    fn publish(&self, publication: Publication) {
        let Publication { table, epochs, dead } = publication;
        let before = self.state.table.swap(table.clone());
        let mut backends = Vec::new();
        for (backend, epoch) in epochs {
            backend.begin(epoch);
            backends.push(backend);
        }
        connection_table::wake(&self.tables, &backends);
        connection_table::close_at(&self.tables, &dead, CloseReason::BackendDown);
        renew_queues(&before, &table);
    }

    fn connections(&self) -> Vec<ConnectionSnapshot> {
        connection_table::list(&self.tables)
    }

    fn connections_of(
        &self,
        backends: &[Arc<BackendRuntime>],
    ) -> BTreeMap<*const BackendRuntime, Connections> {
        connection_table::of(&self.tables, backends)
    }

    fn close(&self, ids: &[u64], reason: CloseReason) -> usize {
        connection_table::close(&self.tables, ids, reason)
    }

    fn listener_counts(&self, listener: &Listener) -> TrafficCounts {
        listener.counters.read()
    }

    fn backend_counts(&self, backend: &Backend) -> TrafficCounts {
        backend.runtime.counters.read()
    }

    fn open_connections(&self) -> usize {
        self.state.open()
    }

    fn take_cut(&self) -> usize {
        self.state.take_cut()
    }

    fn until_idle(&self) -> Completion<'_> {
        Box::pin(self.state.idle())
    }

    fn descriptors(&self) -> BudgetUse {
        self.state.budget.read()
    }

    fn stalled(&self, now: Instant) -> Vec<String> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).look(now)
    }

    fn stop(&self) {
        // Workers end when nobody can give them commands any more.
        self.sockets().forget_workers();
    }
}

#[cfg(test)]
mod tests;
