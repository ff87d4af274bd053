//! What the driver asks of the kernel.

use std::net::IpAddr;
use std::time::Duration;

use tracing::{info, warn};
use trestle_engine::ownership::{Fault, OwnershipEvent, ServedVip};
use trestle_vip::{Fence, InterfaceVip, VipError};

use super::{Driver, KERNEL_RETRY, KernelState};
use crate::events::Event;

impl Driver {
    /// Claims a virtual IP, or restores what is missing of one that is held.
    pub(super) fn claim(&mut self, address: IpAddr, vip: &ServedVip, until: Duration) {
        let Some(kernel) = self.kernel() else { return };
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
            // The fence follows the lease. The result of the rest comes as an event.
            Err(VipError::Held(_)) => drop(kernel.restore(address)),
            Err(error) => self.refused(address, error.to_string()),
        }
    }

    /// Announces a virtual IP. One that is not held is announced later: the machine begins again once it is.
    pub(super) fn announce(&self, address: IpAddr) {
        if let Some(kernel) = self.kernel() {
            let _ = kernel.announce(address);
        }
    }

    pub(super) fn quiesce(&self, until: Duration) {
        let Some(kernel) = self.kernel() else { return };
        if let Err(error) = kernel.quiesce(until.saturating_sub(self.shared.now())) {
            warn!(%error, "connections that come during the move may fail");
        }
    }

    /// Releases a virtual IP; true when the kernel no longer has it. A failure is logged once, and the release is tried again.
    pub(super) fn release(&mut self, address: IpAddr) -> bool {
        if let Some(lease) = self.leases.get(&address) {
            lease.end();
        }
        self.told.remove(&address);
        // A virtual IP that is no longer wanted is not shown as refused.
        self.shared.status().refused.remove(&address);
        match self.kernel().map(|kernel| kernel.release(address)) {
            Some(Ok(())) => info!(vip = %address, "released"),
            // It was never claimed, or the claim failed.
            None | Some(Err(VipError::NotHeld(_))) => {}
            Some(Err(error)) => {
                if self.unreleased.insert(address) {
                    warn!(vip = %address, %error, "not released at once; it falls silent with its lease");
                }
                return false;
            }
        }
        self.leases.remove(&address);
        self.unreleased.remove(&address);
        true
    }

    /// Notes why the kernel refused a virtual IP, and logs it once. The claim is tried again while the machine wants it.
    fn refused(&self, address: IpAddr, why: String) {
        let known = self.shared.status().refused.insert(address, why.clone());
        if known.as_ref() != Some(&why) {
            self.journal.emit(&Event::Unserved { vip: address, why });
        }
    }

    /// Opens the kernel once there is something to hold.
    pub(super) fn open_kernel(&mut self) {
        let wanted = !self.state.vips.is_empty();
        let due = match &self.kernel_state {
            KernelState::Unused => wanted,
            KernelState::Open(_) => false,
            KernelState::Failed(again) => wanted && again.is_some_and(|at| self.shared.present() >= at),
        };
        if !due {
            return;
        }
        match self.host.open() {
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
                let mut status = self.shared.status();
                (status.kernel, status.unable) = (Some(kernel.clone()), None);
                drop(status);
                self.kernel_state = KernelState::Open(kernel);
                self.feed(OwnershipEvent::Fault { fault: Fault::Unable, present: false });
            }
            Err(error) => {
                warn!(%error, "this member cannot hold virtual IPs");
                let passing = !matches!(error, VipError::Capability(_));
                self.kernel_state =
                    KernelState::Failed(passing.then(|| self.shared.present() + KERNEL_RETRY));
                self.shared.status().unable = Some(error.to_string());
                self.feed(OwnershipEvent::Fault { fault: Fault::Unable, present: true });
            }
        }
    }

    /// Releases everything. The kernel's threads end with the last handle on it. The machine keeps its state, because votes need it.
    pub(in super::super) fn release_all(&mut self) {
        for address in self.leases.keys().copied().collect::<Vec<_>>() {
            self.release(address);
        }
        self.shared.status().kernel = None;
        self.kernel_state = KernelState::Unused;
    }
}
