//! What a snapshot holds, as bytes: the same bytes on disk and between members.

use prost::Message;
use prost::bytes::Bytes;
use trestle_api::storage;
use trestle_api::stored::DecodeError;
use trestle_model::Machine;

use crate::raft_types::SnapshotMeta;
use crate::wire::{self, WireError};

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// They are no message of this kind.
    #[error("it is not a snapshot message: {0}")]
    Message(String),
    /// A part is not there.
    #[error("it lacks its {0}")]
    Missing(&'static str),
    /// The log ids or the membership are wrong.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The state is wrong.
    #[error(transparent)]
    Stored(#[from] DecodeError),
}

/// Encodes a snapshot.
pub(crate) fn encode(meta: &SnapshotMeta, machine: &Machine) -> Bytes {
    let meta = Some(wire::snapshot_meta_message(meta));
    storage::Snapshot { meta, machine: Some(machine.into()) }.encode_to_vec().into()
}

/// Decodes a snapshot.
pub(crate) fn decode(payload: &[u8]) -> Result<(SnapshotMeta, Machine), SnapshotError> {
    let message = storage::Snapshot::decode(payload).map_err(|e| SnapshotError::Message(e.to_string()))?;
    let meta = wire::snapshot_meta(message.meta.ok_or(SnapshotError::Missing("description"))?)?;
    let machine = message.machine.ok_or(SnapshotError::Missing("state"))?.try_into()?;
    Ok((meta, machine))
}
