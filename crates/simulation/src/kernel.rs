//! What a member's machine does for virtual IPs. It outlives the process, and its fences shut by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trestle_node::simulation::{Host, Kernel};
use trestle_vip::{Fence, InterfaceVip, KernelFacts, Lease, Punctuality, Tampering, VipError, VipFacts};

/// The virtual IP.
pub(crate) const VIP: &str = "10.1.0.100";

pub(crate) fn vip() -> IpAddr {
    VIP.parse().expect("an address")
}

#[derive(Default)]
struct Tables {
    /// When each fence shuts.
    fences: BTreeMap<IpAddr, Instant>,
    addresses: BTreeSet<IpAddr>,
    /// What the process holds, with the deadline that the kernel was told last.
    claims: BTreeMap<IpAddr, (InterfaceVip, Lease, Instant)>,
    /// How much later than it was told a fence shuts.
    error: Duration,
}

/// The machine.
#[derive(Clone, Default)]
pub(crate) struct SimulatedMachine(Arc<Mutex<Tables>>);

impl SimulatedMachine {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_fence_error(&self, error: Duration) {
        self.tables().error = error;
    }

    /// Whether packets for the virtual IP pass, whatever the process thinks, at `now` on the machine's clock.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.tables().fences.get(&vip()).is_some_and(|until| *until > now)
    }

    /// The process is gone, and nothing was released.
    pub(crate) fn process_ends(&self) {
        self.tables().claims.clear();
    }

    /// The machine starts anew.
    pub(crate) fn lose_power(&self) {
        let mut tables = self.tables();
        (tables.claims, tables.fences, tables.addresses) = Default::default();
    }

    /// What the lease thread does at a tick: tells the kernel of every lease that was extended, and takes off what has lapsed.
    pub(crate) fn lease_tick(&self, now: Instant) {
        let tables = &mut *self.tables();
        for (address, (_, lease, armed)) in &mut tables.claims {
            if let Some(until) = lease.until().filter(|until| *until > now.max(*armed)) {
                *armed = until;
                tables.fences.insert(*address, until + tables.error);
            } else if *armed <= now {
                tables.addresses.remove(address);
            }
        }
    }
}

impl Host for SimulatedMachine {
    fn open(&self) -> Result<Arc<dyn Kernel>, VipError> {
        self.lose_power();
        Ok(Arc::new(self.clone()))
    }

    fn clean_up(&self) -> Result<(), VipError> {
        self.lose_power();
        Ok(())
    }

    fn lasting_addresses(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }
}

impl Kernel for SimulatedMachine {
    fn claim(&self, vip: &InterfaceVip, lease: &Lease) -> Result<(), VipError> {
        let (now, tables) = (Instant::now(), &mut *self.tables());
        if tables.claims.contains_key(&vip.address) {
            return Err(VipError::Held(vip.clone()));
        }
        let until = lease.until().filter(|until| *until > now).ok_or_else(|| VipError::Over(vip.clone()))?;
        tables.claims.insert(vip.address, (vip.clone(), lease.clone(), until));
        tables.fences.insert(vip.address, until + tables.error);
        tables.addresses.insert(vip.address);
        Ok(())
    }

    fn restore(&self, address: IpAddr) -> Result<(), VipError> {
        let tables = &mut *self.tables();
        let (_, lease, _) = tables.claims.get(&address).ok_or(VipError::NotHeld(address))?;
        if lease.until().is_some_and(|until| until > Instant::now()) {
            tables.addresses.insert(address);
        }
        Ok(())
    }

    fn announce(&self, address: IpAddr) -> Result<(), VipError> {
        self.tables().claims.get(&address).map(|_| ()).ok_or(VipError::NotHeld(address))
    }

    fn release(&self, address: IpAddr) -> Result<(), VipError> {
        let mut tables = self.tables();
        tables.claims.remove(&address).ok_or(VipError::NotHeld(address))?;
        tables.fences.remove(&address);
        tables.addresses.remove(&address);
        Ok(())
    }

    fn quiesce(&self, _: Duration) -> Result<(), VipError> {
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

    fn interface_for(&self, _: IpAddr) -> Result<Option<String>, VipError> {
        Ok(Some("eth0".to_owned()))
    }

    fn link_up(&self, _: &str) -> Result<Option<bool>, VipError> {
        Ok(Some(true))
    }

    fn ended_thread(&self) -> Option<&'static str> {
        None
    }

    fn silent_threads(&self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }
}
