//! What the owner, the votes and the status of virtual IPs share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trestle_consensus::VoteGuard;
use trestle_engine::SILENT_MAX;
use trestle_engine::ownership::{BackOff, Cause, Fault, FaultKey, LeaseTiming, Ownership};
use trestle_model::Revision;

use super::kernel::Kernel;
use super::silence::Silence;
use super::stall::Stall;

/// Added to the lease before an owner counts as hung, for a busy machine. A leader's owner hears of every heartbeat, and looks around
/// each second besides.
const OWNER_MARGIN: Duration = Duration::from_secs(1);

/// Added to the lease before the log counts as hung, for a disk that is slow once in a while.
const LOG_MARGIN: Duration = Duration::from_secs(1);

/// How long the log may hang before the watchdog restarts this process. A restart mends no disk, and what is served here goes on in
/// the meantime. A thread that hangs by a programming mistake is worth a restart.
const LOG_HOPELESS: Duration = Duration::from_secs(60);

/// A clock that never jumps. A simulation has one of its own for each member.
pub(super) trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Instant;
}

/// The clock of this machine, which stands still while the machine sleeps.
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// The faults of a member, each with its words.
pub(super) type Faults = BTreeMap<FaultKey, String>;

/// Why a virtual IP cannot be served here.
#[derive(Clone)]
pub(super) struct PlacementProblem {
    /// The words about the virtual IP.
    pub(super) problem: String,
    /// The words about the member, which is unfit because of it.
    pub(super) fault: String,
}

/// What the owner shows of itself.
#[derive(Default)]
pub(super) struct VipStatus {
    pub(super) kernel: Option<Arc<dyn Kernel>>,
    /// Why the kernel cannot be used at all.
    pub(super) unable: Option<String>,
    /// The interface on which each virtual IP is, or would be, served here.
    pub(super) interfaces: BTreeMap<IpAddr, String>,
    /// Virtual IPs that cannot be served here.
    pub(super) misplaced: BTreeMap<IpAddr, PlacementProblem>,
    /// Virtual IPs that are addresses of this member or of its host, with what they are.
    pub(super) own: BTreeMap<IpAddr, &'static str>,
    /// The revision of the configuration that these three were found with.
    pub(super) placed: Revision,
    /// Virtual IPs that the machine wants to serve and the kernel refused, with the reason.
    pub(super) refused: BTreeMap<IpAddr, String>,
    /// Why another member should hold them instead.
    pub(super) faults: Faults,
    /// The faults for which this member gave them up not long ago.
    pub(super) back_off: BackOff,
    /// The operator's own checks that fail, by name, with the reason.
    pub(super) checks: BTreeMap<String, String>,
    /// Checks whose last run failed, but which do not count as failing yet.
    pub(super) doubted_checks: BTreeSet<String>,
}

/// What the owner, the votes and the status share.
pub(super) struct Shared {
    clock: Box<dyn Clock>,
    /// The zero of the machine's clock.
    base: Instant,
    pub(super) lease: LeaseTiming,
    machine: Mutex<Option<Ownership>>,
    status: Mutex<VipStatus>,
    /// What is seen of the owner.
    pub(super) silence: Silence,
    /// What is seen of the thread that writes the log.
    pub(super) stall: Stall,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(lease: LeaseTiming, clock: Box<dyn Clock>) -> Self {
        Self {
            base: clock.now(),
            clock,
            lease,
            machine: Mutex::default(),
            status: Mutex::default(),
            silence: Silence::default(),
            stall: Stall::default(),
        }
    }

    /// The present on the machine's clock.
    pub(super) fn now(&self) -> Duration {
        self.moment(self.clock.now())
    }

    /// The present.
    pub(super) fn present(&self) -> Instant {
        self.clock.now()
    }

    /// Converts a moment of the machine's clock. One that is too far away is taken as a year from now.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        let far = || self.present() + Duration::from_secs(365 * 24 * 3600);
        self.base.checked_add(at).unwrap_or_else(far)
    }

    /// Converts a moment of this process to the machine's clock.
    pub(super) fn moment(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.base)
    }

    /// Notes that the owner runs.
    pub(super) fn beat(&self) {
        self.silence.end(self.now());
    }

    /// Looks once at whether the owner gives signs of life.
    pub(super) fn look_at_owner(&self) {
        self.silence.look(self.lease.length + OWNER_MARGIN, self.now());
    }

    /// How long the owner has given no sign of life, if it hangs: what it held is silent by then.
    pub(super) fn owner_hangs(&self) -> Option<Duration> {
        self.silence.of_hung(self.lease.length + OWNER_MARGIN, self.now())
    }

    /// For how long the log has not been written, if that is a reason for another member to lead.
    pub(super) fn log_hangs(&self) -> Option<Duration> {
        self.stall.over(self.lease.length + LOG_MARGIN)
    }

    /// For how long the thread that writes the log has given no sign of life, if that is worth telling.
    pub(super) fn log_silence(&self) -> Option<Duration> {
        self.stall.over(SILENT_MAX)
    }

    /// Whether nothing but a restart may help the thread that writes the log.
    pub(super) fn log_is_lost(&self) -> bool {
        self.stall.over(LOG_HOPELESS).is_some()
    }

    pub(super) fn status(&self) -> MutexGuard<'_, VipStatus> {
        locked(&self.status)
    }

    /// The same without waiting; `None` while another thread has it.
    pub(super) fn try_status(&self) -> Option<MutexGuard<'_, VipStatus>> {
        self.status.try_lock().ok()
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Option<Ownership>> {
        locked(&self.machine)
    }

    /// Faults for which this member still counts as unfit, present or not, with words for each.
    pub(super) fn recovering(&self) -> Vec<(Fault, String)> {
        let (now, status) = (self.now(), self.status());
        let recovering = status.back_off.recovering(now);
        let words = |(fault, rest): (Fault, Duration)| {
            let why = Cause::Unfit(fault);
            let seconds = rest.as_secs() + 1;
            (fault, format!("it gave virtual IPs up ({why}), and counts as fit again in {seconds} s"))
        };
        recovering.map(words).collect()
    }
}

/// Answers Raft's question whether this member may vote.
pub(super) struct VipVoteGuard(pub(super) Arc<Shared>);

impl VoteGuard for VipVoteGuard {
    fn may_vote(&self, term: u64) -> bool {
        let mut machine = self.0.machine();
        // A member without an identity has never held anything.
        machine.as_mut().is_none_or(|machine| machine.may_vote(term, self.0.now()))
    }

    fn voted(&self, term: u64, granted: bool) {
        if let Some(machine) = self.0.machine().as_mut() {
            machine.voted(term, granted);
        }
    }
}
