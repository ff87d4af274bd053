//! The replicated state machine: [`trestle_model::Machine`] as openraft drives it.

mod machine;
mod view;

pub(crate) use machine::{Replica, SnapshotData};
pub use view::ClusterView;
pub(crate) use view::{ChangeSink, KnownRequests, StatePublisher};

#[cfg(test)]
pub(crate) mod tests;
