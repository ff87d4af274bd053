//! One address that is kept in place.

use std::net::IpAddr;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Maintenance;
use crate::atomic_instant::AtomicInstant;
use crate::error::VipError;
use crate::event::{KernelEvent, Mac};
use crate::facts::VipFacts;
use crate::lease::Lease;
use crate::lease_thread::LeaseCommand;
use crate::route::{AddressPlacement, Interface};
use crate::vip::InterfaceVip;

/// Lifetime that an address is given. With 1 s a thread that is late for half a second would lose it; the kernel removes it
/// up to 1.25 s late, so it is gone 3.25 s after the last renewal.
const LIFETIME: Duration = Duration::from_secs(2);
/// Time between renewals of an address. Each is announced to every program that follows addresses.
const REFRESH: Duration = Duration::from_secs(1);
/// The same where lifetimes are the fence.
const REFRESH_DEGRADED: Duration = Duration::from_millis(250);

/// Without nftables, lifetimes in whole seconds are all there is.
const TOO_SHORT: &str =
    "the lease is shorter than a second, and this machine fences in whole seconds; use a longer lease";

/// What the maintenance thread shows of an address.
pub(crate) type SharedFacts = Arc<Mutex<VipFacts>>;

/// What is to be kept.
pub(crate) struct AddressRequest {
    pub(crate) vip: InterfaceVip,
    pub(crate) interface: Interface,
    pub(crate) lease: Lease,
    pub(crate) facts: SharedFacts,
    /// Until when the kernel serves it; set here only where lifetimes are the fence.
    pub(crate) shown: Arc<AtomicInstant>,
}

pub(super) struct HeldAddress {
    pub(super) vip: InterfaceVip,
    pub(super) interface: Interface,
    pub(super) lease: Lease,
    facts: SharedFacts,
    shown: Arc<AtomicInstant>,
    pub(super) present: bool,
    /// It is missing, and not because its lease is over.
    lost: bool,
    /// When the lifetime is to be renewed.
    refresh: Instant,
    complained: bool,
    /// Who was last told to claim the address, and when.
    pub(super) conflict_told: Option<(Mac, Instant)>,
}

impl HeldAddress {
    pub(super) fn show(&self, change: impl FnOnce(&mut VipFacts)) {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// When the lifetime is to be renewed, if the address is there and its lease runs.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.lease.running(now).filter(|_| self.present).map(|_| self.refresh)
    }

    /// Renews at once what is there.
    pub(super) fn hasten(&mut self, now: Instant) {
        if self.present {
            self.refresh = self.refresh.min(now);
        }
    }

    /// The address is gone.
    pub(super) fn lost(&mut self) {
        self.present = false;
        self.lost = true;
        self.show(|facts| facts.address_present = false);
    }
}

impl Maintenance {
    /// Asks whether anybody else has an address, and puts it in place without waiting for the answer.
    pub(super) fn keep(&mut self, keeping: AddressRequest, now: Instant) -> Result<(), VipError> {
        let AddressRequest { vip, interface, lease, facts, shown } = keeping;
        let up = interface.up;
        self.held.push(HeldAddress {
            vip,
            interface,
            lease,
            facts,
            shown,
            present: false,
            lost: false,
            refresh: now,
            complained: false,
            conflict_told: None,
        });
        let at = self.held.len() - 1;
        self.held[at].show(|facts| facts.link_up = up);
        // First, so that the kernel cannot ask in the name of the very address that it asks for.
        self.probe(at);
        if let Err(source) = self.put(at, now) {
            let vip = self.held.pop().map(|held| held.vip);
            self.close_sockets();
            return vip.map_or(Ok(()), |vip| Err(VipError::Address { vip, doing: "add", source }));
        }
        Ok(())
    }

    /// Removes an address, which nobody keeps any more from now on, and its fence. The fence stays around what stays. Somebody
    /// who waits for the reply may ask again.
    pub(super) fn drop_address(&mut self, address: IpAddr, reply: Option<SyncSender<Result<(), VipError>>>) {
        let removed = self.remove(address, reply.is_some());
        if removed.is_ok() {
            // Without a lease thread there is no renewal either.
            let _ = self.lease_thread.send(LeaseCommand::Forget(address));
        }
        match (reply, removed) {
            (Some(reply), removed) => {
                let _ = reply.send(removed);
            }
            (None, Err(error)) => self.emit(KernelEvent::NotRemoved(address, error.to_string())),
            (None, Ok(())) => (),
        }
    }

    fn remove(&mut self, address: IpAddr, again: bool) -> Result<(), VipError> {
        let Some(at) = self.position(address) else { return Ok(()) };
        let held = self.held.remove(at);
        self.close_sockets();
        let vip = held.vip.clone();
        let removed = self.route.remove(address, held.interface.index);
        if removed.is_err() && again {
            self.held.push(held);
        }
        removed.map_err(|source| VipError::Address { vip, doing: "remove", source })
    }

    /// Removes an address whose lease is over, so that programs on this machine do not use it either. It stays on the list.
    pub(super) fn withdraw(&mut self, at: usize) {
        let held = &mut self.held[at];
        held.present = false;
        held.show(|facts| (facts.address_present, facts.failing) = (false, None));
        // What fails here goes by its lifetime.
        let _ = self.route.remove(held.vip.address, held.interface.index);
    }

    /// Renews the lifetime of an address when that is due.
    pub(super) fn renew_due(&mut self, at: usize, now: Instant) {
        if self.held[at].due(now).is_some_and(|due| due <= now) {
            self.restore(at, now);
        }
    }

    /// Puts the address back, or renews it where it is there.
    pub(super) fn restore(&mut self, at: usize, now: Instant) {
        if self.held[at].lease.running(now).is_none() {
            return;
        }
        if self.held[at].interface.index == 0 && !self.find_interface(at) {
            let held = &self.held[at];
            let why = format!("there is no interface {} any more", held.vip.interface);
            held.show(|facts| facts.failing = Some(why));
            return;
        }
        let outcome = self.put(at, now);
        let held = &mut self.held[at];
        let address = held.vip.address;
        if let Err(error) = outcome {
            held.lost();
            held.show(|facts| facts.failing = Some(format!("its address cannot be put back: {error}")));
            if !std::mem::replace(&mut held.complained, true) {
                self.emit(KernelEvent::NotRestored(address, error.to_string()));
            }
        } else if std::mem::replace(&mut held.lost, false) {
            held.show(|facts| facts.repairs += 1);
            self.emit(KernelEvent::AddressRestored(address));
        }
    }

    /// Looks for the interface by name after it was gone.
    fn find_interface(&mut self, at: usize) -> bool {
        let name = self.held[at].vip.interface.clone();
        let Ok(Some(found)) = self.route.interface(&name) else { return false };
        let held = &mut self.held[at];
        let moved = LeaseCommand::Moved(held.vip.address, found.index, found.name.clone());
        held.show(|facts| facts.link_up = found.up);
        held.interface = found;
        self.lease_thread.send(moved).is_ok()
    }

    /// Adds the address or renews its lifetime.
    fn put(&mut self, at: usize, now: Instant) -> std::io::Result<()> {
        let held = &mut self.held[at];
        let (lifetime, refresh) = match self.degraded {
            false => (LIFETIME, REFRESH),
            true => {
                let left = held.lease.until().unwrap_or(now).saturating_duration_since(now);
                // Rounded down, so that it never outlives the lease by more than the kernel is late.
                (Duration::from_secs(left.as_secs()), REFRESH_DEGRADED)
            }
        };
        if lifetime.is_zero() {
            // The lifetime that it has ends in time; the lease may yet be extended.
            held.refresh = now + refresh;
            return if held.present { Ok(()) } else { Err(std::io::Error::other(TOO_SHORT)) };
        }
        let (address, index) = (held.vip.address, held.interface.index);
        let place = AddressPlacement::of(address, index, &self.route.addresses()?);
        for found in &place.misplaced {
            self.route.remove_found(found)?;
        }
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(1);
        self.route.put(address, index, seconds, place.scope)?;
        held.present = true;
        held.complained = false;
        held.refresh = now + refresh;
        held.show(|facts| (facts.address_present, facts.failing) = (true, None));
        if self.degraded {
            held.shown.set(now + lifetime);
        }
        Ok(())
    }
}
