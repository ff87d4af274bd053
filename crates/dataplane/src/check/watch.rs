//! One run of checks of one backend, at all its addresses.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use trestle_engine::{Health, Verdict};
use trestle_model::Port;

use super::command::{CheckId, CheckReport, CheckRequest, World};
use super::sockets::CheckSockets;
use super::target::CheckTarget;
use crate::observe::check_result::CheckResult;
use crate::resolve;

/// What all runs share.
pub(super) struct Context {
    pub(super) world: World,
    pub(super) sockets: CheckSockets,
    pub(super) names: mpsc::UnboundedSender<resolve::ResolverCommand>,
    pub(super) reports: mpsc::UnboundedSender<CheckReport>,
}

/// When the next round begins, on the clock of the run, and when it may begin earlier because the backend is in doubt.
#[derive(Clone, Copy)]
struct Next {
    usual: Duration,
    soonest: Duration,
}

/// A run of checks. Without a port there is nothing to check, and the run only follows the failed connects of clients.
pub(super) struct CheckRun {
    id: CheckId,
    check: CheckRequest,
    context: Arc<Context>,
    origin: Instant,
    health: Health,
    /// What was reported last.
    reported: Option<(IpAddr, Verdict, CheckResult)>,
}

impl CheckRun {
    pub(super) fn new(id: CheckId, check: CheckRequest, context: Arc<Context>) -> Self {
        let health = Health::new(check.verdict);
        Self { id, check, context, origin: Instant::now(), health, reported: None }
    }

    /// Runs until the reconciler is gone. `addresses` says which addresses the backend's name has, each time that they change.
    pub(super) async fn run(mut self, mut addresses: Option<watch::Receiver<Arc<[IpAddr]>>>) {
        while !self.context.reports.is_closed() {
            let next = match self.check.port {
                Some(port) => Some(self.round(port).await),
                None => None,
            };
            // A client's failed connect brings the next check forward, but does not count as its result: rise and fall count
            // this member's own checks, at their own pace.
            tokio::select! {
                () = self.reach(next.map(|next| next.usual)) => {}
                failed = self.recheck_requested(next) => if next.is_none() {
                    self.leave(&failed);
                },
                all = renewed(&mut addresses) => {
                    self.check.candidates.renew(&all);
                    if let Some(next) = next {
                        self.reach(Some(next.soonest)).await;
                    }
                }
            }
        }
    }

    /// Waits until a time on the clock of the run, or for ever.
    async fn reach(&self, time: Option<Duration>) {
        match time {
            Some(time) => sleep_until((self.origin + time).into()).await,
            None => pending().await,
        }
    }

    /// Waits until connects of clients have failed, and then until the backend may be checked again.
    async fn recheck_requested(&self, next: Option<Next>) -> Vec<IpAddr> {
        let failed = self.check.runtime.recheck_requested().await;
        self.doubt_name();
        if let Some(next) = next {
            self.reach(Some(next.soonest)).await;
        }
        failed
    }

    /// Has the name looked up again: the backend may have other addresses by now.
    fn doubt_name(&self) {
        if let Some(name) = &self.check.name {
            // This fails only when the resolver's thread is gone, and the log says so.
            let _ = self.context.names.send(resolve::ResolverCommand::Doubt(name.clone()));
        }
    }

    /// Stops using addresses at which connects have failed, where there is no check.
    fn leave(&mut self, failed: &[IpAddr]) {
        let before = self.check.candidates.current();
        failed.iter().for_each(|ip| self.check.candidates.failed(*ip));
        if self.check.candidates.current() != before {
            self.report(None, Vec::new(), self.origin.elapsed());
        }
    }

    fn report(&self, result: Option<CheckResult>, dead: Vec<IpAddr>, at: Duration) {
        let (ip, verdict) = (self.check.candidates.current(), self.health.verdict());
        // This fails only when the reconciler is gone. The run ends then.
        let _ = self.context.reports.send(CheckReport {
            id: self.id,
            ip,
            verdict,
            result,
            dead,
            at: self.origin + at,
        });
    }

    /// Checks the address in use and those that were in use before and are not known to be dead. Where the first fails, it checks
    /// all others too.
    async fn round(&mut self, port: Port) -> Next {
        let started = self.origin.elapsed();
        let current = self.check.candidates.current();
        let left: Vec<IpAddr> = self.check.candidates.left().collect();
        let mut results = match left.is_empty() {
            true => vec![(current, self.once(current, port).await)],
            false => self.each(std::iter::once(current).chain(left), port, false).await,
        };
        let works = |results: &[(IpAddr, CheckResult)]| results.iter().any(|(_, result)| result.is_success());
        if results.first().is_some_and(|(_, result)| made(result) == Some(false)) {
            self.doubt_name();
            if !works(&results) {
                let others = self.check.candidates.others();
                let others: Vec<_> =
                    others.filter(|ip| results.iter().all(|(known, _)| known != ip)).collect();
                results.extend(self.each(others.into_iter(), port, true).await);
            }
        }
        self.conclude(results, started)
    }

    /// Applies the results of a round that began at `started`.
    fn conclude(&mut self, results: Vec<(IpAddr, CheckResult)>, started: Duration) -> Next {
        let now = self.origin.elapsed();
        let pace = &self.check.plan.health;
        let said: Vec<_> = results.iter().map(|(ip, result)| (*ip, made(result))).collect();
        let before = self.check.candidates.current();
        let round = self.check.candidates.observe(&said, pace.fall);
        let current = self.check.candidates.current();
        let result = results.into_iter().find(|(ip, _)| *ip == current).map(|(_, result)| result);
        let (usual, agrees) = match round.success {
            Some(success) => {
                let observed = self.health.observe(pace, success, started, now, fastrand::u32(..));
                // A result that contradicts the verdict cannot be its reason.
                (observed.next, success == (self.health.verdict() == Verdict::Healthy))
            }
            None => {
                let next = self.health.put_off(pace, started, now, fastrand::u32(..));
                if let Some(CheckResult::NotMade(shortage)) = &result {
                    let again = next.saturating_sub(now);
                    self.context.world.shortages.note(shortage, again, self.origin + now);
                }
                (next, true)
            }
        };
        let soonest = started + pace.fast_interval.min(pace.interval);
        let result = result.filter(|_| agrees);
        let news = result.clone().map(|result| (current, self.health.verdict(), result));
        let is_news = news.is_some() && news != self.reported;
        if is_news || current != before || !round.dead.is_empty() {
            self.report(result, round.dead, now);
            self.reported = news.or(self.reported.take());
        }
        Next { usual, soonest }
    }

    /// Checks several addresses at the same time. With `first`, checks of addresses after one that works are given up.
    async fn each(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
        port: Port,
        first: bool,
    ) -> Vec<(IpAddr, CheckResult)> {
        let mut checks: FuturesOrdered<_> =
            addresses.map(|ip| Box::pin(async move { (ip, self.once(ip, port).await) })).collect();
        let mut results = Vec::with_capacity(checks.len());
        while let Some((ip, result)) = checks.next().await {
            let works = result.is_success();
            results.push((ip, result));
            if works && first {
                break;
            }
        }
        results
    }

    /// Checks one address.
    async fn once(&self, ip: IpAddr, port: Port) -> CheckResult {
        let Context { world, sockets, .. } = &*self.context;
        // There is no permit only when the thread ends.
        let Some(place) = sockets.place().await else { return pending().await };
        let address = SocketAddr::new(ip, port.get());
        let target = CheckTarget { address, name: self.check.name.clone() };
        let barred = world.table.load().loop_guard.bars_check(address);
        let result = match barred {
            Some(barred) => CheckResult::Wrong(barred.words().into()),
            None => self.check.plan.check(&target, sockets).await,
        };
        drop(place);
        if let Some(success) = made(&result) {
            self.check.runtime.counters.record_check(success);
        }
        result
    }
}

/// What a check says about the backend; `None` where it could not be made.
fn made(result: &CheckResult) -> Option<bool> {
    (!matches!(result, CheckResult::NotMade(_))).then(|| result.is_success())
}

/// Waits until the backend's name has other addresses.
async fn renewed(addresses: &mut Option<watch::Receiver<Arc<[IpAddr]>>>) -> Arc<[IpAddr]> {
    if let Some(addresses) = addresses
        && addresses.changed().await.is_ok()
    {
        return addresses.borrow_and_update().clone();
    }
    // The run is about to be ended, or the backend has no name.
    pending().await
}
