//! Virtual IPs on this member: the machine that decides which member serves them, the kernel that enforces it, and what reports to
//! both. [`trestle_engine::ownership`] makes the decisions, and this module carries them out.
//!
//! One thread, the owner, receives every [`command`] and has the [`driver`] carry out the machine's actions. It waits only for its
//! queue: records and transfers are tasks on Raft's runtime ([`ledger`]). Other tasks report what Raft says ([`raft_events`]) and
//! this member's [`fitness`]. Votes ask the machine directly ([`shared::VipVoteGuard`]).

mod check;
mod check_exec;
mod command;
mod driver;
mod faults;
mod fit;
mod fitness;
mod handle;
mod kernel;
mod ledger;
mod log_watch;
mod obstacles;
mod owner;
mod owner_watch;
mod raft_events;
mod shared;
mod silence;
pub(crate) mod simulated;
mod stall;
mod start;
mod status;
mod succession;
mod transfer;
mod watchdog;

pub use check_exec::CheckExec;
pub(crate) use faults::OwnFitness;
pub(crate) use fit::fit;
pub(crate) use handle::Vips;
pub(crate) use raft_events::{elected, why_it_leads};
pub(crate) use start::start;
pub(crate) use succession::Succession;
pub(crate) use transfer::Transfers;
pub(crate) use watchdog::{Systemd, Whole};
