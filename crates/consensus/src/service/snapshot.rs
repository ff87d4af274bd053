//! Taking a snapshot in chunks.

use openraft::Snapshot;
use tonic::{Status, Streaming};
use trestle_api::peer as proto;

use super::{malformed, stopped};
use crate::replica::SnapshotData;
use crate::shared::Core;
use crate::wire;

/// Most bytes of a snapshot: ten times what the model's bounds on resources can add up to, and little enough to hold.
const SNAPSHOT_MAX: usize = 256 << 20;

impl Core {
    pub(super) async fn install_snapshot(
        &self,
        mut requests: Streaming<proto::InstallSnapshotRequest>,
    ) -> Result<proto::InstallSnapshotResponse, Status> {
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let raft = self.addressed(first.to.as_ref())?;
        let vote = wire::required_vote("snapshot request", first.vote).map_err(malformed)?;
        let meta =
            first.meta.ok_or_else(|| Status::invalid_argument("a snapshot without its description"))?;
        let meta = wire::snapshot_meta(meta).map_err(malformed)?;
        let mut payload = first.chunk;
        while let Some(next) = requests.message().await? {
            if payload.len() + next.chunk.len() > SNAPSHOT_MAX {
                return Err(Status::resource_exhausted(format!(
                    "a snapshot of more than {SNAPSHOT_MAX} bytes"
                )));
            }
            payload.extend_from_slice(&next.chunk);
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotData::from(payload) };
        let answer = raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(proto::InstallSnapshotResponse { vote: Some(wire::vote_message(&answer.vote)) })
    }
}
