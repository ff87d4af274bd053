//! The reconciler: brings the table and the forwarder in line with the configuration and the verdicts. It is the only writer of
//! the table.

mod backends;
mod changes;
mod endings;
mod listeners;
mod names;
mod news;
mod pools;
mod schedule;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use trestle_model::{ClusterState, Revision};

use crate::check;
use crate::check::command::CheckReport;
use crate::forwarder::Forwarder;
use crate::observe::close_reason::CloseReason;
use crate::resolve as resolver;
use crate::settings::DataPlaneSettings;
use crate::table::Table;
use endings::Grace;
use listeners::ListenerReconciler;
use names::NameUsers;
use pools::PoolReconciler;

/// Least time between two tables that differ in verdicts only, so that thousands of backends that fail together cost a
/// few tables and not thousands. A change of the configuration does not wait.
const VERDICT_PAUSE: Duration = Duration::from_millis(5);

/// Least time between two times that listeners open which have waited for the first checks of their backends: when a
/// member starts, the checks of its pools end one after another.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// A command of the data plane's owner.
#[derive(Debug)]
pub(crate) enum ReconcileCommand {
    /// Close every listening socket and open none.
    StopAccepting {
        /// Told when that is done.
        done: Option<oneshot::Sender<()>>,
    },
    /// Close every listening socket but those of virtual IPs and open none, or open them again.
    Drain {
        /// Close them.
        drained: bool,
        /// End all connections within this time from when they were closed first, spread over the last part of it.
        within: Option<Duration>,
    },
    /// End all connections within this time from now, spread over the last part of it, those that are left for this reason;
    /// or, without a time, let them go on after all.
    EndWithin(Option<(Duration, CloseReason)>),
    /// Close every connection.
    CloseAll,
}

/// Compares the whole actual state with the whole desired state, each time something happens.
pub(crate) struct Reconciler {
    forwarder: Arc<dyn Forwarder>,
    /// The table that holds, for reports and checks.
    table: Arc<ArcSwap<Table>>,
    in_force: watch::Sender<Revision>,
    drift_interval: Duration,
    /// The origin of the clock that the engine sees.
    origin: Instant,
    listeners: ListenerReconciler,
    pools: PoolReconciler,
    /// The configuration in force.
    state: Arc<ClusterState>,
    published: Instant,
    /// When listeners on hold were released last.
    released: Instant,
    /// Since when this member takes no new connections because it is drained.
    drained_since: Option<Duration>,
    /// When the connections that are left are closed for that reason.
    drain_ends: Option<Instant>,
}

impl Reconciler {
    pub(crate) fn new(
        settings: DataPlaneSettings,
        forwarder: Arc<dyn Forwarder>,
        table: Arc<ArcSwap<Table>>,
        prober: mpsc::UnboundedSender<check::command::ProbeCommand>,
        resolver: mpsc::UnboundedSender<resolver::ResolverCommand>,
        in_force: watch::Sender<Revision>,
    ) -> Self {
        let now = Instant::now();
        Self {
            listeners: ListenerReconciler::new(
                settings.data_address,
                settings.targets(),
                forwarder.clone(),
                settings.on_event.clone(),
            ),
            forwarder,
            table,
            in_force,
            drift_interval: settings.drift_interval,
            origin: now,
            pools: PoolReconciler::new(
                prober,
                NameUsers::new(resolver),
                settings.check_directory.into(),
                settings.member,
                settings.on_event,
            ),
            state: Arc::default(),
            published: now,
            released: now,
            drained_since: None,
            drain_ends: None,
        }
    }

    /// Runs until `commands` is closed.
    pub(crate) async fn run(
        mut self,
        mut target: watch::Receiver<Arc<ClusterState>>,
        mut commands: mpsc::UnboundedReceiver<ReconcileCommand>,
        mut reports: mpsc::UnboundedReceiver<CheckReport>,
        mut answers: mpsc::UnboundedReceiver<resolver::ResolverReport>,
    ) {
        let mut followed = true;
        let mut drift = Instant::now() + self.drift_interval;
        target.mark_changed();
        loop {
            let verdicts = self.pools.is_dirty().then(|| self.published + VERDICT_PAUSE);
            let drain = self.pools.next_deadline().map(|d| self.origin + d);
            let release = match self.is_released() {
                _ if self.listeners.is_opening() => Some(Instant::now()),
                true => Some(self.released + RELEASE_PAUSE),
                false => self.listeners.next_release().map(|d| self.origin + d),
            };
            let wake = [Some(drift), verdicts, drain, release].into_iter().flatten().min().unwrap_or(drift);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.execute(command).await,
                    None => return,
                },
                changed = target.changed(), if followed => {
                    followed = changed.is_ok();
                    let state = target.borrow_and_update().clone();
                    self.follow(state, false).await;
                }
                Some(answer) = answers.recv() => {
                    self.pools.resolved(answer);
                    while let Ok(answer) = answers.try_recv() {
                        self.pools.resolved(answer);
                    }
                    self.publish_verdicts();
                }
                Some(report) = reports.recv() => {
                    self.pools.report(report);
                    while let Ok(report) = reports.try_recv() {
                        self.pools.report(report);
                    }
                    self.publish_verdicts();
                }
                () = sleep_until(wake.into()) => {
                    self.pools.expire(self.origin.elapsed(), &*self.forwarder);
                    if self.pools.is_dirty() {
                        self.publish();
                    }
                    if drift <= Instant::now() || self.is_released() || self.listeners.is_opening() {
                        self.released = Instant::now();
                        self.follow(self.state.clone(), true).await;
                        drift = Instant::now() + self.drift_interval;
                    }
                }
            }
        }
    }

    /// Whether a listener waits that need not wait any longer.
    fn is_released(&self) -> bool {
        self.listeners.is_released(&self.state, self.origin.elapsed(), self.pools.unchecked())
    }

    async fn execute(&mut self, command: ReconcileCommand) {
        match command {
            ReconcileCommand::StopAccepting { done } => {
                self.listeners.stop();
                self.follow(self.state.clone(), true).await;
                if let Some(done) = done {
                    // Fails only when the caller no longer waits.
                    let _ = done.send(());
                }
            }
            ReconcileCommand::Drain { drained, within } => {
                let now = self.origin.elapsed();
                let since = drained.then(|| *self.drained_since.get_or_insert(now));
                self.drained_since = since;
                let drain = since.zip(within);
                let grace = |(since, time)| Grace { since, time, reason: CloseReason::Drained };
                self.pools.drain(drain.map(grace), now);
                self.drain_ends = drain.map(|(since, time)| self.origin + since + time);
                if self.listeners.drain(drained) {
                    tracing::info!(drained, "listening sockets follow the drain of this member");
                    self.follow(self.state.clone(), true).await;
                } else {
                    self.publish();
                }
            }
            ReconcileCommand::EndWithin(wanted) => {
                let since = self.origin.elapsed();
                let grace = wanted.map(|(time, reason)| Grace { since, time, reason });
                self.pools.end_within(grace, since);
                // Drains whose time has come begin an epoch.
                self.publish();
            }
            ReconcileCommand::CloseAll => {
                self.pools.close_all();
                self.publish();
            }
        }
    }

    /// Brings everything in line with `state`. Addresses that go are closed while the table still has their listeners, and
    /// new ones take connections once the table has theirs.
    ///
    /// Pools come first: whether a listener that is new waits for its backends' first checks depends on them.
    async fn follow(&mut self, state: Arc<ClusterState>, again: bool) {
        let now = self.origin.elapsed();
        self.pools.follow(&state, now);
        if again || !listeners::same(&self.state, &state) {
            let before = *self.in_force.borrow();
            self.listeners.hold(&state, before, now, self.pools.unchecked());
            self.listeners.follow(&state, before).await;
            self.pools.look_at_all();
        }
        self.state = state;
        self.publish();
        self.listeners.accept_opened();
        let revision = self.listeners.in_force(self.state.revision);
        self.in_force.send_if_modified(|r| std::mem::replace(r, revision) != revision);
    }

    /// Publishes new verdicts, unless some were published a moment ago: then it is done a moment later.
    fn publish_verdicts(&mut self) {
        if self.published.elapsed() >= VERDICT_PAUSE {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let pools = self.pools.publish(self.origin.elapsed());
        let (listeners, routes) = self.listeners.published();
        let (revision, loop_guard, vips) =
            (self.state.revision, self.listeners.loop_guard(), self.listeners.vips());
        let shadowed = self.listeners.shadowed();
        let (drained, drain_ends) = (self.drained_since.is_some(), self.drain_ends);
        let table =
            Table { revision, listeners, pools, routes, loop_guard, vips, shadowed, drained, drain_ends };
        let table = Arc::new(table);
        self.table.store(table.clone());
        self.forwarder.publish(self.pools.publication(table.clone()));
        self.pools.tell(&table);
        self.published = Instant::now();
    }
}

impl Drop for Reconciler {
    /// Stops forwarding, which does not go on without the reconciler.
    fn drop(&mut self) {
        self.forwarder.stop();
    }
}
