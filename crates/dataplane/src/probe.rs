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
mod plan;
mod search;
mod sockets;
mod stream;
mod tcp;
mod tls;
mod verifier;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use trestle_engine::{Health, Verdict};

use crate::live::Live;
use crate::plane::Shared;
use crate::table::CheckResult;
use crate::threads;

pub(crate) use plan::Plan;
use sockets::Sockets;

/// Names one run of checks; a changed check is another run.
pub(crate) type CheckId = u64;

/// How often sockets that TCP checks no longer need are closed: those that were not needed from one time to the next.
const SWEEP: Duration = Duration::from_secs(5);

/// What the reconciler tells the prober.
#[derive(Debug)]
pub(crate) enum Order {
    /// Check a backend from now on.
    Watch(CheckId, Check),
    /// No longer.
    Forget(CheckId),
}

/// What is checked, and how.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) address: SocketAddr,
    /// How; one for all backends of a pool.
    pub(crate) plan: Arc<Plan>,
    /// What is known so far.
    pub(crate) verdict: Verdict,
    /// Where checks are counted.
    pub(crate) live: Arc<Live>,
}

/// A verdict, or another reason for the one that stands.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) id: CheckId,
    pub(crate) verdict: Verdict,
    pub(crate) result: CheckResult,
    pub(crate) at: Instant,
}

/// Runs until the reconciler is gone, on a thread that has a [reactor](crate::reactor).
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let sockets = Arc::new(Sockets::new(shared.source.clone()));
    let mut runs: HashMap<CheckId, AbortHandle> = HashMap::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = sweep.tick() => {
                sockets.sweep();
                continue;
            }
        };
        match order {
            None => return,
            Some(Order::Watch(id, check)) => {
                let run = watch(id, check, shared.clone(), sockets.clone(), reports.clone());
                let run = tokio::spawn(threads::watched("a check", run));
                runs.insert(id, run.abort_handle());
            }
            Some(Order::Forget(id)) => {
                if let Some(run) = runs.remove(&id) {
                    run.abort();
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

async fn watch(
    id: CheckId,
    check: Check,
    shared: Arc<Shared>,
    sockets: Arc<Sockets>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let origin = Instant::now();
    let mut health = Health::new(check.verdict);
    let mut reported = None;
    loop {
        let Some(place) = sockets.place().await else { return };
        let started = origin.elapsed();
        let barred = shared.table.load().guard.bars_check(check.address);
        let result = match barred {
            Some(barred) => CheckResult::Wrong(barred.words().into()),
            None => check.plan.check(check.address, &sockets).await,
        };
        drop(place);
        let (success, now) = (result.is_success(), origin.elapsed());
        let (next, agrees) = if let CheckResult::NotMade(shortage) = &result {
            let next = health.put_off(&check.plan.health, started, now, random());
            shared.shortages.note(shortage, next.saturating_sub(now), origin + now);
            (next, true)
        } else {
            check.live.counters.checked(success);
            let observed = health.observe(&check.plan.health, success, started, now, random());
            // A result that contradicts the verdict is no reason for it.
            (observed.next, success == (health.verdict() == Verdict::Healthy))
        };
        let verdict = health.verdict();
        if agrees && reported.as_ref() != Some(&(verdict, result.clone())) {
            reported = Some((verdict, result.clone()));
            if reports.send(Report { id, verdict, result, at: origin + now }).is_err() {
                return;
            }
        }
        // A client's failed connect brings the next check forward, but is no result of one: rise and fall count what
        // this member asked for itself, at a pace of its own.
        let pace = &check.plan.health;
        let soonest = started + pace.fast_interval.min(pace.interval);
        tokio::select! {
            () = sleep_until((origin + next).into()) => {}
            () = async {
                check.live.doubted.notified().await;
                sleep_until((origin + soonest).into()).await;
            } => {}
        }
    }
}
