//! Virtual IPs in the Linux kernel: addresses that expire, a fence that closes at a deadline, announcements.
//!
//! The rule that this crate enforces is that an address is served only until the deadline of its [`Lease`], also when this
//! process is killed, stopped, frozen or starved: then the kernel keeps the deadline by itself. Who may extend the lease,
//! and until when, is decided elsewhere.
//!
//! # Two fences
//! - nftables: sets whose elements have timeouts in milliseconds. IP packets to and from the address (answers to neighbour
//!   solicitations among them), questions for it by ARP, the kernel's answers and our announcements pass only while the element
//!   lives. It closes no later than 12 ms after the deadline, commonly a few milliseconds before it, in steps of the kernel's tick.
//! - The address's own lifetime, 2 s, renewed each second: it removes the address from a machine whose daemon has died, at
//!   most 3.25 s after its last renewal.
//!
//! Without nftables the second alone must do, and [`KernelFacts::fence`] says [`Fence::Degraded`]. Neither covers a whole machine
//! that is paused: its clocks stand still with it, so that it may answer for what was left of the lease when it goes on.
//!
//! # Planned moves
//! [`LinuxKernel::quiesce`] lets nftables drop what would open a connection, for a while that ends by itself, so that no client
//! is accepted just before the release and then never answered.
//!
//! # The host's own addresses
//! An address is added as a network by itself (/32 or /128), so that none of the host's goes with it, and where the kernel
//! never takes it for the source of a connection: behind the host's own addresses, or out of scope where there are none.
//!
//! # Three threads
//! The lease thread does nothing but renew the fence every [`TICK`], and compare it with what it should be when it is told to.
//! The watcher hears from nftables of every change that somebody else makes, and tells the lease thread; every ten seconds it
//! does so without. What was changed is put back in one transaction, in which open fences stay open. The maintenance thread
//! adds, renews, announces and removes addresses, and hears when somebody removes or claims one. None of them decides anything:
//! when an address is announced, restored or defended is decided by whoever uses this crate.
//!
//! # What is left behind
//! A killed process leaves its tables, and its addresses for up to 3.25 s. The next [`LinuxKernel::open`] in the network namespace,
//! whatever its name, closes the fence of every address that they list, removes those addresses as far as they end within a
//! minute, and the tables; so does [`cleanup`]. Tables of a process that lives are left alone: each holds a lock of its tables'
//! name, which the kernel drops when it dies. Nothing else is touched: no other table, and no address that someone else has
//! configured to last.

#![cfg(target_os = "linux")]

mod atomic_instant;
mod capability;
mod cleanup;
mod error;
mod event;
mod facts;
mod fit;
mod frames;
mod lease;
mod lease_thread;
mod linux_kernel;
mod liveness;
mod lock;
mod maintenance;
mod netlink;
mod nft;
mod route;
mod sockets;
#[cfg(test)]
mod tests;
mod vip;
mod watcher;

pub use capability::{drop_all_capabilities, drop_other_capabilities, require_capabilities};
pub use cleanup::{CleanedUp, cleanup};
pub use error::VipError;
pub use event::{KernelEvent, Mac};
pub use facts::{Fence, KernelFacts, Punctuality, Tampering, VipFacts};
pub use fit::{Fit, fit, lasting_addresses};
pub use lease::Lease;
pub use lease_thread::{TICK, Watchdog};
pub use linux_kernel::{KernelSettings, LinuxKernel};
pub use vip::InterfaceVip;
