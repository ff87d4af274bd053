//! Carries out the actions of the machine of [`trestle_engine::ownership`], and reports their results to it. The driver has no
//! thread and no clock of its own, and knows the kernel and Raft's log only as [`Kernel`] and [`Ledger`].

mod calls;
mod placement;
mod records;
#[cfg(test)]
mod tests;
mod withdraw;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use trestle_engine::ownership::{Elected, Ownership, OwnershipAction, OwnershipEvent};
use trestle_model::{ClusterState, MemberId, MemberName};
use trestle_vip::{KernelEvent, Lease};

use super::command::VipCommand;
use super::fit::OwnAddresses;
use super::kernel::{Host, Kernel};
use super::ledger::Ledger;
use super::shared::Shared;
use crate::events::{Event, Journal};

/// Time between two attempts to open the kernel after a failure that may pass.
const KERNEL_RETRY: Duration = Duration::from_secs(5);

/// Whether the kernel is in use.
enum KernelState {
    /// The kernel was not needed so far.
    Unused,
    Open(Arc<dyn Kernel>),
    /// The kernel cannot be opened. The time is that of the next attempt.
    Failed(Option<Instant>),
}

/// The member that a driver works for.
pub(super) struct Identity {
    pub(super) name: MemberName,
    /// The addresses of this member itself.
    pub(super) own: OwnAddresses,
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    identity: Identity,
    host: Box<dyn Host>,
    ledger: Box<dyn Ledger>,
    journal: Journal,
    kernel_state: KernelState,
    state: Arc<ClusterState>,
    me: Option<MemberId>,
    leases: BTreeMap<IpAddr, Lease>,
    /// Addresses that the kernel failed to release.
    unreleased: BTreeSet<IpAddr>,
    /// What the machine was last told of the kernel: address present, fence open.
    told: BTreeMap<IpAddr, (bool, bool)>,
    /// How this member came to lead.
    elected: Elected,
    /// The last term in which it gave the virtual IPs up because it was unfit.
    left_in: Option<u64>,
    /// Answers to messages sent before this moment prove nothing, because the machine slept.
    slept_at: Duration,
    wake: Option<Duration>,
    /// Whether a record is waiting for its answer.
    recording: Arc<AtomicBool>,
    /// This member was removed and holds nothing any more.
    withdrawn: bool,
    /// When to look next for what an earlier run of this removed member left in the kernel.
    cleanup_at: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        identity: Identity,
        host: Box<dyn Host>,
        ledger: Box<dyn Ledger>,
        journal: Journal,
    ) -> Self {
        Self {
            shared,
            identity,
            host,
            ledger,
            journal,
            kernel_state: KernelState::Unused,
            state: Arc::default(),
            me: None,
            leases: BTreeMap::new(),
            unreleased: BTreeSet::new(),
            told: BTreeMap::new(),
            elected: Elected::ByTransfer,
            left_in: None,
            slept_at: Duration::ZERO,
            wake: None,
            recording: Arc::default(),
            withdrawn: false,
            cleanup_at: None,
        }
    }

    /// When [`Driver::tick`] is due, unless a command comes first.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake.map(|at| self.shared.instant(at))
    }

    /// Tells the machine that time has passed.
    pub(super) fn tick(&mut self) {
        self.feed(OwnershipEvent::Tick);
    }

    /// Looks at what nobody reports, such as an interface that appears.
    pub(super) fn poll(&mut self) {
        self.reconcile();
        self.clean_up();
    }

    /// Whether the kernel is in use.
    pub(super) fn has_kernel(&self) -> bool {
        matches!(self.kernel_state, KernelState::Open(_))
    }

    /// A thread of the kernel that has ended.
    pub(super) fn ended_thread(&self) -> Option<&'static str> {
        self.kernel().and_then(|kernel| kernel.ended_thread())
    }

    fn kernel(&self) -> Option<&Arc<dyn Kernel>> {
        match &self.kernel_state {
            KernelState::Open(kernel) => Some(kernel),
            KernelState::Unused | KernelState::Failed(_) => None,
        }
    }

    /// Handles a command, and carries out what follows from it.
    pub(super) fn handle(&mut self, command: VipCommand) {
        match command {
            VipCommand::Begin(me) if self.me.is_none() => {
                self.me = Some(me);
                (self.withdrawn, self.cleanup_at) = (false, None);
                *self.shared.machine() = Some(Ownership::new(me, self.shared.lease));
                self.reconcile();
            }
            VipCommand::Begin(_) | VipCommand::End => {}
            VipCommand::Withdraw => self.withdraw(),
            // The last configuration that a removed member knew no longer applies.
            VipCommand::State(_) if self.withdrawn => {}
            VipCommand::State(state) => {
                self.state = state;
                self.reconcile();
            }
            VipCommand::Event(OwnershipEvent::QuorumAcked { sent, .. }) if sent < self.slept_at => {}
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

    /// Gives the machine an event, carries out its actions and reports their results, until there are no more.
    fn feed(&mut self, event: OwnershipEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            // The machine names its next deadline anew each time. The old one may have passed, and must not stay.
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
        // Calls to the kernel take a while when there are many virtual IPs.
        self.shared.beat();
        match action {
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
                if self.release(address) {
                    events.push_back(OwnershipEvent::Kernel { address, present: false, open: false });
                }
            }
            OwnershipAction::Announce { address } => self.announce(address),
            OwnershipAction::ProposeRelease { term, cause } => {
                self.back_off(term, cause);
                self.propose_release(term, cause);
            }
            OwnershipAction::TransferLeadership { to } => self.ledger.transfer(to),
            OwnershipAction::WakeAt(at) => self.wake = Some(at),
        }
    }

    /// Reports to the machine what the kernel has of each virtual IP that the machine holds, where that has changed.
    fn report(&mut self, events: &mut VecDeque<OwnershipEvent>) {
        let held: Vec<IpAddr> = match self.shared.machine().as_ref() {
            Some(machine) => machine.facts().map(|facts| facts.address).collect(),
            None => return,
        };
        let (Some(kernel), false) = (self.kernel(), held.is_empty()) else { return };
        let (facts, now) = (kernel.facts(), self.shared.present());
        for address in held {
            let found = facts.vips.iter().find(|found| found.vip.address == address);
            let present = found.is_some_and(|found| found.address_present);
            // The fence counts as open until the kernel has certainly shut it.
            let open = found.and_then(|found| found.fence_until);
            let open = open.is_some_and(|until| until + facts.fence.error() > now);
            if self.told.insert(address, (present, open)) != Some((present, open)) {
                events.push_back(OwnershipEvent::Kernel { address, present, open });
            }
        }
    }

    fn on_kernel_event(&mut self, event: KernelEvent) {
        self.journal.emit(&Event::Kernel(event.clone()));
        if event == KernelEvent::Slept {
            self.slept_at = self.shared.now();
        }
        match event {
            KernelEvent::Conflict { address, .. } => {
                self.feed(OwnershipEvent::Foreign { address, term: None });
            }
            // The address was silent for a while, or has moved to another interface.
            KernelEvent::LinkUp(_) | KernelEvent::MacChanged(_) | KernelEvent::Resumed(_) => {
                self.feed(OwnershipEvent::LinkRestored);
            }
            _ => self.feed(OwnershipEvent::Tick),
        }
    }
}
