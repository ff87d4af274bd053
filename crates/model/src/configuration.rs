//! The whole replicated configuration as one value, as a backup holds it.

use crate::document::Document;

/// Every setting that the members agree on but who is a member: a document for each resource, in any order. Revisions are not
/// part of it, and a backend without a document of what it is switched to is enabled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration(pub Vec<Document>);

/// What a restore changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Resources that are new.
    pub created: u32,
    /// Resources with other settings than before.
    pub updated: u32,
    /// Resources that the document does not have.
    pub deleted: u32,
}
