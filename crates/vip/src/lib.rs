//! Virtual IPs in the Linux kernel: addresses that expire, a fence that closes at a deadline, announcements.
//!
//! The rule that this crate enforces is that an address is served only until the deadline of its [`Lease`], also when this
//! process is killed, stopped, frozen or starved: then the kernel keeps the deadline by itself. Who may extend the lease,
//! and until when, is decided elsewhere.
//!
//! # Two fences
//! - nftables: sets whose elements have timeouts in milliseconds. IP packets to and from the address, questions for it (ARP,
//!   neighbour solicitation), the kernel's answers and our announcements pass only while the element lives. It closes no
//!   later than 12 ms after the deadline, commonly a few milliseconds before it, in steps of the kernel's tick.
//! - The address's own lifetime, 2 s, renewed each second: it removes the address from a machine whose daemon has died, at
//!   most 3.25 s after its last renewal.
//!
//! Without nftables the second alone must do, and [`Facts::fence`] says [`Fence::Degraded`]. Neither covers a whole machine
//! that is paused: its clocks stand still with it, so that it may answer for what was left of the lease when it goes on.
//!
//! # Planned moves
//! [`Kernel::quiesce`] lets nftables drop what would open a connection, for a while that ends by itself, so that no client
//! is accepted just before the release and then never answered.
//!
//! # Two threads
//! The lease thread does nothing but renew the fence every [`TICK`]. The upkeep thread renews addresses, announces them,
//! puts them back when someone removes them, and listens for others that claim them. Neither runs a runtime.
//!
//! # What is left behind
//! A killed process leaves its tables, and its addresses for up to 3.25 s. The next [`Kernel::open`] under the same name
//! closes the fence of every address that the tables list, removes those addresses as far as they end within a minute, and
//! starts afresh. Nothing else is touched: no other table, and no address that someone else has configured to last.

#![cfg(target_os = "linux")]

mod capability;
mod error;
mod event;
mod facts;
mod frames;
mod kernel;
mod lease;
mod lease_thread;
mod moment;
mod netlink;
mod nft;
mod route;
mod scrub;
#[cfg(test)]
mod tests;
mod upkeep;
mod vip;
mod wire;

pub use capability::{drop_all_capabilities, drop_other_capabilities, require_capabilities};
pub use error::VipError;
pub use event::{Event, Mac};
pub use facts::{Facts, Fence, Punctuality, VipFacts};
pub use kernel::{Kernel, Settings};
pub use lease::Lease;
pub use lease_thread::{TICK, Watchdog};
pub use vip::Vip;
