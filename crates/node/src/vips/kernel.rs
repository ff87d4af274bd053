//! The machine that a member runs on, as the driver uses it. Tests have a fake that records the calls.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use trestle_vip::{InterfaceVip, KernelFacts, KernelSettings, Lease, LinuxKernel, VipError};

use super::command::VipCommand;
use super::watchdog;

/// The machine that a member runs on, before its kernel is used for virtual IPs.
pub trait Host: Send {
    /// Opens the kernel for virtual IPs. What earlier runs of this member left is removed before this returns, and so before
    /// anything can be claimed.
    ///
    /// # Errors
    /// When the kernel cannot be used, or what was left cannot be removed.
    fn open(&self) -> Result<Arc<dyn Kernel>, VipError>;

    /// Removes what earlier runs of this member left, and nothing else.
    ///
    /// # Errors
    /// As [`Host::open`].
    fn clean_up(&self) -> Result<(), VipError>;

    /// The addresses that the machine has for good; empty when they cannot be listed.
    fn lasting_addresses(&self) -> BTreeSet<IpAddr>;
}

/// A kernel that holds virtual IPs. Calls may take some netlink round trips, and none waits for the network. The last handle
/// that is dropped releases everything.
pub trait Kernel: Send + Sync {
    /// Opens the fence of a virtual IP until the deadline of `lease`, then adds the address. The fence follows the lease from
    /// then on, and shuts by itself at its deadline, whatever happens to this process.
    ///
    /// # Errors
    /// When it is held already, the lease is over, or the kernel refuses; nothing new is left behind then.
    fn claim(&self, vip: &InterfaceVip, lease: &Lease) -> Result<(), VipError>;

    /// Puts back the address of a virtual IP that is held, if it is missing. Returns at once; the result comes as an event.
    ///
    /// # Errors
    /// When it is not held.
    fn restore(&self, address: IpAddr) -> Result<(), VipError>;

    /// Sends one announcement of a virtual IP that is held. Returns at once.
    ///
    /// # Errors
    /// When it is not held.
    fn announce(&self, address: IpAddr) -> Result<(), VipError>;

    /// Shuts the fence of a virtual IP at once, then removes its address.
    ///
    /// # Errors
    /// When it is not held. After any other error it falls silent at the deadline of its lease.
    fn release(&self, address: IpAddr) -> Result<(), VipError>;

    /// Keeps new connections out of everything that is held, for `time` at most.
    ///
    /// # Errors
    /// When the kernel refuses. New connections are then accepted as before.
    fn quiesce(&self, time: Duration) -> Result<(), VipError>;

    /// What the kernel has confirmed.
    fn facts(&self) -> KernelFacts;

    /// The interface whose network an address is in; `None` when there is none.
    ///
    /// # Errors
    /// When the kernel does not list its addresses.
    fn interface_for(&self, address: IpAddr) -> Result<Option<String>, VipError>;

    /// Whether an interface is up; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the kernel does not list its interfaces.
    fn link_up(&self, interface: &str) -> Result<Option<bool>, VipError>;

    /// The name of a thread that keeps the fence or the addresses and has ended, if one has.
    fn ended_thread(&self) -> Option<&'static str>;

    /// The threads that give no sign of life, each with the time since its last one. Takes no lock.
    fn silent_threads(&self) -> Vec<(&'static str, Duration)>;
}

impl Kernel for LinuxKernel {
    fn claim(&self, vip: &InterfaceVip, lease: &Lease) -> Result<(), VipError> {
        self.claim(vip, lease)
    }

    fn restore(&self, address: IpAddr) -> Result<(), VipError> {
        self.restore(address)
    }

    fn announce(&self, address: IpAddr) -> Result<(), VipError> {
        self.announce(address)
    }

    fn release(&self, address: IpAddr) -> Result<(), VipError> {
        self.release(address)
    }

    fn quiesce(&self, time: Duration) -> Result<(), VipError> {
        self.quiesce(time)
    }

    fn facts(&self) -> KernelFacts {
        self.facts()
    }

    fn interface_for(&self, address: IpAddr) -> Result<Option<String>, VipError> {
        self.interface_for(address)
    }

    fn link_up(&self, interface: &str) -> Result<Option<bool>, VipError> {
        self.link_up(interface)
    }

    fn ended_thread(&self) -> Option<&'static str> {
        self.ended_thread()
    }

    fn silent_threads(&self) -> Vec<(&'static str, Duration)> {
        self.silent_threads().collect()
    }
}

/// This machine.
pub(super) struct LinuxHost {
    /// The member's name, which is part of the names of its tables.
    pub(super) name: String,
    pub(super) real_time: bool,
    /// Whether every part of the member gives signs of life, for the service manager's watchdog.
    pub(super) whole: watchdog::Whole,
    /// Where the kernel's events go.
    pub(super) commands: Sender<VipCommand>,
}

impl LinuxHost {
    fn settings(&self) -> KernelSettings {
        let commands = self.commands.clone();
        KernelSettings {
            name: self.name.clone(),
            real_time: self.real_time,
            watchdog: watchdog::Systemd::from_environment(&self.whole).map(watchdog::Systemd::into_watchdog),
            on_event: Box::new(move |event| {
                // An owner that has ended holds nothing any more.
                let _ = commands.send(VipCommand::Kernel(event));
            }),
        }
    }
}

impl Host for LinuxHost {
    fn open(&self) -> Result<Arc<dyn Kernel>, VipError> {
        Ok(Arc::new(LinuxKernel::open(self.settings())?))
    }

    fn clean_up(&self) -> Result<(), VipError> {
        // Dropping the handle removes whatever opening has put there.
        LinuxKernel::open(KernelSettings { watchdog: None, real_time: false, ..self.settings() }).map(drop)
    }

    fn lasting_addresses(&self) -> BTreeSet<IpAddr> {
        trestle_vip::lasting_addresses().unwrap_or_default()
    }
}
