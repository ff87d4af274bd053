//! Time, and what happens when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::chaos::Trouble;
use super::member::Member;
use super::raft::Message;
use crate::vips::command::VipCommand;
use crate::vips::driver::tests::fakes::{Asked, vip};
use crate::vips::ledger::PendingRecord;

/// A member, counted from 0.
pub(super) type Id = usize;
pub(super) const MEMBERS: usize = 3;

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// When things begin to go wrong, and when they stop.
pub(super) const TROUBLE: std::ops::Range<Duration> = ms(1_000)..ms(6_000);
/// How long after that there may be no holder: a wrong guess at the successor, two elections, and a lease.
const RECOVERY: Duration = ms(4_000);
/// How long there must be one then.
const STEADY: Duration = ms(500);

/// Time between two ticks of a lease thread, and of a member's Raft.
const LEASE_TICK: Duration = trestle_vip::TICK;
const RAFT_TICK: Duration = ms(10);
const POLL_INTERVAL: Duration = ms(1_000);

/// A mistake in the world around the drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorldBug {
    /// Nothing but the process shuts a fence.
    FencesStay,
    /// Raft does not ask before it votes.
    VotesUnasked,
    /// Raft tells when the answer came, and not when the heartbeat left.
    LeaseFromAnswer,
    /// Clocks are fast or slow by up to two fifths.
    Drift,
    /// What is released stays open until its lease ends.
    ReleaseForgotten,
    /// The machine never hears of a tenure of somebody else, and so waits for no old lease.
    OldLeaseUnseen,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Times that a fence was opened for a new holder.
    pub(super) claims: u64,
    /// Those that followed a release on record.
    pub(super) hand_overs: u64,
    /// Steps of the simulation.
    pub(super) steps: u64,
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Self) {
        self.claims += other.claims;
        self.hand_overs += other.hand_overs;
        self.steps += other.steps;
    }
}

/// Draws by a seed.
pub(super) struct Draws(TestRng);

impl Draws {
    fn new(seed: u64) -> Self {
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::XorShift, &bytes))
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    /// True `percent` times of a hundred.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Milliseconds and parts of one, from `from` on and below `to`.
    pub(super) fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1_000 + self.below((to - from) * 1_000))
    }

    pub(super) fn member(&mut self) -> Id {
        self.below(MEMBERS as u64) as Id
    }
}

pub(super) enum Happening {
    Message {
        from: Id,
        to: Id,
        message: Message,
    },
    Raft(Id),
    Lease(Id),
    Driver(Id),
    Poll(Id),
    Asked {
        id: Id,
        run: u64,
        asked: Asked,
    },
    /// A proposal is answered, or given up.
    Answered(#[expect(dead_code, reason = "dropped when it happens")] PendingRecord),
    Trouble,
    End(Trouble),
    Start(Id),
}

pub(super) struct World {
    pub(super) now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    number: u64,
    pub(super) draws: Draws,
    pub(super) members: Vec<Member>,
    /// Which way messages do not go.
    pub(super) cut: [[bool; MEMBERS]; MEMBERS],
    /// Messages of a hundred that are lost, and the longest time that one takes.
    pub(super) loss: u64,
    pub(super) delay: u64,
    pub(super) bug: Option<WorldBug>,
    holder: Option<Id>,
    pub(super) outcome: Outcome,
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<WorldBug>) -> Self {
        let mut draws = Draws::new(seed);
        let base = Instant::now();
        let members = (0..MEMBERS).map(|id| Member::new(id, base, &mut draws, bug)).collect();
        let mut world = Self {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            number: 0,
            draws,
            members,
            cut: [[false; MEMBERS]; MEMBERS],
            loss: 0,
            delay: 3,
            bug,
            holder: None,
            outcome: Outcome::default(),
        };
        for id in 0..MEMBERS {
            world.at(ms(id as u64), Happening::Start(id));
        }
        world.at(TROUBLE.start, Happening::Trouble);
        world
    }

    pub(super) fn at(&mut self, at: Duration, what: Happening) {
        self.number += 1;
        self.queue.insert((at, self.number), what);
    }

    pub(super) fn after(&mut self, time: Duration, what: Happening) {
        self.at(self.now + time, what);
    }

    /// Runs to the end; the error is what went wrong.
    pub(super) fn run(mut self) -> Result<Outcome, String> {
        let (healed, end) = (TROUBLE.end + RECOVERY, TROUBLE.end + RECOVERY + STEADY);
        while let Some(((at, _), what)) = self.queue.pop_first() {
            if at >= end {
                break;
            }
            self.now = at;
            self.outcome.steps += 1;
            self.happen(what);
            let holders: Vec<Id> = (0..MEMBERS).filter(|id| self.serves(*id)).collect();
            match holders[..] {
                [] if at >= healed && self.bug.is_none() => {
                    return Err(format!("no holder at {at:?}: {}", self.standings()));
                }
                [] => {}
                [one] if self.holder != Some(one) => {
                    self.holder = Some(one);
                    self.outcome.claims += 1;
                }
                [_] => {}
                _ => return Err(format!("two holders at {at:?}: {holders:?}: {}", self.standings())),
            }
        }
        Ok(self.outcome)
    }

    fn standings(&self) -> String {
        let states = self.members.iter().map(|member| member.describe(self.now));
        states.collect::<Vec<_>>().join("; ")
    }

    fn serves(&self, id: Id) -> bool {
        let member = &self.members[id];
        member.set_clock(self.now);
        member.machine.is_open(vip())
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start(id) => self.start(id),
            Happening::Trouble => self.trouble(),
            Happening::End(trouble) => self.end(trouble),
            Happening::Answered(_) => {}
            Happening::Lease(id) => {
                let member = &mut self.members[id];
                if member.process.is_some() && self.now >= member.paused_until.max(member.lease_hangs_until) {
                    member.set_clock(self.now);
                    member.machine.tables().fence_error = self.draws.time(0, 12);
                    member.machine.lease_tick();
                }
                self.after(LEASE_TICK, Happening::Lease(id));
            }
            Happening::Raft(id) => {
                if self.runs(id) {
                    self.raft_tick(id);
                }
                self.after(RAFT_TICK, Happening::Raft(id));
            }
            Happening::Poll(id) => {
                if self.members[id].driver_runs(self.now) {
                    self.drive(id, |driver| driver.poll());
                }
                self.tell_targets();
                self.after(POLL_INTERVAL, Happening::Poll(id));
            }
            Happening::Driver(id) => self.run_driver(id),
            Happening::Message { from, to, message } => match self.members[to].process {
                Some(_) if self.runs(to) => self.receive(from, to, message),
                // It waits in the socket's buffer.
                Some(_) => {
                    let at = self.members[to].paused_until;
                    self.at(at, Happening::Message { from, to, message });
                }
                None => {}
            },
            Happening::Asked { id, run, asked } => {
                let at = self.members[id].paused_until;
                match &self.members[id].process {
                    Some(process) if process.run == run && at > self.now => {
                        self.at(at, Happening::Asked { id, run, asked });
                    }
                    Some(process) if process.run == run => self.asked(id, asked),
                    _ => {}
                }
            }
        }
    }

    /// Whether the process of a member runs.
    pub(super) fn runs(&self, id: Id) -> bool {
        let member = &self.members[id];
        member.process.is_some() && self.now >= member.paused_until
    }

    pub(super) fn send(&mut self, from: Id, to: Id, message: Message) {
        if self.cut[from][to] || self.draws.chance(self.loss) {
            return;
        }
        let delay = self.draws.time(0, self.delay) + Duration::from_micros(100);
        self.after(delay, Happening::Message { from, to, message });
    }

    /// A process starts.
    fn start(&mut self, id: Id) {
        let first = self.members[id].process_starts(self.now);
        if first {
            self.after(RAFT_TICK, Happening::Raft(id));
            self.after(LEASE_TICK, Happening::Lease(id));
            self.after(POLL_INTERVAL, Happening::Poll(id));
        }
    }

    /// Tells an owner something, in the order in which it is told.
    pub(super) fn tell(&mut self, id: Id, command: VipCommand) {
        let delay = if self.draws.chance(3) { self.draws.time(0, 120) } else { self.draws.time(0, 3) };
        let Some(process) = &mut self.members[id].process else { return };
        let ready = process.inbox.back().map_or(self.now + delay, |(last, _)| (self.now + delay).max(*last));
        process.inbox.push_back((ready, command));
        self.at(ready, Happening::Driver(id));
    }

    /// An owner takes what is ready, or is woken.
    fn run_driver(&mut self, id: Id) {
        let (now, member) = (self.now, &self.members[id]);
        if member.process.is_none() {
            return;
        }
        if !member.driver_runs(now) {
            let at = member.paused_until.max(member.driver_hangs_until);
            self.at(at, Happening::Driver(id));
            return;
        }
        while let Some(command) = self.members[id].next_command(now) {
            self.drive(id, |driver| driver.handle(command));
        }
        let member = &self.members[id];
        if member.wake().is_some_and(|wake| wake <= now) {
            self.drive(id, |driver| driver.tick());
        }
    }

    /// Has a driver do something, and takes what it asks of Raft.
    pub(super) fn drive(&mut self, id: Id, work: impl FnOnce(&mut super::super::super::Driver)) {
        let fails = self.now < TROUBLE.end;
        let (claim, release) = (self.draws.chance(5) && fails, self.draws.chance(8) && fails);
        let error = self.draws.time(0, 12);
        let member = &mut self.members[id];
        member.set_clock(self.now);
        let mut tables = member.machine.tables();
        (tables.fails.claim, tables.fails.release, tables.fence_error) = (claim, release, error);
        drop(tables);
        let Some(process) = &mut member.process else { return };
        work(&mut process.driver);
        let (run, asked) = (process.run, process.ledger.take());
        let wake = member.wake().filter(|wake| *wake > self.now);
        if let Some(wake) = wake.filter(|wake| member.next_wake != Some(*wake)) {
            member.next_wake = Some(wake);
            self.at(wake, Happening::Driver(id));
        }
        for asked in asked {
            let late = self.draws.chance(5) && fails;
            let delay = if late { self.draws.time(0, 600) } else { self.draws.time(0, 2) };
            match asked {
                Asked::Propose { pending, .. } if fails && self.draws.chance(5) => {
                    self.after(ms(500), Happening::Answered(pending));
                }
                Asked::Transfer(_) if fails && self.draws.chance(5) => {}
                asked => self.after(delay, Happening::Asked { id, run, asked }),
            }
        }
    }
}
