//! Virtual IPs on this member: the machine that decides who serves them, the kernel that enforces it, and what both are
//! told. The decisions are [`trestle_engine::ownership`]'s; here they are carried out.
//!
//! One thread, the owner, is told everything ([`command`]) and has the [`driver`] do what the machine wants. It waits for
//! nothing but its queue: records and transfers are tasks on Raft's runtime ([`ledger`]). Other tasks bring the news: Raft's
//! ([`raft_events`]) and those of this member's [`fitness`]. Votes ask the machine directly ([`shared::VipVoteGuard`]).

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
