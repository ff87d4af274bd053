//! A worker thread: its accept loops and its connections, and nothing else.

mod accept_loop;
pub(crate) mod command;
pub(crate) mod liveness;
mod open_sockets;
pub(crate) mod relay_forwarder;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use command::{Done, WorkerCommand};

use crate::accept::acceptor::Acceptor;
use crate::connection::connection_table::ConnectionTable;
use crate::machine::threads;
use crate::relay::reactor;
use crate::relay::sweep_pipes;

/// How often a worker's timer goes off. A timer that is due before all others makes tokio wake its own runtime through an
/// eventfd, awake as it is: a system call, and a wait that does not wait. Every connection begins with a timer, for its
/// connect timeout, of 2 s by default; as long as this one is due before those, none of them does.
const BEAT: Duration = Duration::from_secs(1);

/// Beats between two sweeps, at which connections age: one that has seen two sweeps, and so is 5 to 10 s old, gets the
/// options of long connections.
const SWEEP: u32 = 5;

/// Runs until the reconciler is gone; connections that are left end with the runtime.
pub(crate) async fn run(
    connections: Arc<ConnectionTable>,
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
) {
    let mut loops: HashMap<SocketAddr, oneshot::Sender<Done>> = HashMap::new();
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until_sweep = SWEEP;
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = beats.tick() => {
                reactor::beat();
                until_sweep -= 1;
                if until_sweep == 0 {
                    until_sweep = SWEEP;
                    reactor::sweep();
                    sweep_pipes();
                }
                continue;
            }
        };
        match command {
            None => return,
            Some(WorkerCommand::Listen(address, socket)) => match Acceptor::new(socket) {
                Ok(socket) => {
                    let (close, closing) = oneshot::channel();
                    loops.insert(address, close);
                    let accepting = accept_loop::run(connections.clone(), socket, address, closing);
                    tokio::spawn(threads::watched("an accept loop", accepting));
                }
                Err(error) => {
                    tracing::error!(%address, %error, "a worker cannot wait on its listening socket")
                }
            },
            Some(WorkerCommand::Ping(answer)) => {
                // Fails only when nobody waits for the answer any more.
                let _ = answer.send(());
            }
            Some(WorkerCommand::Close(address, done)) => {
                if let Some(close) = loops.remove(&address) {
                    // Fails only when the accept loop panicked: then there is nothing to close.
                    let _ = close.send(done);
                }
            }
        }
    }
}
