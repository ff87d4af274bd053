//! The process of a member: the real one, but for its sockets, its threads and its data plane.

use std::cell::Cell;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use trestle_api::peer::peer_service_server::PeerServiceServer;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::transport::PlainDial;
use trestle_consensus::{Consensus, ConsensusSettings, Timing, VoteGuard};
use trestle_model::defaults::FEATURE_LEVEL_MAX;
use trestle_model::{HostPort, MemberName, MemberSpec};

use crate::network::{Delivery, SimulatedNetwork};
use crate::peer::SimulatedPeer;
use crate::platform::address;

thread_local! {
    /// What wakes the step that runs now.
    static STEP: Cell<Option<Waker>> = const { Cell::new(None) };
    /// Times that nothing was left to do in it.
    static IDLE: Cell<u32> = const { Cell::new(0) };
}

/// What a process has come to.
#[derive(Default)]
pub(crate) struct Standing {
    pub(crate) consensus: Option<Consensus>,
    /// Why it ends.
    pub(crate) failed: Option<String>,
    /// Why its data was refused.
    pub(crate) refused: Option<String>,
}

pub(crate) struct MemberProcess {
    pub(crate) runtime: Runtime,
    pub(crate) standing: Arc<Mutex<Standing>>,
    /// Lets Raft start: whatever must be there before is.
    pub(crate) begin: Arc<Notify>,
    network: SimulatedNetwork,
}

/// What a process starts with.
pub(crate) struct Start {
    pub(crate) member: usize,
    pub(crate) dir: PathBuf,
    pub(crate) platform: Arc<dyn trestle_consensus::simulation::SimulatedPlatform>,
    pub(crate) vote_guard: Arc<dyn VoteGuard>,
    pub(crate) number: u64,
}

pub(crate) fn spec(member: usize) -> MemberSpec {
    let parsed = |address: &str| HostPort::parse(address).expect("an address");
    MemberSpec {
        name: name(member),
        peer_address: parsed(&address(member)),
        admin_address: parsed(&format!("10.1.0.{}:7480", member + 1)),
        feature_level_max: FEATURE_LEVEL_MAX,
    }
}

pub(crate) fn name(member: usize) -> MemberName {
    MemberName::parse(&format!("m{}", member + 1)).expect("a name")
}

impl MemberProcess {
    pub(crate) fn start(start: Start, network: &SimulatedNetwork) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .on_thread_park(|| {
                IDLE.set(IDLE.get() + 1);
                if let Some(step) = STEP.take() {
                    step.wake();
                }
            })
            .build()
            .expect("a runtime");
        let standing: Arc<Mutex<Standing>> = Arc::default();
        let begin = Arc::new(Notify::new());
        runtime.spawn(run(start, standing.clone(), begin.clone()));
        Self { runtime, standing, begin, network: network.clone() }
    }

    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consensus(&self) -> Option<Consensus> {
        self.standing().consensus.clone()
    }

    /// Does what is to be done at this moment, beginning with `first`.
    pub(crate) fn step(&self, first: impl FnOnce()) {
        let mut first = Some(first);
        IDLE.set(0);
        self.runtime.block_on(poll_fn(|context| {
            if let Some(first) = first.take() {
                first();
            }
            // After the first time timers that are due have woken their tasks.
            if IDLE.get() >= 2 {
                return Poll::Ready(());
            }
            STEP.set(Some(context.waker().clone()));
            Poll::Pending
        }));
    }

    /// Serves a call of another member. Runs within a step.
    pub(crate) fn serve(&self, delivery: Delivery) {
        let Some(consensus) = self.consensus() else { return };
        let Delivery { call, from, mut request } = delivery;
        let caller = self.network.state().ids[from].map_or(PeerCaller::Anonymous, PeerCaller::Member);
        request.extensions_mut().insert(caller);
        let network = self.network.clone();
        let serving = tokio::spawn(async move {
            let answer = answer(&consensus, request).await;
            network.send_answer(call, answer).await;
        });
        self.network.answer(call, &serving);
    }
}

async fn answer(consensus: &Consensus, request: http::Request<Body>) -> http::Response<Body> {
    let answered = if request.uri().path().starts_with("/trestle.peer.v1.RaftService/") {
        consensus.raft_service().call(request).await
    } else {
        PeerServiceServer::new(SimulatedPeer(consensus.clone())).call(request).await
    };
    answered.unwrap_or_else(|never| match never {})
}

async fn run(start: Start, standing: Arc<Mutex<Standing>>, begin: Arc<Notify>) {
    let note =
        |note: &dyn Fn(&mut Standing)| note(&mut standing.lock().unwrap_or_else(PoisonError::into_inner));
    let settings = ConsensusSettings {
        data_dir: start.dir,
        name: name(start.member),
        peer_address: spec(start.member).peer_address,
        start: start.number,
        timing: Timing::default(),
        feature_level_max: FEATURE_LEVEL_MAX,
        vote_guard: start.vote_guard,
        dial: Arc::new(PlainDial),
    };
    let consensus = match Consensus::open_simulated(settings, start.platform).await {
        Ok(consensus) => consensus,
        Err(error) => return note(&|standing| standing.refused = Some(error.to_string())),
    };
    note(&|standing| standing.consensus = Some(consensus.clone()));
    begin.notified().await;
    if consensus.identity().is_some()
        && let Err(error) = consensus.start().await
    {
        note(&|standing| standing.failed = Some(error.to_string()));
    }
    let why = consensus.failed().await;
    note(&|standing| standing.failed = Some(why.clone()));
}
