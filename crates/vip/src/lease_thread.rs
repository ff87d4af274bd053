//! The thread that keeps the fence open. It waits on nothing but its timer and the few orders to open or shut, and shares
//! no lock with anybody; what it tells others goes through atomics and a queue.

mod command;
mod stats;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use trestle_engine::SIGN_INTERVAL;

use crate::error::VipError;
use crate::liveness::ThreadLiveness;
use crate::maintenance::{CommandQueue, MaintenanceCommand};
use crate::nft::{DesiredFence, FenceTimeout, Nft};

pub(crate) use command::{FenceRequest, LeaseCommand};
pub(crate) use stats::LeaseThreadStats;
pub use stats::Watchdog;

/// Time between two looks at the leases, and so the most by which a renewal reaches the kernel late. Two and a half fit
/// between two heartbeats of the default profile (50 ms).
pub const TICK: Duration = Duration::from_millis(20);

/// Shorter sleeps are within what clocks drift apart.
const SLEPT: Duration = Duration::from_millis(5);

/// Time to the next look at a fence that could not be looked at, or not be put back.
const CHECK_RETRY: Duration = Duration::from_millis(200);

struct OpenFence {
    request: FenceRequest,
    open_until: Instant,
    lapsed: bool,
    /// Until when it takes no new connections.
    quiet_until: Option<Instant>,
}

/// Until when which addresses take no new connections.
fn quiet(held: &[OpenFence]) -> Vec<FenceTimeout> {
    held.iter()
        .filter_map(|held| Some(FenceTimeout { address: held.request.address, until: held.quiet_until? }))
        .collect()
}

/// The state of the thread.
pub(crate) struct LeaseThread {
    /// `None` without nftables.
    pub(crate) fence: Option<Nft>,
    pub(crate) commands: CommandQueue,
    pub(crate) stats: Arc<LeaseThreadStats>,
    pub(crate) watchdog: Option<Watchdog>,
    liveness: ThreadLiveness,
    held: Vec<OpenFence>,
    /// Everything that the kernel fences: what is held, and what was released and may still be there.
    fenced: BTreeSet<IpAddr>,
    /// When the fence is to be looked at, though nobody may say so.
    check: Option<Instant>,
    /// When it was last put back.
    repaired: Option<Instant>,
    /// Reused, so that renewing allocates nothing.
    due: Vec<FenceTimeout>,
    /// What was last said of a failure, so that it is said once.
    failing: bool,
    /// Time that the machine has slept since its start, as last known.
    asleep: Duration,
}

impl LeaseThread {
    pub(crate) fn new(
        fence: Option<Nft>,
        commands: CommandQueue,
        stats: Arc<LeaseThreadStats>,
        watchdog: Option<Watchdog>,
        liveness: ThreadLiveness,
    ) -> Self {
        let asleep = asleep();
        Self {
            fence,
            commands,
            stats,
            watchdog,
            liveness,
            held: Vec::new(),
            fenced: BTreeSet::new(),
            check: None,
            repaired: None,
            due: Vec::new(),
            failing: false,
            asleep,
        }
    }

    /// Runs until it is told to stop or nobody is left to tell it.
    pub(crate) fn run(mut self, orders: &Receiver<LeaseCommand>) {
        let mut next = Instant::now();
        loop {
            self.liveness.beat();
            let period = self.period();
            let left = period.map_or(SIGN_INTERVAL, |_| next.saturating_duration_since(Instant::now()));
            let order = orders.recv_timeout(left.min(SIGN_INTERVAL));
            match order {
                Ok(LeaseCommand::Stop) => {
                    if let Some(fence) = &mut self.fence {
                        // The next start replaces what is left.
                        let _ = fence.uninstall();
                    }
                    return;
                }
                Ok(order) => {
                    self.handle(order);
                    if self.period() != period {
                        next = Instant::now() + TICK;
                    }
                }
                // Only a sign of life.
                Err(RecvTimeoutError::Timeout) if period.is_none() || left > SIGN_INTERVAL => {}
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    let on_time = self.stats.woke(now.saturating_duration_since(next));
                    self.tick(now, asleep());
                    if let Some(watchdog) = self.watchdog.as_mut().filter(|_| on_time && !self.failing) {
                        watchdog.feed(now);
                    }
                    // Ticks that were missed are not made up for.
                    next = now + self.period().unwrap_or(TICK);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Time to the next tick; without virtual IPs and watchdog there is nothing to wake for.
    fn period(&self) -> Option<Duration> {
        match (&self.watchdog, self.held.is_empty() && self.check.is_none()) {
            (_, false) => Some(TICK),
            (Some(watchdog), true) => Some(watchdog.period()),
            (None, true) => None,
        }
    }

    fn handle(&mut self, order: LeaseCommand) {
        match order {
            LeaseCommand::Open(request, reply) => {
                let _ = reply.send(self.open(request));
            }
            LeaseCommand::Quiesce(until, reply) => {
                for held in &mut self.held {
                    held.quiet_until = held.quiet_until.max(Some(until));
                }
                let quiet = quiet(&self.held);
                let _ =
                    reply.send(self.on_fence("keep new connections out by", |fence| fence.quiesce(&quiet)));
            }
            LeaseCommand::Shut(address, reply) => {
                for held in self.held.extract_if(.., |held| held.request.address == address) {
                    held.request.shown.clear();
                }
                let _ = reply.send(self.on_fence("shut", |fence| fence.shut(address)));
            }
            LeaseCommand::Forget(address) => {
                if !self.held.iter().any(|held| held.request.address == address) {
                    self.fenced.remove(&address);
                    // A fence around an address that is not here disturbs nobody, and the next start removes it.
                    let _ = self.on_fence("remove", |fence| fence.forget(address));
                }
            }
            LeaseCommand::Moved(address, index, interface) => {
                if let Some(held) = self.held.iter_mut().find(|held| held.request.address == address) {
                    held.request.index = index;
                    held.request.interface = interface;
                }
                self.guard_egress();
            }
            LeaseCommand::Gone(index) => {
                if let Some(fence) = &mut self.fence {
                    fence.unguard_egress(index);
                }
            }
            LeaseCommand::Check => self.check_fence(Instant::now()),
            // Handled by the loop.
            LeaseCommand::Stop => (),
        }
    }

    /// Fences announcements on the interface of everything that is held.
    fn guard_egress(&mut self) {
        if let Some(fence) = &mut self.fence {
            // Those of an interface that is gone have none.
            for held in self.held.iter().filter(|held| held.request.index != 0) {
                fence.guard_egress(held.request.index, &held.request.interface);
            }
            self.stats.announcements_fenced(fence.fences_announcements());
        }
    }

    fn on_fence(
        &mut self,
        doing: &'static str,
        mut act: impl FnMut(&mut Nft) -> std::io::Result<()>,
    ) -> Result<(), VipError> {
        let Some(fence) = &mut self.fence else { return Ok(()) };
        let Err(source) = act(fence) else { return Ok(()) };
        // When someone has removed the tables, they come back before the order is carried out.
        let repaired = self.repair(Instant::now());
        let Some(fence) = &mut self.fence else { return Ok(()) };
        let again = repaired.map_or(Err(source), |()| act(fence));
        again.map_err(|source| VipError::Fence { table: fence.table().to_owned(), doing, source })
    }

    /// What the kernel is to have: everything that is fenced, and until when it was told that what is held is open.
    fn wanted(&self) -> DesiredFence {
        let running = self.held.iter().filter(|held| !held.lapsed);
        let leases = running
            .map(|held| FenceTimeout { address: held.request.address, until: held.open_until })
            .collect();
        DesiredFence { fenced: self.fenced.iter().copied().collect(), leases, quiet: quiet(&self.held) }
    }

    /// Compares the fence with what it should be, and puts it back when it differs.
    fn check_fence(&mut self, now: Instant) {
        let wanted = self.wanted();
        let Some(fence) = &mut self.fence else { return };
        // Against somebody who changes it all the time, no more than a tick's worth of work.
        let rested = self.repaired.map_or(now, |last| last + TICK);
        if rested > now {
            self.check = Some(rested);
            return;
        }
        self.check = None;
        match fence.difference(&wanted) {
            Ok(None) => (),
            Ok(Some(what)) => self.put_back(what, now),
            // Somebody else's transactions came in between each time.
            Err(_) => self.check = Some(now + CHECK_RETRY),
        }
    }

    fn put_back(&mut self, what: String, now: Instant) {
        self.repaired = Some(now);
        match self.repair(now) {
            Ok(()) => {
                self.commands.send(MaintenanceCommand::FenceRebuilt(what));
                self.works();
            }
            Err(error) => {
                self.check = Some(now + CHECK_RETRY);
                self.fails(&format!("{what}; it cannot be put back: {error}"));
            }
        }
    }

    fn fails(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            self.commands.send(MaintenanceCommand::FenceFailed(why.to_owned()));
        }
    }

    fn works(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            self.commands.send(MaintenanceCommand::FenceHolds);
        }
    }

    /// Puts the tables back, with all that is fenced, and what has a lease open as before.
    fn repair(&mut self, now: Instant) -> std::io::Result<()> {
        for held in self.held.iter_mut().filter(|held| !held.lapsed) {
            let lease = held.request.lease.running(now);
            held.open_until = lease.map_or(held.open_until, |until| until.max(held.open_until));
        }
        let wanted = self.wanted();
        let Some(fence) = &mut self.fence else { return Ok(()) };
        let restored = fence.restore(&wanted);
        if restored.is_ok() {
            for held in self.held.iter().filter(|held| !held.lapsed) {
                held.request.shown.set(held.open_until);
            }
        }
        self.guard_egress();
        restored
    }

    fn open(&mut self, request: FenceRequest) -> Result<(), VipError> {
        let (address, now) = (request.address, Instant::now());
        let until = request.lease.until().unwrap_or(now);
        self.fenced.insert(address);
        self.on_fence("close", |fence| fence.enclose(address))?;
        self.on_fence("open", |fence| fence.arm(&[FenceTimeout { address, until }]))?;
        if self.fence.is_some() {
            request.shown.set(until);
        }
        self.held.push(OpenFence { request, open_until: until, lapsed: false, quiet_until: None });
        self.guard_egress();
        Ok(())
    }

    /// Looks at every lease, `asleep` being how long the machine has slept since its start.
    fn tick(&mut self, now: Instant, asleep: Duration) {
        if asleep.saturating_sub(self.asleep) > SLEPT {
            self.after_sleep(now);
        }
        self.asleep = self.asleep.max(asleep);
        self.renew(now);
        if self.check.is_some_and(|due| due <= now) {
            self.check_fence(now);
        }
        for held in self.held.iter_mut().filter(|held| !held.lapsed && held.open_until <= now) {
            held.lapsed = true;
            self.commands.send(MaintenanceCommand::Lapsed(held.request.address));
        }
    }

    /// Tells the kernel of every lease that has been extended since the last time.
    fn renew(&mut self, now: Instant) {
        self.due.clear();
        self.due.extend(self.held.iter().filter_map(|held| {
            let until = held.request.lease.running(now).filter(|until| *until > held.open_until)?;
            Some(FenceTimeout { address: held.request.address, until })
        }));
        if self.due.is_empty() {
            return;
        }
        if let Err(error) = self.arm(now) {
            self.fails(&error.to_string());
            return;
        }
        self.works();
        for armed in &self.due {
            let Some(held) = self.held.iter_mut().find(|held| held.request.address == armed.address) else {
                continue;
            };
            held.open_until = armed.until;
            if self.fence.is_some() {
                held.request.shown.set(armed.until);
            }
            if std::mem::replace(&mut held.lapsed, false) {
                self.commands.send(MaintenanceCommand::Resumed(armed.address));
            }
        }
    }

    fn arm(&mut self, now: Instant) -> std::io::Result<()> {
        let Some(fence) = &mut self.fence else { return Ok(()) };
        match fence.arm(&self.due) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.repair(now)?;
                self.repaired = Some(now);
                self.commands.send(MaintenanceCommand::FenceRebuilt(error.to_string()));
                // What was due may have lapsed before, which putting back does not open.
                self.fence.as_mut().map_or(Ok(()), |fence| fence.arm(&self.due))
            }
            other => other,
        }
    }

    /// The monotonic clock stands still while a machine sleeps, for others it went on.
    fn after_sleep(&mut self, now: Instant) {
        for held in &mut self.held {
            held.request.lease.end();
            held.open_until = held.open_until.min(now);
            if let Some(fence) = &mut self.fence {
                // What fails here expires.
                let _ = fence.shut(held.request.address);
            }
        }
        self.commands.send(MaintenanceCommand::Slept);
    }
}

/// Time that the machine has slept since its start, as the difference of its two clocks tells: no more than that, and less
/// when this thread was stopped in between.
fn asleep() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let with_sleep = read(ClockId::Boottime);
    with_sleep.saturating_sub(read(ClockId::Monotonic))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::lease::Lease;
    use crate::maintenance::command_queue;

    #[test]
    fn leases_lapse_resume_and_end_with_the_sleep_of_the_machine() {
        let (commands, received, _waker) = command_queue().unwrap();
        let mut thread =
            LeaseThread::new(None, commands, Arc::default(), None, ThreadLiveness::new("vip lease"));
        let (address, lease) = (IpAddr::from([192, 0, 2, 1]), Lease::new());
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        lease.extend(at(280));
        let (index, interface, shown) = (1, "eth0".to_owned(), Arc::default());
        thread.open(FenceRequest { address, index, interface, lease: lease.clone(), shown }).unwrap();

        let asleep = thread.asleep;
        thread.tick(at(279), asleep);
        assert!(received.try_recv().is_err());
        thread.tick(at(280), asleep);
        assert!(matches!(received.try_recv(), Ok(MaintenanceCommand::Lapsed(lapsed)) if lapsed == address));
        thread.tick(at(300), asleep);
        assert!(received.try_recv().is_err());
        lease.extend(at(600));
        thread.tick(at(320), asleep);
        assert!(
            matches!(received.try_recv(), Ok(MaintenanceCommand::Resumed(resumed)) if resumed == address)
        );

        thread.tick(at(340), asleep + SLEPT);
        assert!(received.try_recv().is_err());
        thread.tick(at(360), asleep + SLEPT * 3);
        assert!(matches!(received.try_recv(), Ok(MaintenanceCommand::Slept)));
        assert_eq!(lease.until(), None);
        // The next quorum may extend it again.
        lease.extend(at(900));
        thread.tick(at(380), asleep + SLEPT * 3);
        assert_eq!(lease.running(at(380)), Some(at(900)));
    }
}
