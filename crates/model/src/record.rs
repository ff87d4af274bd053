//! The last changes of the configuration, with what was there before: for those who ask who changed what, and want it back.

use std::sync::Arc;

use crate::command::{Origin, Outcome, Proposal, RequestId};
use crate::defaults::{RECORD_WEIGHT_MAX, RECORDS_KEPT, RECORDS_WEIGHT_MAX, SUMMARY_MAX};
use crate::diff::{Change, ChangeKind, Resource};
use crate::document::{Document, ResourceName};
use crate::machine::Applied;
use crate::pool::AdminState;
use crate::state::{ClusterState, Revision};

/// What one entry of the log changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRecord {
    /// Its revision.
    pub revision: Revision,
    /// When it was proposed, and by whom.
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
    fn weight(&self) -> usize {
        let one = |change: &DocumentChange| {
            let documents = [&change.before, &change.after];
            64 + documents.into_iter().flatten().map(Document::weight).sum::<usize>()
        };
        self.documents.iter().map(one).sum()
    }

    /// Who changed what, without what was there.
    fn summary(&self) -> Self {
        let bare = |change: &DocumentChange| DocumentChange { before: None, after: None, ..change.clone() };
        let documents = self.documents.iter().take(SUMMARY_MAX).map(bare).collect();
        Self { documents, undoable: false, ..self.clone() }
    }
}

/// The documents that a resource is kept as.
fn documents(resource: &Resource) -> Vec<Document> {
    match resource {
        Resource::Pool(pool, _) => vec![(pool.name.clone(), pool.spec.clone()).into()],
        Resource::Backend(pool, b) => vec![
            (pool.clone(), b.name.clone(), b.spec.clone()).into(),
            (pool.clone(), b.name.clone(), b.admin_state).into(),
        ],
        Resource::Listener(listener) => vec![(listener.name.clone(), listener.spec.clone()).into()],
        Resource::Vip(vip) => vec![(vip.name.clone(), vip.spec.clone()).into()],
        Resource::Member(_) => Vec::new(),
    }
}

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
        documents(&change.resource).into_iter().filter_map(one).collect()
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
            origin: proposal.origin,
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

impl Document {
    /// About how many bytes it takes, for bounds of what is kept. Every version counts alike, or members would differ in what
    /// they keep.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Vip(_, spec) => {
                512 + 96 * (spec.interface_overrides.len() + spec.preferred.len()) + spec.metadata.weight()
            }
            Self::Pool(_, spec) => 512 + spec.health.kind.weight() + spec.metadata.weight(),
            Self::Backend(.., spec) => 512 + spec.metadata.weight(),
            Self::AdminState(..) => 128,
            Self::Listener(_, spec) => {
                let networks = spec.accept_proxy_from.len() + spec.allow.len() + spec.deny.len();
                let names = spec.routes.iter().map(|route| {
                    let names = route.server_names.iter().map(|name| name.len() + 8);
                    128 + names.chain(route.alpn.iter().map(|name| name.len() + 8)).sum::<usize>()
                });
                512 + 96 * spec.binds.len() + 48 * networks + names.sum::<usize>() + spec.metadata.weight()
            }
        }
    }
}

impl Outcome {
    /// As [`Document::weight`].
    pub(crate) fn weight(&self) -> usize {
        let of = |resource: &Resource| documents(resource).iter().map(Document::weight).sum();
        match self {
            Self::Pool(pool, _) => of(&Resource::Pool(pool.clone(), 0)),
            Self::Backend(pool, backend) => of(&Resource::Backend(pool.clone(), backend.clone())),
            Self::Listener(listener) => of(&Resource::Listener(listener.clone())),
            Self::Vip(vip) => of(&Resource::Vip(vip.clone())),
            Self::Batch(changes) => 128 + changes.len(),
            Self::Founded(_) | Self::Member(_) => 1024,
            Self::Restored(_) | Self::Deleted | Self::Noted => 128,
        }
    }
}
