//! Raft, its log on disk, its snapshots and its peer transport; the only crate that knows openraft.
//!
//! [`Consensus`] is the handle. No type of openraft leaves this crate.

mod abstain;
mod admission;
mod ballot;
mod callers;
mod consensus;
mod data_dir;
mod durable;
mod error;
mod heard;
mod hearsay;
mod history;
mod identity;
mod life;
mod membership;
mod network;
mod office;
mod offline;
mod peers;
mod propose;
mod raft_config;
mod raft_types;
mod read;
mod recall;
mod recovery;
mod removal;
mod replica;
mod service;
mod shared;
mod snapshot;
mod staging;
mod standing;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod timing;
mod watch;
mod wire;

pub use ballot::{AnyBallot, Ballot};
pub use consensus::Consensus;
pub use error::{Error, StartError};
pub use history::{Batch, HISTORY_KEPT, History, Subscription};
pub use identity::{FormerVoter, Identity};
pub use membership::{CAUGHT_UP_WITHIN, Progress, Removal, Step};
pub use network::WINDOW as PEER_WINDOW;
pub use office::{Leads, Office};
pub use offline::{RecoverError, Survivor, Voter};
pub use propose::{Accepted, DEFAULT_WAIT};
pub use recovery::Recovery;
pub use replica::View;
pub use service::Service;
pub use shared::Settings;
pub use status::{RaftState, RaftStatus, Role};
pub use store::OpenError;
pub use timing::Timing;
