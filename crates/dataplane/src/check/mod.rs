//! Checks of backends, on a thread of their own. Each kind of check has a file of its own.

mod check_error;
pub(crate) mod command;
mod crypto;
mod exchange;
mod expiry;
mod fault;
mod files;
mod grpc;
mod http;
mod identity;
mod limit;
mod local;
mod plan;
mod refusal;
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
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::machine::threads;
use crate::resolve;
use crate::upstream::source::Sources;

use command::{CheckId, CheckReport, ProbeCommand, World};
pub use local::LocalCheck;
pub(crate) use local::LocalRun;
pub(crate) use plan::CheckPlan;
use sockets::CheckSockets;
use watch::{CheckRun, Context};

/// How often TCP checks close sockets that were not needed since the last time.
const SWEEP: Duration = Duration::from_secs(5);

struct RunningCheck {
    task: AbortHandle,
    /// The addresses of a backend that is configured by name.
    addresses: Option<channel::Sender<Arc<[IpAddr]>>>,
}

/// Runs until the reconciler is gone, on a thread that has a [reactor](crate::relay::reactor). `names` hears which names are in
/// doubt. `local` asks for checks of this machine's own services.
pub(crate) async fn run(
    world: World,
    names: mpsc::UnboundedSender<resolve::ResolverCommand>,
    mut commands: mpsc::UnboundedReceiver<ProbeCommand>,
    mut local: mpsc::UnboundedReceiver<LocalRun>,
    reports: mpsc::UnboundedSender<CheckReport>,
) {
    let sockets = CheckSockets::new(world.source.clone());
    // The system chooses the source: `source_address` is for connections that leave this machine.
    let local_sockets = Arc::new(CheckSockets::new(Sources::default()));
    let context = Arc::new(Context { world, sockets, names, reports });
    let mut runs: HashMap<CheckId, RunningCheck> = HashMap::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
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
        match command {
            None => return,
            Some(ProbeCommand::Watch(id, check)) => {
                let (sender, addresses) = match &check.name {
                    Some(_) => Some(channel::channel(Arc::default())).unzip(),
                    None => (None, None),
                };
                let run = CheckRun::new(id, check, context.clone()).run(addresses);
                let task = tokio::spawn(threads::watched("a check", run)).abort_handle();
                runs.insert(id, RunningCheck { task, addresses: sender });
            }
            Some(ProbeCommand::Renew(id, addresses)) => {
                if let Some(sender) = runs.get(&id).and_then(|run| run.addresses.as_ref()) {
                    sender.send_replace(addresses);
                }
            }
            Some(ProbeCommand::Forget(id)) => {
                if let Some(run) = runs.remove(&id) {
                    run.task.abort();
                }
            }
        }
    }
}
