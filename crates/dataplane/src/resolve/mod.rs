//! Names of backends. Every member looks them up for itself, on a thread of its own, and again when an answer expires or is in
//! doubt.

mod hosts;
mod lookup;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use trestle_engine::{AskTimer, Family, NameRecord};

use crate::machine::threads;
use lookup::{Late, Resolver, certain};

/// How often resolv.conf and /etc/hosts are examined. DHCP clients and operators change them.
const LOOK: Duration = Duration::from_secs(1);

/// What the resolver is asked for.
#[derive(Debug)]
pub(crate) enum ResolverCommand {
    /// Look a name up from now on.
    Watch(Arc<str>),
    /// Look a name up no longer.
    Forget(Arc<str>),
    /// A check or a connect has failed at an address of this name.
    Doubt(Arc<str>),
}

/// The addresses of a name, sent each time that they change.
#[derive(Debug)]
pub(crate) struct ResolverReport {
    pub(crate) name: Arc<str>,
    /// The addresses, at least one. As long as none was ever found, the reason in words.
    pub(crate) found: Result<Arc<[IpAddr]>, Arc<str>>,
}

struct WatchedName {
    task: AbortHandle,
    doubted: Arc<Notify>,
}

/// Runs until the reconciler and the prober are gone. `resolv_conf` names the name servers, and `hosts` has names that need no
/// question.
pub(crate) async fn run(
    resolv_conf: PathBuf,
    hosts: PathBuf,
    mut commands: mpsc::UnboundedReceiver<ResolverCommand>,
    reports: mpsc::UnboundedSender<ResolverReport>,
) {
    let resolver = Arc::new(Resolver::new(resolv_conf, hosts));
    let mut watched: HashMap<Arc<str>, WatchedName> = HashMap::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = look.tick() => {
                if resolver.follow_files() {
                    watched.values().for_each(|name| name.doubted.notify_one());
                }
                continue;
            }
        };
        match command {
            None => return,
            Some(ResolverCommand::Watch(name)) => {
                let doubted = Arc::new(Notify::new());
                let watch =
                    NameWatch::new(name.clone(), reports.clone()).run(resolver.clone(), doubted.clone());
                let task = tokio::spawn(threads::watched("the look-ups of a name", watch)).abort_handle();
                watched.insert(name, WatchedName { task, doubted });
            }
            Some(ResolverCommand::Forget(name)) => {
                if let Some(watched) = watched.remove(&name) {
                    watched.task.abort();
                }
            }
            Some(ResolverCommand::Doubt(name)) => {
                if let Some(watched) = watched.get(&name) {
                    watched.doubted.notify_one();
                }
            }
        }
    }
}

/// One name that is looked up repeatedly.
struct NameWatch {
    name: Arc<str>,
    reports: mpsc::UnboundedSender<ResolverReport>,
    record: NameRecord,
    /// Why no address was ever found, as it was reported.
    missed: Option<Arc<str>>,
    /// Whether the last question was answered.
    answered: bool,
}

impl NameWatch {
    fn new(name: Arc<str>, reports: mpsc::UnboundedSender<ResolverReport>) -> Self {
        Self { name, reports, record: NameRecord::default(), missed: None, answered: true }
    }

    /// Runs until nobody listens.
    async fn run(mut self, resolver: Arc<Resolver>, doubted: Arc<Notify>) {
        let (origin, mut timer, mut late) = (Instant::now(), AskTimer::default(), None::<Late>);
        while !self.reports.is_closed() {
            timer.asked(origin.elapsed());
            let ttl = match resolver.look_up(&self.name, late.take()).await {
                Ok(answer) => {
                    late = answer.late;
                    self.learn([(Family::V4, answer.v4), (Family::V6, answer.v6)]);
                    Some(answer.ttl)
                }
                Err(reason) => {
                    self.miss(&reason);
                    None
                }
            };
            timer.answered(ttl, origin.elapsed());
            loop {
                tokio::select! {
                    () = sleep_until((origin + timer.due()).into()) => break,
                    () = doubted.notified() => timer.doubt(),
                    (family, found) = arrival(&mut late), if late.is_some() => {
                        late = None;
                        self.learn([(family, certain(found))]);
                    }
                }
            }
        }
    }

    fn learn<const N: usize>(&mut self, answers: [(Family, Option<Vec<IpAddr>>); N]) {
        let before = self.record.candidates().to_vec();
        for (family, addresses) in answers {
            if let Some(addresses) = addresses {
                self.record.learn(family, addresses);
            }
        }
        let found = self.record.candidates();
        if found.is_empty() {
            return self.miss("has no address");
        }
        (self.answered, self.missed) = (true, None);
        if *found == *before {
            return;
        }
        let (name, addresses) = (&self.name, shown(found));
        if before.is_empty() {
            tracing::debug!(%name, %addresses, "name has addresses");
        } else {
            tracing::info!(%name, was = %shown(&before), %addresses, "name has other addresses");
        }
        self.report(Ok(found.into()));
    }

    /// The last good answer stays valid: a name server that fails says nothing about the backend.
    fn miss(&mut self, reason: &str) {
        let (name, found) = (&self.name, self.record.candidates());
        if !found.is_empty() {
            if std::mem::take(&mut self.answered) {
                tracing::warn!(%name, addresses = %shown(found), %reason, "name cannot be looked up again; its addresses stay");
            }
            return;
        }
        let reason: Arc<str> = format!("name {name}: {reason}").into();
        if self.missed.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
            self.missed = Some(reason.clone());
            self.report(Err(reason));
        }
    }

    fn report(&self, found: Result<Arc<[IpAddr]>, Arc<str>>) {
        // This fails only when the reconciler is gone. The task ends then.
        let _ = self.reports.send(ResolverReport { name: self.name.clone(), found });
    }
}

/// An answer that is still on its way.
async fn arrival(late: &mut Option<Late>) -> (Family, lookup::FoundAddresses) {
    match late {
        Some(late) => (late.family, late.answer.as_mut().await),
        None => std::future::pending().await,
    }
}

fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
