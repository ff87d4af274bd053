//! Records of the last changes.

use trestle_model::{DocumentChange, RequestId, ResourceName, RevisionRecord};

use super::outcome::{change, change_number};
use super::{DecodeError, number, parsed};
use crate::storage;

impl From<&RevisionRecord> for storage::RevisionRecord {
    fn from(record: &RevisionRecord) -> Self {
        let RevisionRecord { revision, origin, request, changed, documents, undoable } = record;
        let one = |change: &DocumentChange| storage::DocumentChange {
            resource: change.resource.to_string(),
            change: change_number(Some(change.kind)),
            before: change.before.as_ref().map(Into::into),
            after: change.after.as_ref().map(Into::into),
        };
        Self {
            revision: *revision,
            origin: origin.as_ref().map(Into::into),
            request_id: request.as_ref().map(ToString::to_string).unwrap_or_default(),
            changed: *changed,
            documents: documents.iter().map(one).collect(),
            undoable: *undoable,
        }
    }
}

impl TryFrom<storage::DocumentChange> for DocumentChange {
    type Error = DecodeError;

    fn try_from(message: storage::DocumentChange) -> Result<Self, DecodeError> {
        Ok(Self {
            resource: parsed("resource", &message.resource, ResourceName::parse)?,
            kind: change(message.change)?.ok_or(DecodeError::Newer("kind of change"))?,
            before: message.before.map(TryInto::try_into).transpose()?,
            after: message.after.map(TryInto::try_into).transpose()?,
        })
    }
}

impl TryFrom<storage::RevisionRecord> for RevisionRecord {
    type Error = DecodeError;

    fn try_from(message: storage::RevisionRecord) -> Result<Self, DecodeError> {
        let documents: Result<Vec<DocumentChange>, DecodeError> =
            message.documents.into_iter().map(TryInto::try_into).collect();
        Ok(Self {
            revision: number("revision", message.revision)?,
            origin: message.origin.map(Into::into),
            request: match message.request_id.as_str() {
                "" => None,
                id => Some(parsed("request id", id, RequestId::parse)?),
            },
            changed: message.changed,
            documents: documents?.into(),
            undoable: message.undoable,
        })
    }
}
