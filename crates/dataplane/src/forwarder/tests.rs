//! A forwarder that forwards nothing and remembers what it was told: whatever the data plane decides and shows goes through the
//! seam.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeSet, VecDeque};
use std::future::ready;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use trestle_model::{
    AdminState, BackendAddress, BackendName, BackendSpec, Bind, CheckKind, ClusterState, Command,
    HealthCheck, ListenerName, ListenerSpec, PoolName, PoolSpec,
};

use super::*;
use crate::observe::snapshot::ConnectionState;
use crate::plane::DataPlane;
use crate::settings::DataPlaneSettings;
use crate::settings::tests::settings;

const DEADLINE: Duration = Duration::from_secs(20);

/// What the forwarder was told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Opened(SocketAddr),
    Accepting,
    Closed(SocketAddr),
    Published(u64),
    Epoch(CloseReason),
    Stopped,
}

/// A connection that this forwarder says is open.
#[derive(Debug, Default)]
struct Flow {
    ended: Mutex<Option<CloseReason>>,
}

impl OpenConnection for Flow {
    fn end(&self, reason: CloseReason) -> bool {
        let mut ended = self.ended.lock().unwrap();
        ended.replace(reason).is_none()
    }
}

#[derive(Debug, Default)]
struct Recorder {
    told: Mutex<VecDeque<Told>>,
    open: Mutex<BTreeSet<SocketAddr>>,
    flow: Arc<Flow>,
}

impl Recorder {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push_back(told);
    }

    /// What was told since this was last asked.
    fn take(&self) -> Vec<Told> {
        self.told.lock().unwrap().drain(..).collect()
    }
}

/// An address that this forwarder cannot open.
const TAKEN: u16 = 81;

impl Forwarder for Recorder {
    fn begin_opening(&self) {}

    fn is_open(&self, address: SocketAddr) -> bool {
        self.open.lock().unwrap().contains(&address)
    }

    fn open(&self, address: SocketAddr, _opening: OpenMode) -> Result<(), BindError> {
        if address.port() == TAKEN {
            return Err(BindError::InUse);
        }
        self.open.lock().unwrap().insert(address);
        self.note(Told::Opened(address));
        Ok(())
    }

    fn has_put_off(&self) -> bool {
        false
    }

    fn close_except(&self, keep: &dyn Fn(SocketAddr) -> bool) -> Completion<'static> {
        self.open.lock().unwrap().retain(|address| {
            let keep = keep(*address);
            if !keep {
                self.note(Told::Closed(*address));
            }
            keep
        });
        Box::pin(ready(()))
    }

    fn accept_opened(&self) {
        self.note(Told::Accepting);
    }

    fn publish(&self, publication: Publication) {
        self.note(Told::Published(publication.table.revision));
        for (backend, epoch) in publication.epochs {
            backend.begin(epoch);
            self.note(Told::Epoch(backend.closed(0).unwrap()));
        }
    }

    fn connections(&self) -> Vec<ConnectionSnapshot> {
        vec![ConnectionSnapshot {
            id: 7,
            client: ([192, 0, 2, 1], 4000).into(),
            listener: ListenerName::parse("front").unwrap(),
            local: ([127, 0, 0, 1], 80).into(),
            pool: None,
            backend: None,
            backend_address: None,
            server_name: None,
            state: ConnectionState::Relaying,
            opened: Instant::now(),
            connect_time: None,
            bytes_in: 1,
            bytes_out: 2,
        }]
    }

    fn connections_of(
        &self,
        backends: &[Arc<BackendRuntime>],
    ) -> BTreeMap<*const BackendRuntime, Connections> {
        let flow: Weak<dyn OpenConnection> = Arc::<Flow>::downgrade(&self.flow);
        backends.iter().map(|backend| (Arc::as_ptr(backend), vec![(7, flow.clone())])).collect()
    }

    fn close(&self, ids: &[u64], reason: CloseReason) -> usize {
        usize::from(ids.contains(&7) && self.flow.end(reason))
    }

    fn listener_counts(&self, _listener: &Listener) -> TrafficCounts {
        TrafficCounts { connections: 70, ..TrafficCounts::default() }
    }

    fn backend_counts(&self, _backend: &Backend) -> TrafficCounts {
        TrafficCounts { bytes_in: 700, ..TrafficCounts::default() }
    }

    fn open_connections(&self) -> usize {
        1
    }

    fn take_cut(&self) -> usize {
        3
    }

    fn until_idle(&self) -> Completion<'_> {
        Box::pin(ready(()))
    }

    fn descriptors(&self) -> BudgetUse {
        BudgetUse { used: 0, limit: None, pauses: 0 }
    }

    fn stalled(&self, _now: Instant) -> Vec<String> {
        vec!["the recorder records".to_owned()]
    }

    fn stop(&self) {
        self.note(Told::Stopped);
    }
}

/// A data plane over a recorder, and its configuration.
struct Bed {
    plane: DataPlane,
    recorder: Arc<Recorder>,
    target: watch::Sender<Arc<ClusterState>>,
    state: ClusterState,
    index: u64,
}

impl Bed {
    fn new() -> Self {
        let (target, followed) = watch::channel(Arc::default());
        let recorder = Arc::new(Recorder::default());
        let forwarder = recorder.clone();
        // Timers do not repeat what the tests look at.
        let settings = DataPlaneSettings { drift_interval: Duration::from_secs(3600), ..settings() };
        let plane = DataPlane::start_with(settings, followed, |_, _, _| Ok((forwarder, Vec::new()))).unwrap();
        Self { plane, recorder, target, state: ClusterState::default(), index: 0 }
    }

    /// Applies commands, and waits until they are in force.
    async fn apply(&mut self, commands: impl IntoIterator<Item = Command>) -> u64 {
        for command in commands {
            self.index += 1;
            self.state.apply(self.index, &command).unwrap();
        }
        self.target.send_replace(Arc::new(self.state.clone()));
        let mut in_force = self.plane.in_force();
        timeout(DEADLINE, in_force.wait_for(|revision| *revision == self.index)).await.unwrap().unwrap();
        self.index
    }
}

fn pool_name() -> PoolName {
    PoolName::parse("p").unwrap()
}

fn backend_name() -> BackendName {
    BackendName::parse("b").unwrap()
}

/// A pool without checks, its backend, and a listener that leads there from these addresses.
fn front(binds: &[&str]) -> [Command; 3] {
    let health = HealthCheck { kind: CheckKind::None, ..HealthCheck::default() };
    let spec = PoolSpec { health, close_spread_percent: 50, ..PoolSpec::default() };
    let backend = BackendSpec::at(BackendAddress::parse("127.0.0.1:9").unwrap());
    let binds: Vec<_> = binds.iter().map(|bind| Bind::parse(bind).unwrap()).collect();
    let listener = ListenerSpec::new(binds, pool_name());
    [
        Command::create((pool_name(), spec)),
        Command::create((pool_name(), backend_name(), backend)),
        Command::create((ListenerName::parse("front").unwrap(), listener)),
    ]
}

/// What is told between the last revision in force and this one.
fn up_to(told: Vec<Told>, revision: u64) -> Vec<Told> {
    let from = told.iter().position(|told| matches!(told, Told::Published(at) if *at == revision)).unwrap();
    // What comes before the table belongs to it.
    let before = told[..from].iter().rev().take_while(|told| !matches!(told, Told::Accepting));
    let before = before.cloned().collect::<Vec<_>>().into_iter().rev();
    before.chain(told[from..].iter().cloned()).collect()
}

#[tokio::test]
async fn addresses_open_before_the_table_has_them_and_accept_after() {
    let mut bed = Bed::new();
    let revision = bed.apply(front(&["127.0.0.1:80", "127.0.0.1:81"])).await;
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    assert_eq!(
        up_to(bed.recorder.take(), revision),
        [Told::Opened(address), Told::Published(revision), Told::Accepting]
    );
    let table = bed.plane.table();
    let listener = &table.listeners[&ListenerName::parse("front").unwrap()];
    assert_eq!(listener.bound().collect::<Vec<_>>(), [address]);
    let failed: Vec<_> = listener.failed().map(|(address, error)| (address.port(), error.clone())).collect();
    assert_eq!(failed, [(TAKEN, BindError::InUse)]);
    let gone = Command::delete(listener.config.name.clone());
    let revision = bed.apply([gone]).await;
    assert_eq!(
        up_to(bed.recorder.take(), revision),
        [Told::Closed(address), Told::Published(revision), Told::Accepting]
    );
}

#[tokio::test]
async fn lists_counts_and_faults_are_the_forwarders() {
    let mut bed = Bed::new();
    bed.apply(front(&["127.0.0.1:80"])).await;
    let (plane, table) = (&bed.plane, bed.plane.table());
    assert_eq!(plane.connections().iter().map(|connection| connection.id).collect::<Vec<_>>(), [7]);
    assert_eq!((plane.close_connections(&[1, 7]), plane.close_connections(&[7])), (1, 0));
    assert_eq!(*bed.recorder.flow.ended.lock().unwrap(), Some(CloseReason::ClosedByOperator));
    let listener = &table.listeners[&ListenerName::parse("front").unwrap()];
    let backend = table.pools[&pool_name()].backend(&backend_name()).unwrap();
    assert_eq!(plane.listener_counts(listener).connections, 70);
    assert_eq!((plane.backend_counts(backend).bytes_in, plane.open_connections()), (700, 1));
    let faults: Vec<_> = plane.accepting().unwrap_err().into_iter().map(|fault| fault.why).collect();
    assert_eq!(faults, ["the recorder records"]);
    assert_eq!(plane.finish(Duration::ZERO).await, 3);
    assert_eq!(bed.recorder.take().last(), Some(&Told::Stopped));
}

#[tokio::test]
async fn connections_of_a_drained_backend_end_through_the_forwarder() {
    let mut bed = Bed::new();
    bed.apply(front(&["127.0.0.1:80"])).await;
    bed.recorder.take();
    let to = |admin_state: AdminState| Command::put((pool_name(), backend_name(), admin_state));
    let start = Instant::now();
    bed.apply([to(AdminState::Draining { timeout: Some(Duration::from_millis(300)) })]).await;
    let drained = Told::Epoch(CloseReason::Drained);
    while !bed.recorder.told.lock().unwrap().contains(&drained) {
        assert!(start.elapsed() < DEADLINE, "what is left is never closed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(
        *bed.recorder.flow.ended.lock().unwrap(),
        Some(CloseReason::Drained),
        "each has a moment of its own"
    );
    bed.recorder.take();
    let revision = bed.apply([to(AdminState::Disabled)]).await;
    let told = up_to(bed.recorder.take(), revision);
    assert_eq!(told[..2], [Told::Published(revision), Told::Epoch(CloseReason::BackendDisabled)]);
    drop(bed.plane);
    while bed.recorder.told.lock().unwrap().back() != Some(&Told::Stopped) {
        assert!(start.elapsed() < DEADLINE, "it is never stopped");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
