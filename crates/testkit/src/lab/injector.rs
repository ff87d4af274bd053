//! Makes the faults of a plan, between the machines of a lab.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Rlimit;
use tempfile::TempDir;

use super::disorder::Disorder;
use super::machines::{flood, flush_chain, limit_descriptors, reload_firewall, set_descriptors};
use super::{Cut, Freezer, Lab, MEMBERS, Obstacle, Trestle, VIP};
use crate::fake_clock::FakeClock;
use crate::faults::{
    FaultKind, FaultTarget, LoopDisk, PlannedFault, SyncFault, Tampered, copy_tree, replace_tree, tamper,
};

/// Bound on the end of a member that was asked to stop: its grace time and more.
const STOPPED: Duration = Duration::from_secs(60);
/// How long a slow disk takes for a write that is to be durable.
const SLOW: Duration = Duration::from_secs(1);
/// The thread that writes the log.
const LOG: &str = "trestle-log";

/// How a fault ends.
#[derive(Debug)]
enum Undo {
    Nothing,
    Start,
    Continue,
    Thaw { _by: Freezer },
    Paths(Vec<Obstacle>),
    Plug,
    Clock,
    Foreign,
    Hoard { _with: Vec<TcpStream> },
    Limit(Rlimit),
    Free,
    Tampered { _with: Option<Tampered> },
    PowerUp,
    PutBack(TempDir),
    Disordered { _by: Disorder },
}

/// A fault that has begun.
#[derive(Debug)]
struct Active {
    number: usize,
    member: usize,
    undo: Undo,
}

/// Makes faults and ends them.
#[derive(Debug)]
pub struct Injector {
    active: Vec<Active>,
    /// One for each member, or none.
    disks: Vec<LoopDisk>,
    clocks: Vec<FakeClock>,
    /// When processes ended without a word, on purpose or by their own decision.
    kills: Vec<Instant>,
}

impl Injector {
    /// Prepares members that have not been started for these kinds: gives them disks and clocks of their own where it takes any.
    /// `None`, with a word of explanation, where a program is missing.
    pub fn prepare(product: &mut Trestle, kinds: &[FaultKind]) -> Option<Self> {
        let takes = |wanted: &[FaultKind]| kinds.iter().any(|kind| wanted.contains(kind));
        let (mut disks, mut clocks) = (Vec::new(), Vec::new());
        let strace = takes(&[FaultKind::DiskError, FaultKind::SlowDisk]);
        if strace && !crate::has_tools(&["strace"]) {
            return None;
        }
        if takes(&[FaultKind::DiskFull, FaultKind::PowerCut]) {
            if !crate::has_tools(&LoopDisk::TOOLS) {
                return None;
            }
            disks = product.members.iter().map(|member| LoopDisk::at(&member.data_dir())).collect();
        }
        if takes(&[FaultKind::Disorder]) && !crate::has_tools(&["python3"]) {
            return None;
        }
        if takes(&[FaultKind::ClockAhead]) {
            for member in &mut product.members {
                let clock = FakeClock::new()?;
                clock.variables().into_iter().for_each(|(name, value)| member.environment(name, value));
                clocks.push(clock);
            }
        }
        Some(Self { active: Vec::new(), disks, clocks, kills: Vec::new() })
    }

    /// When processes ended without a word.
    pub fn kills(&self) -> &[Instant] {
        &self.kills
    }

    /// Begins the fault of this number in its plan; answers the member that has it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn begin(
        &mut self,
        lab: &Lab,
        product: &mut Trestle,
        number: usize,
        fault: &PlannedFault,
        holder: usize,
    ) -> usize {
        let wanted = match fault.target {
            FaultTarget::Member(member) => member,
            FaultTarget::Holder => holder,
        };
        let is_free = |member: &usize| !self.active.iter().any(|active| active.member == *member);
        let member = (0..MEMBERS).map(|place| (wanted + place) % MEMBERS).find(is_free).unwrap_or(wanted);
        if !product.members[member].is_running() {
            // It has ended by itself and nobody was there yet who starts it again.
            start(lab, product, member);
        }
        let undo = self.make(lab, product, fault.kind, member);
        self.active.push(Active { number, member, undo });
        self.lay_obstacles(lab);
        member
    }

    fn make(&mut self, lab: &Lab, product: &mut Trestle, kind: FaultKind, member: usize) -> Undo {
        let (host, own) = (&lab.members[member], &mut product.members[member]);
        match kind {
            FaultKind::Kill | FaultKind::QuickRestart | FaultKind::KillAll => {
                let all = if kind == FaultKind::KillAll { 0..MEMBERS } else { member..member + 1 };
                all.clone().for_each(|member| product.members[member].process().freeze_if_running());
                all.clone().for_each(|member| self.kill(product, member));
                if kind == FaultKind::Kill {
                    return Undo::Start;
                }
                all.for_each(|member| start(lab, product, member));
                Undo::Nothing
            }
            FaultKind::Terminate => {
                own.process().terminate();
                Undo::Start
            }
            FaultKind::Pause => {
                own.process().freeze();
                Undo::Continue
            }
            FaultKind::Freeze => {
                let freezer = Freezer::around(host).unwrap_or_else(|why| panic!("{why}"));
                freezer.freeze(true);
                Undo::Thaw { _by: freezer }
            }
            FaultKind::Move => {
                let to = own.name.clone();
                // It may be unfit, or there is nobody who could do it.
                let _ = product.try_run(lab, &["--timeout", "3s", "vip", "move", "--to", &to]);
                Undo::Nothing
            }
            FaultKind::DiskFull | FaultKind::DiskError | FaultKind::SlowDisk => {
                self.disk(product, kind, member)
            }
            FaultKind::PowerCut => {
                self.disks[member].cut_power();
                self.kill(product, member);
                Undo::PowerUp
            }
            FaultKind::PutBack => {
                let copy = TempDir::with_prefix("trestle-put-back-").unwrap();
                self.kill(product, member);
                copy_tree(&product.members[member].data_dir(), copy.path());
                start(lab, product, member);
                Undo::PutBack(copy)
            }
            FaultKind::CutOff
            | FaultKind::Mute
            | FaultKind::Deaf
            | FaultKind::CutFromNext
            | FaultKind::Loss(_) => Undo::Paths(obstacles(kind, member)),
            _ => self.make_around(lab, product, kind, member),
        }
    }

    /// Faults of what is around a member: its machine, its network, its clock.
    fn make_around(&self, lab: &Lab, product: &mut Trestle, kind: FaultKind, member: usize) -> Undo {
        let (host, own) = (&lab.members[member], &mut product.members[member]);
        match kind {
            FaultKind::FlushFirewall => {
                reload_firewall(host);
                Undo::Nothing
            }
            FaultKind::FlushChain => {
                flush_chain(host);
                Undo::Nothing
            }
            FaultKind::ClockAhead => {
                self.clocks[member].set(3600);
                Undo::Clock
            }
            FaultKind::Flood => Undo::Hoard { _with: flood(&lab.client, own.admin()) },
            FaultKind::NoDescriptors => Undo::Limit(limit_descriptors(own.process().id())),
            FaultKind::Disorder => {
                Undo::Disordered { _by: Disorder::begin(lab, member, self.kills.len() as u64) }
            }
            FaultKind::ForeignOwner => {
                lab.servers()[0].ip(&format!("address add {VIP}/32 dev eth0"));
                Undo::Foreign
            }
            FaultKind::Unplug => {
                lab.cable(member, false);
                Undo::Plug
            }
            other => panic!("{} cannot be made here", other.name()),
        }
    }

    fn disk(&mut self, product: &mut Trestle, kind: FaultKind, member: usize) -> Undo {
        let fault = match kind {
            FaultKind::DiskError => SyncFault::Error,
            FaultKind::SlowDisk => SyncFault::Delay(SLOW),
            _ => {
                // A member that cannot write ends, and its connections with it.
                self.kills.push(Instant::now());
                self.disks[member].fill();
                return Undo::Free;
            }
        };
        Undo::Tampered { _with: tamper(product.members[member].process().id(), LOG, fault) }
    }

    fn kill(&mut self, product: &mut Trestle, member: usize) {
        self.kills.push(Instant::now());
        product.members[member].kill();
    }

    /// Ends the fault of this number.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn end(&mut self, lab: &Lab, product: &mut Trestle, number: usize) {
        let Some(place) = self.active.iter().position(|active| active.number == number) else { return };
        let Active { member, undo, .. } = self.active.remove(place);
        match undo {
            Undo::Nothing
            | Undo::Paths(_)
            | Undo::Thaw { .. }
            | Undo::Hoard { .. }
            | Undo::Disordered { .. }
            | Undo::Tampered { .. } => {}
            Undo::Start => {
                product.members[member].process().exited(STOPPED);
                start(lab, product, member);
            }
            Undo::Continue => {
                if product.members[member].is_running() {
                    product.members[member].process().thaw();
                }
            }
            Undo::Plug => lab.cable(member, true),
            Undo::Clock => self.clocks[member].set(0),
            Undo::Foreign => lab.servers()[0].delete_address(VIP),
            Undo::Limit(before) => {
                if product.members[member].is_running() {
                    set_descriptors(product.members[member].process().id(), before);
                }
            }
            Undo::Free => self.disks[member].free(),
            Undo::PowerUp => {
                self.disks[member].power_up();
                start(lab, product, member);
            }
            Undo::PutBack(copy) => {
                self.kill(product, member);
                replace_tree(copy.path(), &product.members[member].data_dir());
                start(lab, product, member);
            }
        }
        self.lay_obstacles(lab);
    }

    /// Starts members that have ended by themselves, as a service manager does; answers how many.
    pub fn restart_ended(&mut self, lab: &Lab, product: &mut Trestle) -> usize {
        let down = |active: &Active| matches!(active.undo, Undo::Start | Undo::PowerUp);
        let mut ended = 0;
        for member in 0..MEMBERS {
            let meant = self.active.iter().any(|active| active.member == member && down(active));
            if !meant && !product.members[member].is_running() {
                self.kills.push(Instant::now());
                start(lab, product, member);
                ended += 1;
            }
        }
        ended
    }

    fn lay_obstacles(&self, lab: &Lab) {
        let laid = self.active.iter().filter_map(|active| match &active.undo {
            Undo::Paths(obstacles) => Some(obstacles.clone()),
            _ => None,
        });
        lab.obstruct(&laid.flatten().collect::<Vec<_>>());
    }
}

fn start(lab: &Lab, product: &mut Trestle, member: usize) {
    lab.members[member].run(|| product.members[member].spawn());
}

/// What is lost between members.
fn obstacles(kind: FaultKind, member: usize) -> Vec<Obstacle> {
    match kind {
        FaultKind::CutOff => Obstacle::of(Cut::Both(member)),
        FaultKind::Mute => Obstacle::of(Cut::From(member)),
        FaultKind::Deaf => Obstacle::of(Cut::To(member)),
        FaultKind::CutFromNext => Obstacle::of(Cut::Between(member, (member + 1) % MEMBERS)),
        FaultKind::Loss(percent) => Obstacle::of(Cut::Both(member))
            .into_iter()
            .map(|obstacle| Obstacle { percent, ..obstacle })
            .collect(),
        other => panic!("{} cannot be made here", other.name()),
    }
}
