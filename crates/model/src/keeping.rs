//! Keeping the last changes of the configuration.

use std::sync::Arc;

use crate::change::{Change, ChangeKind};
use crate::command::Proposal;
use crate::defaults::{RECORD_WEIGHT_MAX, RECORDS_KEPT, RECORDS_WEIGHT_MAX};
use crate::document::Document;
use crate::machine::Applied;
use crate::pool::AdminState;
use crate::record::{DocumentChange, RevisionRecord};
use crate::state::ClusterState;

/// A backend that is switched to nothing has no document of it.
fn is_said(document: &Document) -> bool {
    !matches!(document, Document::AdminState(.., AdminState::Enabled))
}

impl ClusterState {
    /// What a change of this state makes of documents.
    fn document_changes(&self, change: &Change) -> Vec<DocumentChange> {
        let gone = change.kind == ChangeKind::Deleted;
        let one = |document: Document| {
            let resource = document.resource();
            let before = self.document(&resource).filter(is_said);
            let after = Some(document).filter(|document| !gone && is_said(document));
            let kind = match (&before, &after) {
                (None, None) => return None,
                (Some(before), Some(after)) if before == after => return None,
                (None, Some(_)) => ChangeKind::Created,
                (Some(_), Some(_)) => ChangeKind::Updated,
                (Some(_), None) => ChangeKind::Deleted,
            };
            Some(DocumentChange { resource, kind, before, after })
        };
        change.resource.documents().into_iter().filter_map(one).collect()
    }

    /// The record of a proposal that this state has accepted, and that is not written yet; `None` for one that changes no
    /// document.
    pub(crate) fn record_of(&self, proposal: &Proposal, applied: &Applied) -> Option<RevisionRecord> {
        let documents: Arc<[DocumentChange]> =
            applied.changes.iter().flat_map(|change| self.document_changes(change)).collect();
        if documents.is_empty() {
            return None;
        }
        let record = RevisionRecord {
            revision: applied.revision,
            origin: proposal.origin.clone(),
            request: proposal.request.as_ref().map(|request| request.id.clone()),
            changed: u32::try_from(documents.len()).unwrap_or(u32::MAX),
            documents,
            undoable: true,
        };
        Some(if record.weight() > RECORD_WEIGHT_MAX { record.summary() } else { record })
    }

    /// Adds a record; older ones keep a summary where all together take too much, and the oldest go.
    pub(crate) fn keep_record(&mut self, record: RevisionRecord) {
        self.records.push_back(Arc::new(record));
        while self.records.len() > RECORDS_KEPT {
            self.records.pop_front();
        }
        let mut weight: usize = self.records.iter().map(|record| record.weight()).sum();
        for record in &mut self.records {
            if weight <= RECORDS_WEIGHT_MAX {
                break;
            }
            if record.undoable {
                let summary = record.summary();
                weight = weight - record.weight() + summary.weight();
                *record = Arc::new(summary);
            }
        }
    }
}
