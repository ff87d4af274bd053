//! How the order of changes is counted.

/// Index of the log entry that last changed something; grows, with gaps.
pub type Revision = u64;
