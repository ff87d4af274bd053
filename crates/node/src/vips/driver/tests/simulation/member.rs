//! One member: its machine, and the process that runs there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_consensus::Leadership;
use trestle_engine::ownership::LeaseTiming;
use trestle_model::MemberId;

use super::raft::Raft;
use super::world::{Draws, Id, WorldBug, ms};
use crate::vips::command::VipCommand;
use crate::vips::driver::Driver;
use crate::vips::driver::tests::fakes::{FakeClock, FakeLedger, FakeMachine, configured, driver};
use crate::vips::shared::{Clock, Shared, VipVoteGuard};

pub(super) struct Member {
    id: Id,
    base: Instant,
    /// What the machine's clock shows at the beginning, and by how many millionths it is fast.
    offset: Duration,
    fast: i64,
    clock: FakeClock,
    pub(super) machine: FakeMachine,
    pub(super) raft: Raft,
    pub(super) process: Option<Process>,
    runs: u64,
    /// The whole process is stopped.
    pub(super) paused_until: Duration,
    pub(super) driver_hangs_until: Duration,
    pub(super) lease_hangs_until: Duration,
    /// When the driver is woken next.
    pub(super) next_wake: Option<Duration>,
}

pub(super) struct Process {
    /// Counts the processes of a member.
    pub(super) run: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) guard: VipVoteGuard,
    pub(super) driver: Driver,
    pub(super) ledger: FakeLedger,
    pub(super) inbox: VecDeque<(Duration, VipCommand)>,
    /// What was told last of Raft.
    pub(super) leadership: Option<Leadership>,
    pub(super) applied: Option<usize>,
}

pub(super) fn member_id(id: Id) -> MemberId {
    MemberId(id as u64 + 1)
}

impl Member {
    pub(super) fn new(id: Id, base: Instant, draws: &mut Draws, bug: Option<WorldBug>) -> Self {
        let clock = FakeClock::new(base);
        let most = if bug == Some(WorldBug::Drift) { 400_000 } else { 500 };
        let machine = FakeMachine::new(clock.clone());
        machine.tables().fences_stay = bug == Some(WorldBug::FencesStay);
        machine.tables().forgets_releases = bug == Some(WorldBug::ReleaseForgotten);
        Self {
            id,
            base,
            offset: draws.time(1, 100_000),
            fast: draws.below(2 * most + 1) as i64 - most as i64,
            clock,
            machine,
            raft: Raft::default(),
            process: None,
            runs: 0,
            paused_until: Duration::ZERO,
            driver_hangs_until: Duration::ZERO,
            lease_hangs_until: Duration::ZERO,
            next_wake: None,
        }
    }

    /// What this machine's clock shows.
    pub(super) fn local(&self, now: Duration) -> Duration {
        let nanoseconds = now.as_nanos() as i64;
        self.offset + Duration::from_nanos((nanoseconds + nanoseconds / 1_000_000 * self.fast) as u64)
    }

    /// When it shows this.
    fn global(&self, local: Duration) -> Duration {
        let nanoseconds = local.saturating_sub(self.offset).as_nanos() as i64;
        // Rounded up, so that what was waited for has come.
        Duration::from_nanos((nanoseconds - nanoseconds / 1_000_000 * self.fast) as u64)
            + Duration::from_micros(2)
    }

    pub(super) fn set_clock(&self, now: Duration) {
        self.clock.set(self.local(now));
    }

    pub(super) fn instant(&self, local: Duration) -> Instant {
        self.base + local
    }

    /// Starts a process on what is on disk; true for the first one.
    pub(super) fn process_starts(&mut self, now: Duration) -> bool {
        self.set_clock(now);
        self.runs += 1;
        let shared = Arc::new(Shared::new(LeaseTiming::default(), Box::new(self.clock.clone())));
        let ledger = FakeLedger::default();
        let mut driver = driver(&shared, &self.machine, &ledger);
        driver.handle(VipCommand::Begin(member_id(self.id)));
        driver.handle(VipCommand::State(configured()));
        let quarantine = if self.runs == 1 { ms(0) } else { ms(330) };
        self.raft.restart(self.local(now), quarantine);
        let guard = VipVoteGuard(shared.clone());
        let (run, inbox) = (self.runs, VecDeque::new());
        self.process =
            Some(Process { run, shared, guard, driver, ledger, inbox, leadership: None, applied: None });
        self.next_wake = None;
        self.runs == 1
    }

    /// The process is gone without a word.
    pub(super) fn process_ends(&mut self) {
        self.process = None;
        self.machine.process_ends();
    }

    pub(super) fn driver_runs(&self, now: Duration) -> bool {
        self.process.is_some() && now >= self.paused_until.max(self.driver_hangs_until)
    }

    pub(super) fn next_command(&mut self, now: Duration) -> Option<VipCommand> {
        let inbox = &mut self.process.as_mut()?.inbox;
        if inbox.front()?.0 > now { None } else { inbox.pop_front().map(|(_, command)| command) }
    }

    /// When the driver wants to be woken.
    pub(super) fn wake(&self) -> Option<Duration> {
        let at = self.process.as_ref()?.driver.wake()?;
        Some(self.global(at.saturating_duration_since(self.base)))
    }

    pub(super) fn describe(&self, now: Duration) -> String {
        self.set_clock(now);
        let state = self.process.as_ref().map(|process| {
            let (moment, machine) = (process.shared.now(), process.shared.machine());
            machine.as_ref().map(|machine| format!("{:?}", machine.state(moment)))
        });
        format!("{}: {:?} {:?} at {:?}", self.id, state, self.raft.role, self.clock.now() - self.base)
    }
}
