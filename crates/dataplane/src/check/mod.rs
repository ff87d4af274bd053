//! Checking backends, on a thread of its own. What a check does is in one file for each kind.

mod check_error;
mod crypto;
mod exchange;
mod expiry;
mod fault;
mod files;
mod grpc;
mod http;
mod identity;
mod local;
mod plan;
mod search;
mod sockets;
mod stream;
mod target;
mod tcp;
mod tls;
mod verifier;
mod watch;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch as channel};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use trestle_engine::{Candidates, Verdict};
use trestle_model::Port;

use crate::machine::threads;
use crate::plane::Shared;
use crate::resolve;
use crate::table::CheckResult;
use crate::upstream::backend_runtime::Live;
use crate::upstream::source::Sources;

pub use local::LocalCheck;
pub(crate) use local::LocalRun;
pub(crate) use plan::Plan;
use sockets::Sockets;
use watch::{Context, Run};

/// Names one run of checks; a changed check is another run.
pub(crate) type CheckId = u64;

/// How often sockets that TCP checks no longer need are closed: those that were not needed from one time to the next.
const SWEEP: Duration = Duration::from_secs(5);

/// What the reconciler tells the prober.
#[derive(Debug)]
pub(crate) enum Order {
    /// Check a backend from now on.
    Watch(CheckId, Check),
    /// A backend's name stands for other addresses, among them the one in use.
    Renew(CheckId, Arc<[IpAddr]>),
    /// No longer.
    Forget(CheckId),
}

/// What is checked, and how.
#[derive(Debug)]
pub(crate) struct Check {
    /// Where it is, with the address in use.
    pub(crate) candidates: Candidates,
    /// The backend's name, if it is known by one.
    pub(crate) name: Option<Arc<str>>,
    /// The port that is checked; `None` where none is.
    pub(crate) port: Option<Port>,
    /// How; one for all backends of a pool.
    pub(crate) plan: Arc<Plan>,
    /// What is known so far.
    pub(crate) verdict: Verdict,
    /// Where checks are counted.
    pub(crate) live: Arc<Live>,
}

/// A verdict, another reason for the one that stands, or another address.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) id: CheckId,
    /// The address that is in use from now on.
    pub(crate) ip: IpAddr,
    pub(crate) verdict: Verdict,
    /// What the verdict rests on, a check at that address; `None` when it rests on what it did before.
    pub(crate) result: Option<CheckResult>,
    /// Addresses that were left and have turned out to be dead.
    pub(crate) dead: Vec<IpAddr>,
    pub(crate) at: Instant,
}

struct Watched {
    task: AbortHandle,
    /// Of a backend that is known by name.
    addresses: Option<channel::Sender<Arc<[IpAddr]>>>,
}

/// Runs until the reconciler is gone, on a thread that has a [reactor](crate::relay::reactor). `names` is told which are in doubt;
/// `local` asks for checks of this machine's own services.
pub(crate) async fn run(
    shared: Arc<Shared>,
    names: mpsc::UnboundedSender<resolve::Order>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut local: mpsc::UnboundedReceiver<LocalRun>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let sockets = Sockets::new(shared.source.clone());
    // From wherever the system chooses: what `source_address` names is for ways out of this machine.
    let local_sockets = Arc::new(Sockets::new(Sources::default()));
    let context = Arc::new(Context { shared, sockets, names, reports });
    let mut runs: HashMap<CheckId, Watched> = HashMap::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            Some(run) = local.recv() => {
                let sockets = local_sockets.clone();
                let run = async move { run.run(&sockets).await };
                tokio::spawn(threads::watched("a check", run));
                continue;
            }
            _ = sweep.tick() => {
                context.sockets.sweep();
                local_sockets.sweep();
                continue;
            }
        };
        match order {
            None => return,
            Some(Order::Watch(id, check)) => {
                let (sender, addresses) = match &check.name {
                    Some(_) => Some(channel::channel(Arc::default())).unzip(),
                    None => (None, None),
                };
                let run = Run::new(id, check, context.clone()).run(addresses);
                let task = tokio::spawn(threads::watched("a check", run)).abort_handle();
                runs.insert(id, Watched { task, addresses: sender });
            }
            Some(Order::Renew(id, addresses)) => {
                if let Some(sender) = runs.get(&id).and_then(|run| run.addresses.as_ref()) {
                    sender.send_replace(addresses);
                }
            }
            Some(Order::Forget(id)) => {
                if let Some(run) = runs.remove(&id) {
                    run.task.abort();
                }
            }
        }
    }
}

/// A number that differs from call to call: the standard library seeds each hasher anew.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The low half of the hash; all its bits are equally good.
    RandomState::new().build_hasher().finish() as u32
}
