//! Names of backends. Every member looks them up for itself, on a thread of its own, and again when an answer expires.

mod lookup;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::threads;
use lookup::Resolver;

/// An answer is used for as long as it says, but at least this long: some servers answer with a TTL of 0 to be asked for
/// each connection, and a member asks for none.
const TTL_MIN: Duration = Duration::from_secs(1);

/// And at most this long: a TTL of hours is a promise that is often not kept when a machine has to be replaced.
const TTL_MAX: Duration = Duration::from_secs(300);

/// Time between two attempts while there is no answer: about the time that a resolver gives a server (5 s in
/// resolv.conf(5)), so that a server that is down is asked little more often than it is waited for.
const RETRY: Duration = Duration::from_secs(3);

/// Lookups under way at a time. Each takes up to two sockets for each name server.
const AT_A_TIME: usize = 32;

/// What the reconciler asks for.
#[derive(Debug)]
pub(crate) enum Order {
    /// Look a name up from now on.
    Watch(Arc<str>),
    /// No longer.
    Forget(Arc<str>),
}

/// What a name stands for, each time that this is something else.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: Arc<str>,
    /// Its address. Or, as long as none was ever found, why not, in words.
    pub(crate) found: Result<IpAddr, Arc<str>>,
}

/// Runs until the reconciler is gone. `resolv_conf` says whom to ask.
pub(crate) async fn run(
    resolv_conf: PathBuf,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let resolver = Arc::new(Resolver::new(resolv_conf));
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut watched: HashMap<Arc<str>, AbortHandle> = HashMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Watch(name) => {
                let watching = watch(name.clone(), resolver.clone(), places.clone(), reports.clone());
                let watching = tokio::spawn(threads::watched("the look-ups of a name", watching));
                watched.insert(name, watching.abort_handle());
            }
            Order::Forget(name) => {
                if let Some(watching) = watched.remove(&name) {
                    watching.abort();
                }
            }
        }
    }
}

async fn watch(
    name: Arc<str>,
    resolver: Arc<Resolver>,
    places: Arc<Semaphore>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut found: Option<Result<IpAddr, Arc<str>>> = None;
    let mut answered = true;
    loop {
        let current = found.as_ref().and_then(|found| found.as_ref().ok().copied());
        let Ok(place) = places.acquire().await else { return };
        let looked_up = resolver.look_up(&name, current).await;
        drop(place);
        let wait = looked_up.as_ref().map_or(RETRY, |(_, ttl)| (*ttl).clamp(TTL_MIN, TTL_MAX));
        let answer = match (looked_up, current) {
            (Ok((ip, _)), _) => Ok(ip),
            // The last good answer stays: that a name server is out of order says nothing of the backend.
            (Err(reason), Some(ip)) => {
                if std::mem::take(&mut answered) {
                    tracing::warn!(%name, %ip, %reason, "name cannot be looked up again; its address stays");
                }
                sleep(wait).await;
                continue;
            }
            (Err(reason), None) => Err(format!("name {name}: {reason}").into()),
        };
        answered = answer.is_ok();
        if found.as_ref() != Some(&answer) {
            match (&answer, current) {
                (Ok(ip), Some(was)) => tracing::info!(%name, %was, %ip, "name has another address"),
                (Ok(ip), None) => tracing::debug!(%name, %ip, "name has an address"),
                (Err(reason), _) => tracing::warn!("{reason}"),
            }
            if reports.send(Report { name: name.clone(), found: answer.clone() }).is_err() {
                return;
            }
            found = Some(answer);
        }
        sleep(wait).await;
    }
}
