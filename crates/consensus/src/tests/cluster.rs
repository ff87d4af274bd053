//! Several members in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};
use trestle_api::peer::peer_service_server::PeerServiceServer;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::transport::PlainDial;
use trestle_model::defaults::FEATURE_LEVEL_FIRST;
use trestle_model::{
    ClusterId, Command, HostPort, MemberId, MemberName, MemberSpec, PoolName, PoolSpec, Proposal,
    Request as Named, RequestId,
};

use super::peer::Peer;
use super::proxy::Proxy;
use super::vote_guard::TestVoteGuard;
use crate::{Consensus, ConsensusSettings, RaftState, Timing};

/// Slower than the default, so that a busy test machine does not elect by accident.
pub(super) const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(80),
    election_min: Duration::from_millis(300),
    election_max: Duration::from_millis(600),
};

/// How long anything may take before a test gives up on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    consensus: Consensus,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

pub(super) struct Place {
    pub(super) spec: MemberSpec,
    vote_guard: Arc<TestVoteGuard>,
    dir: TempDir,
    address: SocketAddr,
    running: Option<Running>,
}

/// A process whose member goes on in another one: its memory and its disk are as they were.
pub(super) struct Paused {
    running: Running,
    dir: TempDir,
    address: SocketAddr,
    ways: Vec<((usize, usize), Proxy)>,
}

/// Members by number, running or not, with a way from each to each that can be cut.
pub(super) struct Cluster {
    timing: Timing,
    places: Vec<Place>,
    ways: BTreeMap<(usize, usize), Proxy>,
    /// Members call one another directly, and no way can be cut.
    direct: bool,
}

/// The header by which a caller of these tests says which member it has proved to be.
pub(super) const PROVED: &str = "proved-member";

/// Leaves with each call who has made it, as a member's port does.
fn caller() -> InterceptorLayer<impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone> {
    InterceptorLayer::new(|mut request: Request<()>| {
        let proved = request.metadata().get(PROVED).and_then(|id| id.to_str().ok()?.parse().ok());
        let caller = proved.map_or(PeerCaller::Unproven, |id| PeerCaller::Member(MemberId(id)));
        request.extensions_mut().insert(caller);
        Ok(request)
    })
}

pub(super) fn host_port(address: SocketAddr) -> HostPort {
    HostPort::from(address)
}

pub(super) fn create_pool(name: &str) -> Command {
    Command::create((PoolName::parse(name).unwrap(), PoolSpec::default()))
}

pub(super) fn delete_pool(name: &str) -> Command {
    Command::delete(PoolName::parse(name).unwrap())
}

pub(super) fn proposal(command: Command) -> Proposal {
    Proposal { origin: None, request: None, command }
}

pub(super) fn named(id: &str, command: Command) -> Proposal {
    Proposal {
        origin: None,
        request: Some(Named { id: RequestId::parse(id).unwrap(), fingerprint: 7 }),
        command,
    }
}

/// A listener for progress that nobody looks at.
pub(super) fn unwatched() -> mpsc::Sender<crate::MembershipProgress> {
    let (sender, mut receiver) = mpsc::channel(16);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    sender
}

/// Waits for a condition.
pub(super) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address that stays a member's own over restarts: below the ports that the kernel gives to outgoing connections,
/// which start at 32768, so that none of those takes it while the member is down.
async fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test processes that run side by side start at different ports.
        let port = 20_000 + (std::process::id() * 37 + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
}

/// Copies files, with the directories that they are in.
pub(crate) fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Cluster {
    pub(super) fn empty(timing: Timing) -> Self {
        Self { timing, places: Vec::new(), ways: BTreeMap::new(), direct: false }
    }

    /// `count` members, all of them voters; the first one founded the cluster.
    pub(super) async fn of(count: usize) -> Self {
        Self::with_timing(count, TIMING).await
    }

    pub(super) async fn with_timing(count: usize, timing: Timing) -> Self {
        Self::empty(timing).filled(count).await
    }

    /// Without the detour over proxies, for measurements.
    pub(super) async fn direct(count: usize, timing: Timing) -> Self {
        Self { direct: true, ..Self::empty(timing) }.filled(count).await
    }

    async fn filled(self, count: usize) -> Self {
        let mut cluster = self;
        cluster.place().await;
        cluster.found().await;
        for _ in 1..count {
            let new = cluster.place().await;
            cluster.join(new).await;
        }
        cluster
    }

    pub(super) async fn found(&self) {
        let cluster_id = ClusterId::parse(&"5a".repeat(16)).unwrap();
        self.at(0).bootstrap(cluster_id, self.spec(0), Box::new(|_| Ok(None))).await.unwrap();
    }

    /// Adds member `new` through the leader and makes it a voter.
    pub(super) async fn join(&self, new: usize) -> MemberId {
        let leader = self.leader().await;
        let member = self.at(leader).add(self.spec(new), None, &unwatched()).await.unwrap();
        self.at(leader).promote(member.id, &unwatched()).await.unwrap();
        member.id
    }

    /// A new empty member, running.
    pub(super) async fn place(&mut self) -> usize {
        let address = free_address().await;
        let new = self.places.len();
        let name = MemberName::parse(&format!("m{new}")).unwrap();
        let spec = MemberSpec {
            name,
            peer_address: host_port(address),
            admin_address: host_port(address),
            feature_level_max: FEATURE_LEVEL_FIRST,
        };
        for old in (0..new).filter(|_| !self.direct) {
            self.ways.insert((old, new), Proxy::to(address).await);
            self.ways.insert((new, old), Proxy::to(self.places[old].address).await);
        }
        let (vote_guard, dir) = (Arc::default(), TempDir::new().unwrap());
        self.places.push(Place { spec, vote_guard, dir, address, running: None });
        self.detour();
        self.start(new).await;
        new
    }

    /// What the member is started with.
    pub(super) fn settings(&self, at: usize) -> ConsensusSettings {
        let place = &self.places[at];
        ConsensusSettings {
            data_dir: place.dir.path().to_owned(),
            name: place.spec.name.clone(),
            peer_address: place.spec.peer_address.clone(),
            start: 1,
            timing: self.timing,
            feature_level_max: place.spec.feature_level_max,
            vote_guard: place.vote_guard.clone(),
            dial: Arc::new(PlainDial),
        }
    }

    /// Opens the member's directory and its peer port, without starting Raft.
    pub(super) async fn open(&mut self, at: usize) {
        let consensus = Consensus::open(self.settings(at)).await.unwrap();
        let place = &mut self.places[at];
        let (stop, stopped) = oneshot::channel();
        let (raft, peer) = (consensus.raft_service(), PeerServiceServer::new(Peer(consensus.clone())));
        let router = consensus.peer_server().layer(caller()).add_service(raft).add_service(peer);
        let address = place.address;
        let (bound, is_bound) = oneshot::channel();
        let server = consensus.runtime().spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            bound.send(()).unwrap();
            let end = async move { drop(stopped.await) };
            tokio::select! {
                served = router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))) => served.unwrap(),
                () = end => {}
            }
        });
        is_bound.await.unwrap();
        place.running = Some(Running { consensus, stop, server });
        self.detour();
    }

    /// Opens the member, and starts Raft if it has an identity.
    pub(super) async fn start(&mut self, at: usize) {
        self.open(at).await;
        if self.at(at).identity().is_some_and(|identity| !identity.removed) {
            self.at(at).start().await.unwrap();
        }
    }

    /// Ends the member as a stopped process would: its connections break and its files are closed.
    pub(super) async fn stop(&mut self, at: usize) {
        let Running { consensus, stop, server } = self.places[at].running.take().unwrap();
        drop(stop);
        server.await.unwrap();
        consensus.shutdown().await;
    }

    /// A copy of the directory of a member that has stopped, or writes nothing.
    pub(super) fn copy(&self, at: usize) -> TempDir {
        let copy = TempDir::new().unwrap();
        copy_all(self.places[at].dir.path(), copy.path());
        copy
    }

    /// Puts a stopped member's directory back to what it was.
    pub(super) fn put_back(&mut self, at: usize, copy: &TempDir) {
        let dir = TempDir::new().unwrap();
        copy_all(copy.path(), dir.path());
        self.places[at].dir = dir;
    }

    /// Cuts a member off as it is, and goes on with its data in another process, which the others find in its place.
    pub(super) async fn fork(&mut self, at: usize) -> Paused {
        self.isolate(at, true);
        until("loss of the leader", || self.at(at).role().borrow().leader.is_none().then_some(())).await;
        let copy = self.copy(at);
        let mut ways = Vec::new();
        for to in (0..self.places.len()).filter(|to| *to != at) {
            let new = Proxy::to(self.places[to].address).await;
            ways.extend(self.ways.insert((at, to), new).map(|way| ((at, to), way)));
        }
        let address = free_address().await;
        let place = &mut self.places[at];
        let paused = Paused {
            running: place.running.take().unwrap(),
            dir: std::mem::replace(&mut place.dir, copy),
            address: std::mem::replace(&mut place.address, address),
            ways,
        };
        self.lead_here(at);
        self.start(at).await;
        paused
    }

    /// Goes on, in place of a process that has stopped, with one whose member went on in it.
    pub(super) fn resume(&mut self, at: usize, paused: Paused) {
        let place = &mut self.places[at];
        assert!(place.running.is_none());
        (place.running, place.dir, place.address) = (Some(paused.running), paused.dir, paused.address);
        self.ways.extend(paused.ways);
        self.lead_here(at);
        self.isolate(at, false);
    }

    /// Leads the others to where the member is now.
    fn lead_here(&self, at: usize) {
        for (_, proxy) in self.ways.iter().filter(|((_, to), _)| *to == at) {
            proxy.lead_to(self.places[at].address);
            proxy.set_open(true);
        }
    }

    fn detour(&self) {
        for ((from, to), proxy) in &self.ways {
            if let Some(running) = &self.places[*from].running {
                let mut detours = running.consensus.core().shared.channels.detours.lock().unwrap();
                detours.insert(self.places[*to].address.to_string(), proxy.address.to_string());
            }
        }
    }

    /// Cuts or restores every way between `at` and the others.
    pub(super) fn isolate(&self, at: usize, cut: bool) {
        for ((from, to), proxy) in &self.ways {
            if *from == at || *to == at {
                proxy.set_open(!cut);
            }
        }
    }

    pub(super) fn at(&self, at: usize) -> &Consensus {
        &self.places[at].running.as_ref().unwrap().consensus
    }

    pub(super) fn vote_guard(&self, at: usize) -> &TestVoteGuard {
        &self.places[at].vote_guard
    }

    pub(super) fn dir(&self, at: usize) -> &std::path::Path {
        self.places[at].dir.path()
    }

    pub(super) fn spec(&self, at: usize) -> MemberSpec {
        self.places[at].spec.clone()
    }

    /// What the member's program knows from its next start on.
    pub(super) fn set_level(&mut self, at: usize, feature_level_max: u32) {
        self.places[at].spec.feature_level_max = feature_level_max;
    }

    pub(super) fn id(&self, at: usize) -> MemberId {
        self.at(at).identity().unwrap().member_id
    }

    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|at| self.places[*at].running.is_some()).collect()
    }

    /// The member that leads, and that all running members know as the leader.
    pub(super) async fn leader(&self) -> usize {
        self.leader_among(&self.running()).await
    }

    /// The member that leads by the word of all of `members`.
    pub(super) async fn leader_among(&self, members: &[usize]) -> usize {
        until("leader", || {
            let of = |at: &usize| self.at(*at).role().borrow().leader.as_ref().map(|(id, _)| *id);
            let members: Vec<_> =
                members.iter().filter(|at| self.at(**at).identity().is_some_and(|i| !i.removed)).collect();
            let leader = of(members.first()?)?;
            let agreed = members.iter().all(|at| of(at) == Some(leader));
            let at = **members.iter().find(|at| self.id(***at) == leader)?;
            (agreed && self.at(at).status().state == RaftState::Leader).then_some(at)
        })
        .await
    }

    /// Waits until all running members have applied what the leader has, and answers their common digest.
    pub(super) async fn converged(&self, members: &[usize]) -> String {
        until("agreement", || {
            let views: Vec<_> = members.iter().map(|at| self.at(*at).view().borrow().clone()).collect();
            let digests: Vec<_> =
                views.iter().map(|view| trestle_api::stored::state_digest(&view.state).to_string()).collect();
            let applied = views.iter().all(|view| view.applied == views[0].applied);
            let last = members.iter().all(|at| self.at(*at).status().last_log_index == views[0].applied);
            (applied && last && digests.iter().all(|d| *d == digests[0])).then(|| digests[0].clone())
        })
        .await
    }

    pub(super) fn pools(&self, at: usize) -> Vec<String> {
        let view = self.at(at).view().borrow().clone();
        view.state.pools.keys().map(ToString::to_string).collect()
    }
}
