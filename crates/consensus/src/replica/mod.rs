//! The replicated state machine: [`trestle_model::Machine`] as openraft drives it.

mod machine;
mod view;

pub(crate) use machine::{Replica, SnapshotData};
pub use view::View;
pub(crate) use view::{History, KnownRequests, Published};

#[cfg(test)]
pub(crate) mod tests;
