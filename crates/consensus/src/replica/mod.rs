//! The replicated state machine: [`trestle_model::Machine`] as openraft drives it.

mod machine;
mod staged;
mod view;

/// The running Raft.
pub(crate) type RaftHandle = openraft::Raft<crate::raft_types::TypeConfig, Replica>;

pub(crate) use machine::{Replica, SnapshotData};
pub(crate) use staged::resolved;
#[cfg(test)]
pub(crate) use view::ChangeSink;
pub use view::ClusterView;
pub(crate) use view::{PublishedState, StatePublisher};

#[cfg(test)]
pub(crate) mod tests;
