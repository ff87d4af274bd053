//! The thread that does what the machine wants.

mod placement;
mod withdraw;

pub(super) use placement::PlacementProblem;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};
use trestle_consensus::Consensus;
use trestle_engine::ownership::{self, Cause, Elected, Fault, Ownership, OwnershipAction, OwnershipEvent};
use trestle_model::{ClusterState, Command, MemberId, MemberName, Proposal, Tenure};
use trestle_vip::{Fence, InterfaceVip, KernelSettings, Lease, LinuxKernel, VipError};

use super::fit::OwnAddresses;
use super::{Shared, VipCommand, raft_events, watchdog};
use crate::events::{Event as Happened, Journal};
use crate::member::Member;
use crate::supervise::{Liveness, Supervisor};

/// Longest time without a look at what nobody reports, such as an interface that appears.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a record may wait for a quorum before it is proposed again.
const RECORD_WAIT: Duration = Duration::from_millis(500);
/// Time between two attempts to get hold of the kernel, when it failed for a reason that may pass.
const KERNEL_RETRY: Duration = Duration::from_secs(5);

/// How far this member has the kernel in its hands.
enum KernelState {
    /// Not needed so far.
    Unused,
    Open(Arc<LinuxKernel>),
    /// Not to be had, and when to try again.
    Failed(Option<Instant>),
}

pub(super) struct Owner {
    shared: Arc<Shared>,
    commands: Sender<VipCommand>,
    name: MemberName,
    /// Where this member itself is.
    own: OwnAddresses,
    real_time: bool,
    consensus: Consensus,
    kernel_state: KernelState,
    state: Arc<ClusterState>,
    me: Option<MemberId>,
    leases: BTreeMap<IpAddr, Lease>,
    /// What the machine was last told of the kernel: address present, fence open.
    told: BTreeMap<IpAddr, (bool, bool)>,
    /// How this member came to lead.
    elected: Elected,
    /// The last term in which it gave the virtual IPs up because it was unfit.
    left_in: Option<u64>,
    /// Answers to what was sent before this moment prove nothing: the machine slept.
    slept: Duration,
    wake: Option<Duration>,
    /// Whether a record waits for its answer.
    recording: Arc<AtomicBool>,
    idle_watchdog: Option<watchdog::Systemd>,
    supervisor: Supervisor,
    journal: Journal,
    whole: watchdog::Whole,
    /// This member was removed and holds nothing any more.
    withdrawn: bool,
    /// When to look next for what an earlier run of this removed member left in the kernel.
    cleanup_at: Option<Instant>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, commands: Sender<VipCommand>, member: &Arc<Member>) -> Self {
        let weak = Arc::downgrade(member);
        // A member that is gone has no parts to miss.
        let whole: watchdog::Whole = Arc::new(move || weak.upgrade().is_none_or(|member| member.is_whole()));
        Self {
            shared,
            commands,
            name: member.config.name.clone(),
            own: OwnAddresses::of(&member.config),
            real_time: member.config.vip.real_time,
            consensus: member.consensus.clone(),
            kernel_state: KernelState::Unused,
            state: Arc::default(),
            me: None,
            leases: BTreeMap::new(),
            told: BTreeMap::new(),
            elected: Elected::ByTransfer,
            left_in: None,
            slept: Duration::ZERO,
            wake: None,
            recording: Arc::default(),
            idle_watchdog: watchdog::Systemd::from_environment(&whole),
            supervisor: member.supervisor.clone(),
            journal: member.journal.clone(),
            whole,
            withdrawn: false,
            cleanup_at: None,
        }
    }

    /// Takes what is in the queue.
    pub(super) fn begin(&mut self, queue: &Receiver<VipCommand>) {
        while let Ok(command) = queue.try_recv() {
            self.handle(command);
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<VipCommand>, pulse: &Liveness) {
        let mut look = Instant::now() + POLL_INTERVAL;
        loop {
            pulse.beat();
            self.shared.beat();
            if matches!(self.kernel_state, KernelState::Unused | KernelState::Failed(_))
                && let Some(watchdog) = &mut self.idle_watchdog
            {
                watchdog.feed(Instant::now());
            }
            let wake = self.wake.map_or(look, |at| look.min(self.shared.instant(at)));
            match queue.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(VipCommand::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => self.feed(OwnershipEvent::Tick),
            }
            if Instant::now() >= look {
                look = Instant::now() + POLL_INTERVAL;
                self.reconcile();
                self.watch_kernel();
                self.clean_up();
            }
        }
        self.release_all();
        // What is done gives no signs of life.
        self.shared.silence.is_no_fault();
    }

    /// The kernel's threads have no say of their own when they end.
    fn watch_kernel(&self) {
        if let KernelState::Open(kernel) = &self.kernel_state
            && let Some(name) = kernel.ended_thread()
        {
            self.supervisor.fail(name, "it has ended; see the log");
        }
    }

    fn handle(&mut self, command: VipCommand) {
        match command {
            VipCommand::Begin(me) if self.me.is_none() => {
                self.me = Some(me);
                (self.withdrawn, self.cleanup_at) = (false, None);
                *self.shared.machine() = Some(Ownership::new(me, self.shared.lease));
                // What an earlier run left is scrubbed when the kernel is opened, which happens before anything is claimed.
                // Until then its fence has shut: voters wait that long after a start.
                self.feed(OwnershipEvent::CleanedUp);
                self.reconcile();
            }
            VipCommand::Begin(_) | VipCommand::End => {}
            VipCommand::Withdraw => self.withdraw(),
            // What a removed member knew is nobody's configuration any more.
            VipCommand::State(_) if self.withdrawn => {}
            VipCommand::State(state) => {
                self.state = state;
                self.reconcile();
            }
            VipCommand::Event(OwnershipEvent::QuorumAcked { sent, .. }) if sent < self.slept => {}
            VipCommand::Event(event) => {
                if let OwnershipEvent::Leading { term, elected } = event {
                    self.elected = elected;
                    if self.left_in != Some(term) {
                        self.shared.status().back_off.leads();
                    }
                }
                self.feed(event);
            }
            VipCommand::Kernel(event) => self.on_kernel_event(event),
        }
    }

    /// Tells the machine something, and what comes of it, until nothing more does.
    fn feed(&mut self, event: OwnershipEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            // What is still to come in time is said anew each time; a moment that has passed would be waited for for ever.
            self.wake = None;
            let actions = match self.shared.machine().as_mut() {
                Some(machine) => machine.handle(event, self.shared.now()),
                None => return,
            };
            for action in actions {
                self.act(action, &mut events);
            }
            if events.is_empty() {
                self.report(&mut events);
            }
        }
    }

    fn act(&mut self, action: OwnershipAction, events: &mut VecDeque<OwnershipEvent>) {
        // What the kernel is asked for takes a while when there are many virtual IPs.
        self.shared.beat();
        match action {
            OwnershipAction::CleanUp => events.push_back(OwnershipEvent::CleanedUp),
            OwnershipAction::ProposeTake { term, reach } => self.propose_take(term, reach),
            OwnershipAction::Claim { address, vip, until }
            | OwnershipAction::Repair { address, vip, until } => {
                self.claim(address, &vip, until);
            }
            OwnershipAction::Renew { address, until } => {
                if let Some(lease) = self.leases.get(&address) {
                    lease.extend(self.shared.instant(until));
                }
            }
            OwnershipAction::Quiesce { until } => self.quiesce(until),
            OwnershipAction::Release { address, .. } => {
                self.release(address);
                events.push_back(OwnershipEvent::Kernel { address, present: false, open: false });
            }
            // The kernel's own thread announces.
            OwnershipAction::Announce { .. } => {}
            OwnershipAction::ProposeRelease { term, cause } => {
                self.back_off(term, cause);
                self.propose_release(term, cause);
            }
            OwnershipAction::TransferLeadership { to } => self.transfer(to),
            OwnershipAction::WakeAt(at) => self.wake = Some(at),
        }
    }

    fn claim(&mut self, address: IpAddr, vip: &ownership::ServedVip, until: Duration) {
        let KernelState::Open(kernel) = &self.kernel_state else { return };
        if vip.interface.is_empty() {
            return;
        }
        let kernel = kernel.clone();
        let lease = self.leases.entry(address).or_default();
        lease.extend(self.shared.instant(until));
        let wanted = InterfaceVip { address, prefix: vip.prefix_len, interface: vip.interface.to_string() };
        self.told.remove(&address);
        match kernel.claim(&wanted, lease) {
            Ok(()) => {
                info!(vip = %wanted, "holds");
                self.shared.status().refused.remove(&address);
            }
            // Its own threads put back what is missing.
            Err(VipError::Held(_)) => {}
            Err(error) => self.refused(address, error.to_string()),
        }
    }

    fn quiesce(&self, until: Duration) {
        let KernelState::Open(kernel) = &self.kernel_state else { return };
        if let Err(error) = kernel.quiesce(until.saturating_sub(self.shared.now())) {
            warn!(%error, "connections that come during the move may fail");
        }
    }

    fn release(&mut self, address: IpAddr) {
        if let Some(lease) = self.leases.remove(&address) {
            lease.end();
        }
        self.told.remove(&address);
        // What is not wanted is not refused.
        self.shared.status().refused.remove(&address);
        let KernelState::Open(kernel) = &self.kernel_state else { return };
        match kernel.release(address) {
            Ok(()) => info!(vip = %address, "released"),
            // It was never claimed, or the claim failed.
            Err(VipError::NotHeld(_)) => {}
            Err(error) => {
                warn!(vip = %address, %error, "not released at once; it falls silent with its lease")
            }
        }
    }

    /// Notes why the kernel would not take a virtual IP, and says so once. It is asked again as long as the machine wants it.
    fn refused(&self, address: IpAddr, why: String) {
        let known = self.shared.status().refused.insert(address, why.clone());
        if known.as_ref() != Some(&why) {
            self.journal.emit(&Happened::Unserved { vip: address, why });
        }
    }

    /// Tells the machine what the kernel has of everything that the machine holds, where that is news.
    fn report(&mut self, events: &mut VecDeque<OwnershipEvent>) {
        let held: Vec<IpAddr> = match self.shared.machine().as_ref() {
            Some(machine) => machine.facts().map(|facts| facts.address).collect(),
            None => return,
        };
        let (KernelState::Open(kernel), false) = (&self.kernel_state, held.is_empty()) else { return };
        let (facts, now) = (kernel.facts(), Instant::now());
        for address in held {
            let found = facts.vips.iter().find(|found| found.vip.address == address);
            let present = found.is_some_and(|found| found.address_present);
            let open = found.is_some_and(|found| found.fence_until.is_some_and(|until| until > now));
            if self.told.insert(address, (present, open)) != Some((present, open)) {
                events.push_back(OwnershipEvent::Kernel { address, present, open });
            }
        }
    }

    fn on_kernel_event(&mut self, event: trestle_vip::KernelEvent) {
        use trestle_vip::KernelEvent as Seen;
        self.journal.emit(&Happened::Kernel(event.clone()));
        if event == Seen::Slept {
            self.slept = self.shared.now();
        }
        match event {
            Seen::Conflict { address, .. } => self.feed(OwnershipEvent::Foreign { address, term: None }),
            _ => self.feed(OwnershipEvent::Tick),
        }
    }

    /// Opens the kernel once there is something to hold.
    fn open_kernel(&mut self) {
        let wanted = !self.state.vips.is_empty();
        let due = match &self.kernel_state {
            KernelState::Unused => wanted,
            KernelState::Open(_) => false,
            KernelState::Failed(again) => wanted && again.is_some_and(|at| Instant::now() >= at),
        };
        if !due {
            return;
        }
        match LinuxKernel::open(self.settings()) {
            Ok(kernel) => {
                let fence = kernel.facts().fence;
                if let Fence::Degraded { why } = &fence {
                    warn!(
                        why,
                        "no nftables: virtual IPs are fenced by their lifetimes alone, so they move slower"
                    );
                    if let Some(machine) = self.shared.machine().as_mut() {
                        machine.set_lease(self.shared.lease.degraded());
                    }
                }
                let kernel = Arc::new(kernel);
                let mut status = self.shared.status();
                (status.kernel, status.unable) = (Some(kernel.clone()), None);
                drop(status);
                self.kernel_state = KernelState::Open(kernel);
                self.feed(OwnershipEvent::Fault { fault: Fault::Unable, present: false });
            }
            Err(error) => {
                warn!(%error, "this member cannot hold virtual IPs");
                let passing = !matches!(error, VipError::Capability(_));
                self.kernel_state = KernelState::Failed(passing.then(|| Instant::now() + KERNEL_RETRY));
                self.shared.status().unable = Some(error.to_string());
                self.feed(OwnershipEvent::Fault { fault: Fault::Unable, present: true });
            }
        }
    }

    fn settings(&self) -> KernelSettings {
        let commands = self.commands.clone();
        KernelSettings {
            name: self.name.to_string(),
            real_time: self.real_time,
            watchdog: watchdog::Systemd::from_environment(&self.whole).map(watchdog::Systemd::into_watchdog),
            on_event: Box::new(move |event| {
                let _ = commands.send(VipCommand::Kernel(event));
            }),
        }
    }

    fn propose_take(&self, term: u64, reach: Duration) {
        let Some(member) = self.me else { return };
        let tenure = Tenure { member, term, reach, released: false };
        let reason = raft_events::why_it_leads(self.elected, term);
        self.record(term, Command::TakeVips { tenure, time_ms: wall_clock(), reason: reason.into() });
    }

    fn propose_release(&self, term: u64, cause: Cause) {
        let Some(member) = self.me else { return };
        let reason = self.cause_text(cause).into();
        self.record(term, Command::ReleaseVips { member, term, time_ms: wall_clock(), reason });
    }

    /// A cause, with what is known of it.
    fn cause_text(&self, cause: Cause) -> String {
        let Cause::Unfit(fault) = cause else { return cause.to_string() };
        let status = self.shared.status();
        let words: Vec<&str> =
            status.faults.iter().filter(|(key, _)| key.fault == fault).map(|(_, words)| &**words).collect();
        if words.is_empty() {
            cause.to_string()
        } else {
            format!("the holder was unfit: {}", words.join("; "))
        }
    }

    /// Counts as unfit for a while for what it gives the virtual IPs up for.
    fn back_off(&mut self, term: u64, cause: Cause) {
        // The record may have to be proposed more than once.
        if let Cause::Unfit(fault) = cause
            && self.left_in.replace(term) != Some(term)
        {
            let now = self.shared.now();
            self.shared.status().back_off.left(fault, now);
        }
    }

    /// Proposes a record as the leader of `term`, one at a time. The machine wants it again if it does not come about.
    fn record(&self, term: u64, command: Command) {
        if self.recording.swap(true, Ordering::AcqRel) {
            return;
        }
        let (consensus, recording) = (self.consensus.clone(), self.recording.clone());
        self.consensus.runtime().spawn(async move {
            let proposal = Proposal { origin: None, request: None, command };
            let done = consensus.propose_in_term(proposal, term, RECORD_WAIT).await;
            recording.store(false, Ordering::Release);
            if let Err(error) = done {
                warn!(%error, "the record of who holds the virtual IPs was not written; it is tried again");
            }
        });
    }

    fn transfer(&self, to: MemberId) {
        let consensus = self.consensus.clone();
        self.consensus.runtime().spawn(async move {
            match consensus.transfer(Some(to)).await {
                Ok((to, term)) => info!(%to, term, "handed leadership over"),
                Err(error) => warn!(%error, "leadership was not handed over"),
            }
        });
    }

    /// Releases everything. The kernel's threads end with the last handle on it. The machine stays as it is, for votes.
    fn release_all(&mut self) {
        for address in self.leases.keys().copied().collect::<Vec<_>>() {
            self.release(address);
        }
        self.shared.status().kernel = None;
        self.kernel_state = KernelState::Unused;
    }
}

fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
