//! All members, the network between them, and time.

mod faults;
mod setup;

use std::path::Path;
use std::time::Duration;

use trestle_consensus::simulation::LogBounds;

use crate::clients::{Clients, carry_out};
use crate::draws::Draws;
use crate::history::History;
use crate::member::SimulatedMember;
use crate::network::{Link, MS, SimulatedNetwork};
use crate::plan::{FAULTS, Plan, ScheduledFault};
use crate::trace::Trace;
use setup::Setup;

/// Time between two steps. A moment before the next one, nothing has happened yet.
const STEP: u64 = MS;

/// How long everything may take to serve again once nothing goes wrong any more.
const RECOVERY: u64 = 12_000 * MS;
/// How long the virtual IP may be unserved then.
const VIP_RECOVERY: u64 = 6_000 * MS;
/// How long it must be served without a break after that.
const STEADY: u64 = 500 * MS;
/// How long the cluster may take to be founded.
const FOUNDING: u64 = 30_000 * MS;

/// A mistake that is planted, for the tests of the simulation itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Syncs do nothing.
    DiskLies,
    /// Clocks are fast or slow by up to two fifths.
    ClocksDrift,
    /// A voter that restarts does not wait for the lease that it may have promised.
    LeaseForgotten,
    /// A majority of the disks goes back in time at once.
    MajorityGoesBack,
    /// Fences shut by themselves a minute late.
    FencesLate,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunOutcome {
    pub(crate) trace: Trace,
    pub(crate) violations: Vec<String>,
    pub(crate) operations: u64,
    pub(crate) parcels: u64,
    pub(crate) faults: u64,
    pub(crate) terms: u64,
    pub(crate) moves: u64,
    pub(crate) syncs: u64,
    /// Virtual milliseconds of the whole, and from the last fault until everything served.
    pub(crate) length: u64,
    pub(crate) recovery: u64,
}

pub(crate) struct Simulation {
    now: u64,
    plan: Plan,
    planted: Option<Planted>,
    bounds: LogBounds,
    members: Vec<SimulatedMember>,
    network: SimulatedNetwork,
    clients: Clients,
    history: History,
    draws: Draws,
    /// What ends when.
    ends: Vec<(u64, End)>,
    /// When the cluster first served.
    began: u64,
    holder: Option<usize>,
    /// Since when nobody serves the virtual IP.
    unserved: Option<u64>,
    outcome: RunOutcome,
    verbose: bool,
}

/// The end of something that went wrong.
enum End {
    Links(Vec<(usize, usize)>),
    SlowDisk(usize),
    Machine(usize),
}

impl Simulation {
    pub(crate) fn new(seed: u64, root: &Path, planted: Option<Planted>, verbose: bool) -> Self {
        let mut plan = Plan::of(seed);
        let mut draws = Draws::new(seed ^ 0x5eed);
        if planted == Some(Planted::ClocksDrift) {
            plan.fast.iter_mut().for_each(|fast| *fast *= 800);
        }
        let bounds = LogBounds { snapshot_every: plan.snapshot_every, kept: 5, purged_at_once: 1 };
        let member = |id| SimulatedMember::new(id, root, plan.fast[id], plan.sync_ms);
        let mut members: Vec<SimulatedMember> = (0..plan.members).map(member).collect();
        for member in &mut members {
            member.leaps = if planted == Some(Planted::LeaseForgotten) { 400 * MS } else { 0 };
            member.disk.content().lies = planted == Some(Planted::DiskLies);
        }
        let network = SimulatedNetwork::new(plan.members, Draws::new(draws.next()));
        let clients = Clients::new(3, Draws::new(draws.next()));
        Self {
            now: 0,
            plan,
            planted,
            bounds,
            members,
            network,
            clients,
            history: History::default(),
            draws,
            ends: Vec::new(),
            began: 0,
            holder: None,
            unserved: None,
            outcome: RunOutcome::default(),
            verbose,
        }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> RunOutcome {
        if self.found() {
            self.began = self.now;
            self.network.state().twice = self.plan.twice;
            self.usual_links();
            self.go_wrong();
            if self.history.violations.is_empty() {
                self.recover();
            }
        }
        self.history.judge();
        for member in 0..self.members.len() {
            self.members[member].end_process(self.now, &self.network);
        }
        let state = self.network.state();
        self.outcome.trace = state.trace;
        self.outcome.parcels = state.delivered;
        self.outcome.operations = self.clients.operations;
        self.outcome.terms = self.history.last_term();
        self.outcome.syncs = self.members.iter().map(|member| member.disk.content().syncs).sum();
        self.outcome.length = self.now / MS;
        self.outcome.violations = std::mem::take(&mut self.history.violations);
        drop(state);
        self.outcome
    }

    #[expect(clippy::print_stderr, reason = "whoever asks for a trace reads it there")]
    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("[{:>9.3}] {}", self.now as f64 / 1e9, what());
        }
    }

    /// Founds the cluster, with all members as voters.
    fn found(&mut self) -> bool {
        let mut setup = Setup::default();
        while self.now < FOUNDING {
            self.step(false);
            if setup.step(self) {
                return true;
            }
            if !self.history.violations.is_empty() {
                return false;
            }
        }
        self.history.violated("the cluster can be founded", setup.standing());
        false
    }

    fn usual_links(&mut self) {
        let link = Link::new(self.plan.loss, self.plan.delay);
        self.network.state().links.iter_mut().flatten().for_each(|at| *at = link);
    }

    /// Faults by the plan, while clients read and write.
    fn go_wrong(&mut self) {
        let mut faults: std::collections::VecDeque<(u64, ScheduledFault)> = self.plan.faults.clone().into();
        while self.now < self.began + FAULTS.1 && self.history.violations.is_empty() {
            while let Some((_, fault)) = faults.pop_front_if(|(at, _)| self.began + *at <= self.now) {
                self.say(|| format!("{fault:?}"));
                self.outcome.faults += 1;
                self.apply(fault);
            }
            self.step(true);
        }
    }

    /// Nothing goes wrong any more: everything must serve again in time.
    fn recover(&mut self) {
        self.heal();
        self.say(|| "healed".to_owned());
        let healed = self.now;
        let mut settled = None;
        let mut probe = setup::Probe::default();
        while settled.is_none_or(|at| self.now < at + STEADY) {
            self.step(settled.is_none() && self.now < healed + 300 * MS);
            if !self.history.violations.is_empty() {
                return;
            }
            if settled.is_none() && probe.step(self) {
                settled = Some(self.now);
                self.outcome.recovery = (self.now - healed) / MS;
            }
            if settled.is_none() && self.now > healed + RECOVERY {
                let standing = self.standing();
                return self.history.violated("everything serves again after it healed", standing);
            }
            if let Some(since) = self.unserved
                && self.now > since.max(healed) + VIP_RECOVERY
            {
                let standing = self.standing();
                return self.history.violated("the virtual IP is served again after it healed", standing);
            }
        }
    }

    /// One moment.
    fn step(&mut self, asks: bool) {
        self.now += STEP;
        self.network.state().now = self.now;
        self.end_faults();
        self.start_processes();
        let count = self.members.len();
        for attempt in self.clients.step(self.now, count, asks, &mut self.history) {
            let member = &self.members[attempt.member];
            match (member.runs(self.now), member.consensus().cloned(), &member.process) {
                (true, Some(consensus), Some(process)) => {
                    member.set_clock(self.now);
                    let answers = self.clients.answers.clone();
                    process.step(|| carry_out(attempt, consensus, answers));
                }
                _ => self.clients.unreachable(&attempt),
            }
        }
        self.deliver_to_nobody();
        for id in 0..count {
            if self.members[id].runs(self.now) {
                self.members[id].step(self.now, &self.network);
            }
            self.members[id].observe(&mut self.history);
        }
        self.end_processes();
        self.watch_vip();
        if self.now.is_multiple_of(50 * MS) {
            let silent: Vec<bool> =
                self.members.iter().map(|member| self.now < member.paused_until).collect();
            self.network.state().keep_alive(&silent);
            let late = self.planted == Some(Planted::FencesLate);
            let more = if late { Duration::from_secs(60) } else { Duration::ZERO };
            self.members.iter().for_each(|member| member.set_fence_error(&mut self.draws, more));
        }
    }

    /// What arrives at machines without a process.
    fn deliver_to_nobody(&self) {
        let mut state = self.network.state();
        for member in self.members.iter().filter(|member| member.process.is_none()) {
            while state.is_due(member.id) {
                drop(state.take(member.id, false));
            }
        }
    }

    /// Processes end that have failed.
    fn end_processes(&mut self) {
        for id in 0..self.members.len() {
            let Some(process) = &self.members[id].process else { continue };
            let standing = process.standing();
            let (failed, refused) = (standing.failed.clone(), standing.refused.clone());
            drop(standing);
            if let Some(why) = refused {
                self.history
                    .violated("a disk that keeps its promise is not refused", format!("m{}: {why}", id + 1));
            }
            if let Some(why) = failed {
                self.say(|| format!("m{} ends: {why}", id + 1));
                self.members[id].end_process(self.now, &self.network);
                self.members[id].starts_at = Some(self.now + MS * self.draws.within(1, 200));
            }
        }
    }

    fn start_processes(&mut self) {
        for member in &mut self.members {
            if member.process.is_none() && member.starts_at.is_some_and(|at| at <= self.now) {
                member.start(self.now, &self.network, self.bounds);
            }
        }
    }

    /// At no moment do two members serve the virtual IP.
    fn watch_vip(&mut self) {
        let serving: Vec<usize> =
            (0..self.members.len()).filter(|id| self.members[*id].serves(self.now)).collect();
        match serving[..] {
            [] => self.unserved = self.unserved.or(Some(self.now)),
            [one] => {
                self.unserved = None;
                if self.holder.replace(one) != Some(one) {
                    self.say(|| format!("m{} serves the virtual IP", one + 1));
                    self.outcome.moves += 1;
                }
            }
            _ => {
                let who: Vec<usize> = serving.iter().map(|id| id + 1).collect();
                let what = format!("members {who:?} at {} ms", self.now / MS);
                self.history.violated("never two members serve the virtual IP", what);
            }
        }
    }

    fn standing(&self) -> String {
        let of = |member: &SimulatedMember| {
            let Some(consensus) = member.consensus() else {
                return format!("m{}: no process", member.id + 1);
            };
            let (role, view) = (consensus.role().borrow().clone(), consensus.view().borrow().clone());
            let problems = consensus.problems().join("; ");
            format!(
                "m{}: {} in term {}, applied {}, knows leader {:?}, voters {:?} {problems}",
                member.id + 1,
                role.state.as_str(),
                role.term,
                view.applied,
                role.leader.map(|(id, _)| id.0),
                view.voters.iter().map(|id| id.0).collect::<Vec<_>>(),
            )
        };
        self.members.iter().map(of).collect::<Vec<_>>().join("\n    ")
    }
}
