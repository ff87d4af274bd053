//! Outcomes: the answers to accepted commands.

use std::sync::Arc;

use trestle_model::{ChangeKind, Outcome, PoolName, Restored};

use super::{DecodeError, parsed, required};
use crate::storage::{self, batch_outcome::Change, outcome::Kind as Message};

pub(super) fn change_number(change: Option<ChangeKind>) -> i32 {
    let change = match change {
        None => Change::Unspecified,
        Some(ChangeKind::Created) => Change::Created,
        Some(ChangeKind::Updated) => Change::Updated,
        Some(ChangeKind::Deleted) => Change::Deleted,
    };
    change.into()
}

pub(super) fn change(number: i32) -> Result<Option<ChangeKind>, DecodeError> {
    match Change::try_from(number) {
        Ok(Change::Unspecified) => Ok(None),
        Ok(Change::Created) => Ok(Some(ChangeKind::Created)),
        Ok(Change::Updated) => Ok(Some(ChangeKind::Updated)),
        Ok(Change::Deleted) => Ok(Some(ChangeKind::Deleted)),
        Err(_) => Err(DecodeError::Newer("kind of change")),
    }
}

impl From<&Outcome> for storage::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let kind = match outcome {
            Outcome::Founded(member) => Message::Founded(member.as_ref().into()),
            Outcome::Member(member) => Message::Member(member.as_ref().into()),
            Outcome::Pool(pool, backends) => Message::Pool(storage::PoolOutcome {
                pool: Some(pool.as_ref().into()),
                backend_count: u64::try_from(*backends).unwrap_or(u64::MAX),
            }),
            Outcome::Backend(pool, backend) => Message::Backend(storage::BackendOutcome {
                pool: pool.to_string(),
                backend: Some(backend.as_ref().into()),
            }),
            Outcome::Listener(listener) => Message::Listener(listener.as_ref().into()),
            Outcome::Vip(vip) => Message::Vip(vip.as_ref().into()),
            Outcome::Restored(Restored { created, updated, deleted }) => {
                Message::Restored(storage::Restored {
                    created: *created,
                    updated: *updated,
                    deleted: *deleted,
                })
            }
            Outcome::Batch(changes) => Message::Batch(storage::BatchOutcome {
                changes: changes.iter().map(|change| change_number(*change)).collect(),
            }),
            Outcome::Noted => Message::Noted(storage::Blank {}),
            Outcome::Deleted => Message::Deleted(storage::Blank {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<storage::Outcome> for Outcome {
    type Error = DecodeError;

    fn try_from(message: storage::Outcome) -> Result<Self, DecodeError> {
        Ok(match message.kind.ok_or(DecodeError::Newer("kind of answer"))? {
            Message::Founded(member) => Self::Founded(Arc::new(member.try_into()?)),
            Message::Member(member) => Self::Member(Arc::new(member.try_into()?)),
            Message::Pool(m) => {
                let count = usize::try_from(m.backend_count).map_err(|_| {
                    DecodeError::rule("backend count", m.backend_count, "does not fit this machine")
                })?;
                Self::Pool(Arc::new(required("outcome", "pool", m.pool)?.try_into()?), count)
            }
            Message::Backend(m) => Self::Backend(
                parsed("pool name", &m.pool, PoolName::parse)?,
                Arc::new(required("outcome", "backend", m.backend)?.try_into()?),
            ),
            Message::Listener(listener) => Self::Listener(Arc::new(listener.try_into()?)),
            Message::Vip(vip) => Self::Vip(Arc::new(vip.try_into()?)),
            Message::Restored(m) => {
                Self::Restored(Restored { created: m.created, updated: m.updated, deleted: m.deleted })
            }
            Message::Batch(m) => {
                let changes: Result<Vec<_>, DecodeError> = m.changes.into_iter().map(change).collect();
                Self::Batch(changes?.into())
            }
            Message::Noted(storage::Blank {}) => Self::Noted,
            Message::Deleted(storage::Blank {}) => Self::Deleted,
        })
    }
}
