//! A clock that is set, a machine whose fences shut by themselves, and a ledger that keeps what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use trestle_model::{
    ClusterState, Command, MemberId, MemberName, Revision, Vip, VipAddress, VipName, VipSpec,
};
use trestle_vip::{Fence, InterfaceVip, KernelFacts, Lease, Punctuality, Tampering, VipError, VipFacts};

use super::super::super::fit::OwnAddresses;
use super::super::super::kernel::{Host, Kernel};
use super::super::super::ledger::{Ledger, PendingRecord};
use super::super::super::shared::{Clock, Shared};
use super::super::{Driver, Identity};
use crate::events::Journal;

/// The one virtual IP.
pub(super) fn vip() -> IpAddr {
    IpAddr::from([10, 0, 3, 100])
}

/// A configuration with that virtual IP.
pub(super) fn configured() -> Arc<ClusterState> {
    let name = VipName::parse("front").unwrap();
    let spec = VipSpec::new(VipAddress::parse("10.0.3.100/24").unwrap());
    let vip = Vip { name: name.clone(), spec, revision: Revision::default() };
    Arc::new(ClusterState { vips: [(name, Arc::new(vip))].into(), ..ClusterState::default() })
}

/// A clock that stands where it was set.
#[derive(Clone)]
pub(super) struct FakeClock {
    base: Instant,
    nanoseconds: Arc<AtomicU64>,
}

impl FakeClock {
    pub(super) fn new(base: Instant) -> Self {
        Self { base, nanoseconds: Arc::default() }
    }

    pub(super) fn set(&self, at: Duration) {
        self.nanoseconds.store(u64::try_from(at.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.base + Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

/// What a machine's kernel has. It outlives the member's process, and the fences shut at their time whatever becomes of that.
#[derive(Default)]
pub(super) struct KernelTables {
    /// When each fence shuts.
    fences: BTreeMap<IpAddr, Instant>,
    addresses: BTreeSet<IpAddr>,
    /// What the process holds, with the deadline that the kernel was last told.
    claims: BTreeMap<IpAddr, (InterfaceVip, Lease, Instant)>,
    /// How much later than told the next fence shuts.
    pub(super) fence_error: Duration,
    /// A mistake: fences stay open until somebody shuts them.
    pub(super) fences_stay: bool,
    /// A mistake: what is released stays until its lease ends.
    pub(super) forgets_releases: bool,
    pub(super) fails: Failing,
    /// What was asked for, in order, but for announcements.
    pub(super) calls: Vec<String>,
    pub(super) announced: Vec<Instant>,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failing {
    pub(super) open: bool,
    pub(super) claim: bool,
    pub(super) release: bool,
}

/// A machine.
#[derive(Clone)]
pub(super) struct FakeMachine {
    clock: FakeClock,
    tables: Arc<Mutex<KernelTables>>,
}

fn failure(doing: &'static str) -> VipError {
    VipError::System { doing, source: io::Error::other("switched off") }
}

impl FakeMachine {
    pub(super) fn new(clock: FakeClock) -> Self {
        Self { clock, tables: Arc::default() }
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, KernelTables> {
        self.tables.lock().unwrap()
    }

    /// Whether packets for the virtual IP pass, whatever the process thinks.
    pub(super) fn is_open(&self, address: IpAddr) -> bool {
        let tables = self.tables();
        let open = |until: &Instant| tables.fences_stay || *until > self.clock.now();
        tables.fences.get(&address).is_some_and(open)
    }

    /// The process is gone, and nothing was released.
    pub(super) fn process_ends(&self) {
        self.tables().claims.clear();
    }

    /// What the lease thread does: tells the kernel of every lease that was extended, and removes what has lapsed.
    pub(super) fn lease_tick(&self) {
        let (now, tables) = (self.clock.now(), &mut *self.tables());
        for (address, (_, lease, armed)) in &mut tables.claims {
            if let Some(until) = lease.until().filter(|until| *until > now.max(*armed)) {
                *armed = until;
                tables.fences.insert(*address, until + tables.fence_error);
            } else if *armed <= now {
                tables.addresses.remove(address);
            }
        }
    }

    /// Somebody else takes the address off the machine.
    pub(super) fn lose_address(&self, address: IpAddr) {
        self.tables().addresses.remove(&address);
    }
}

impl Host for FakeMachine {
    fn open(&self) -> Result<Arc<dyn Kernel>, VipError> {
        let mut tables = self.tables();
        if tables.fails.open {
            return Err(failure("open a routing socket"));
        }
        tables.calls.push("open".to_owned());
        (tables.fences, tables.addresses) = (BTreeMap::new(), BTreeSet::new());
        Ok(Arc::new(self.clone()))
    }

    fn clean_up(&self) -> Result<(), VipError> {
        self.open().map(drop)
    }

    fn lasting_addresses(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }
}

impl Kernel for FakeMachine {
    fn claim(&self, vip: &InterfaceVip, lease: &Lease) -> Result<(), VipError> {
        let (now, tables) = (self.clock.now(), &mut *self.tables());
        tables.calls.push(format!("claim {vip}"));
        if tables.claims.contains_key(&vip.address) {
            return Err(VipError::Held(vip.clone()));
        }
        let until = lease.until().filter(|until| *until > now).ok_or_else(|| VipError::Over(vip.clone()))?;
        if tables.fails.claim {
            return Err(failure("add the address"));
        }
        tables.claims.insert(vip.address, (vip.clone(), lease.clone(), until));
        tables.fences.insert(vip.address, until + tables.fence_error);
        tables.addresses.insert(vip.address);
        Ok(())
    }

    fn restore(&self, address: IpAddr) -> Result<(), VipError> {
        let tables = &mut *self.tables();
        tables.calls.push(format!("restore {address}"));
        let (_, lease, _) = tables.claims.get(&address).ok_or(VipError::NotHeld(address))?;
        if lease.until().is_some_and(|until| until > self.clock.now()) {
            tables.addresses.insert(address);
        }
        Ok(())
    }

    fn announce(&self, address: IpAddr) -> Result<(), VipError> {
        let mut tables = self.tables();
        if !tables.claims.contains_key(&address) {
            return Err(VipError::NotHeld(address));
        }
        tables.announced.push(self.clock.now());
        Ok(())
    }

    fn release(&self, address: IpAddr) -> Result<(), VipError> {
        let mut tables = self.tables();
        tables.calls.push(format!("release {address}"));
        if !tables.claims.contains_key(&address) {
            return Err(VipError::NotHeld(address));
        }
        if tables.fails.release {
            return Err(failure("shut the fence"));
        }
        tables.claims.remove(&address);
        if tables.forgets_releases {
            return Ok(());
        }
        tables.fences.remove(&address);
        tables.addresses.remove(&address);
        Ok(())
    }

    fn quiesce(&self, _time: Duration) -> Result<(), VipError> {
        self.tables().calls.push("quiesce".to_owned());
        Ok(())
    }

    fn facts(&self) -> KernelFacts {
        let tables = self.tables();
        let facts = |(vip, _, armed): &(InterfaceVip, Lease, Instant)| VipFacts {
            vip: vip.clone(),
            address_present: tables.addresses.contains(&vip.address),
            link_up: true,
            fence_until: Some(*armed),
            last_announcement: None,
            announcements: 0,
            repairs: 0,
            conflicts: 0,
            last_conflict: None,
            failing: None,
            shut_by: None,
        };
        KernelFacts {
            fence: Fence::Full { announcements: true },
            punctuality: Punctuality::default(),
            tampering: Tampering::default(),
            vips: tables.claims.values().map(facts).collect(),
        }
    }

    fn interface_for(&self, _address: IpAddr) -> Result<Option<String>, VipError> {
        Ok(Some("eth0".to_owned()))
    }

    fn link_up(&self, _interface: &str) -> Result<Option<bool>, VipError> {
        Ok(Some(true))
    }

    fn ended_thread(&self) -> Option<&'static str> {
        None
    }

    fn silent_threads(&self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }
}

/// What a driver asked of Raft.
pub(super) enum Asked {
    Propose { command: Box<Command>, term: u64, pending: PendingRecord },
    Transfer(MemberId),
}

/// A ledger that keeps what it is asked for until somebody takes it.
#[derive(Clone, Default)]
pub(super) struct FakeLedger(Arc<Mutex<Vec<Asked>>>);

impl FakeLedger {
    pub(super) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Ledger for FakeLedger {
    fn propose_in_term(&self, command: Command, term: u64, pending: PendingRecord) {
        self.0.lock().unwrap().push(Asked::Propose { command: Box::new(command), term, pending });
    }

    fn transfer(&self, to: MemberId) {
        self.0.lock().unwrap().push(Asked::Transfer(to));
    }
}

/// The driver of a process that has just started on this machine.
pub(super) fn driver(shared: &Arc<Shared>, machine: &FakeMachine, ledger: &FakeLedger) -> Driver {
    let name = MemberName::parse("one").unwrap();
    let journal = Journal::new(name.clone(), 1, false);
    let identity = Identity { name, own: OwnAddresses::none() };
    Driver::new(shared.clone(), identity, Box::new(machine.clone()), Box::new(ledger.clone()), journal)
}
