//! The last changes of the configuration, with what was there before: for those who ask who changed what, and want it back.

use std::sync::Arc;

use crate::change::ChangeKind;
use crate::command::{Origin, RequestId};
use crate::defaults::SUMMARY_MAX;
use crate::document::{Document, ResourceName};
use crate::revision::Revision;

/// What one entry of the log changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRecord {
    /// Its revision.
    pub revision: Revision,
    /// When the leader wrote it, by its clock, and who asked for it. Records are in the order of their revisions; a later one may
    /// have an earlier time.
    pub origin: Option<Origin>,
    /// The request's id.
    pub request: Option<RequestId>,
    /// How many documents it changed.
    pub changed: u32,
    /// The documents; of a record that is not undoable the first 16, without what they say.
    pub documents: Arc<[DocumentChange]>,
    /// Whether all documents are kept with what they said before and after. One that takes too much keeps a summary.
    pub undoable: bool,
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentChange {
    /// Which one.
    pub resource: ResourceName,
    /// What happened to it.
    pub kind: ChangeKind,
    /// What it said before; `None` for one that was not there, and in a summary.
    pub before: Option<Document>,
    /// What it says now; `None` for one that is gone, and in a summary.
    pub after: Option<Document>,
}

impl RevisionRecord {
    /// What it counts for, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let one = |change: &DocumentChange| {
            let documents = [&change.before, &change.after];
            64 + documents.into_iter().flatten().map(Document::weight).sum::<usize>()
        };
        self.documents.iter().map(one).sum()
    }

    /// Who changed what, without what was there.
    pub(crate) fn summary(&self) -> Self {
        let bare = |change: &DocumentChange| DocumentChange { before: None, after: None, ..change.clone() };
        let documents = self.documents.iter().take(SUMMARY_MAX).map(bare).collect();
        Self { documents, undoable: false, ..self.clone() }
    }
}
