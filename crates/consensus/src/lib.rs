//! Raft, its log on disk, its snapshots and its peer transport; the only crate that knows openraft.
//!
//! [`Consensus`] is the handle. No type of openraft leaves this crate.

#![forbid(unsafe_code)]

mod abstention;
mod admission;
mod caller_check;
mod consensus;
mod data_dir;
mod disk_rollback;
mod error;
mod history;
mod identity;
mod known_disks;
mod leader_contact;
mod leadership;
mod lifecycle;
mod log_size;
mod member;
mod membership;
mod membership_state;
mod network;
mod offline;
mod outdated_members;
mod parts;
mod peer_calls;
mod platform;
mod propose;
mod raft_config;
mod raft_slot;
mod raft_types;
mod read;
mod recovery;
mod removal;
mod removal_reports;
mod replica;
mod retry;
mod role;
mod service;
mod shared;
mod snapshot;
mod staging;
mod status;
mod storage;
mod store;
#[cfg(test)]
mod tests;
mod timing;
mod vote_guard;
mod wire;

/// What a simulation of several members needs; nothing else may use it.
#[doc(hidden)]
pub mod simulation {
    pub use crate::network::Lane;
    pub use crate::platform::SimulatedPlatform;
    pub use crate::raft_config::LogBounds;
    pub use crate::store::{DiskOp, DiskReader, DiskTable, KeyedRecord, LogDisk, MarkFile};
}

pub use consensus::Consensus;
pub use error::{Error, RaftStartError};
pub use history::{ChangeHistory, HISTORY_KEPT, RevisionChanges, Subscription};
pub use identity::{FormerVoter, Identity, RecoveryId, STORAGE_FORMAT};
pub use leadership::{LeaderTerm, Leadership};
pub use lifecycle::MakeIdentities;
pub use member::ConsensusSettings;
pub use membership::{CAUGHT_UP_WITHIN, MembershipProgress, MembershipStep, RemovalOutcome};
pub use network::WINDOW as PEER_WINDOW;
pub use offline::{OfflineError, OfflineMember, Voter};
pub use peer_calls::AppliedProposal;
pub use propose::DEFAULT_WAIT;
pub use replica::ClusterView;
pub use service::Service;
pub use status::{RaftRole, RaftState, RaftStatus};
pub use store::{LogWork, OpenError};
pub use timing::Timing;
pub use vote_guard::{AllowAllVotes, VoteGuard};
