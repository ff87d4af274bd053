//! What a user may do, as a word.

/// What a user may do. Each may what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Looks, waits and watches.
    #[default]
    Viewer,
    /// Manages what serves clients.
    Operator,
    /// Manages the cluster itself.
    Admin,
}
