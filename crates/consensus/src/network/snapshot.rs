//! Sending a snapshot in chunks.

use futures_util::stream;
use openraft::errors::{NetworkError, StreamingError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use openraft::raft::SnapshotResponse;
use std::time::Duration;
use tonic::{Code, Status};
use trestle_api::peer as proto;

use super::{Lane, Peer};
use crate::raft_types::{TypeConfig, Vote};
use crate::replica::SnapshotData;
use crate::wire;

/// Bytes of one chunk: a quarter of the 1 MiB that the protocol allows, so that progress shows on slow links too.
const CHUNK: usize = 256 << 10;

/// Longest time for one snapshot: 64 MiB at 10 Mbit/s take 54 s. Dead connections are found by their probes.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

fn streaming_error(status: &Status) -> StreamingError<TypeConfig> {
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            StreamingError::Unreachable(Unreachable::from_string(status.message()))
        }
        _ => StreamingError::Network(NetworkError::from_string(format!(
            "{}: {}",
            status.code(),
            status.message()
        ))),
    }
}

impl Peer {
    pub(super) async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let head = proto::InstallSnapshotRequest {
            to: Some(self.to.now()),
            vote: Some(wire::vote_message(&vote)),
            meta: Some(wire::snapshot_meta_message(&snapshot.meta)),
            chunk: Vec::new(),
        };
        let data = snapshot.snapshot;
        let chunks = stream::unfold((Some(head), data, 0_usize), |(head, data, at)| async move {
            if let Some(head) = head {
                return Some((head, (None, data, 0)));
            }
            let end = data.len().min(at + CHUNK);
            let chunk = data.get(at..end).filter(|chunk| !chunk.is_empty())?.to_vec();
            let message = proto::InstallSnapshotRequest { chunk, ..Default::default() };
            Some((message, (None, data, end)))
        });
        let mut service = self.service(Lane::Bulk).map_err(|e| streaming_error(&e))?;
        let call = tokio::time::timeout(SNAPSHOT_TIMEOUT, service.install_snapshot(chunks));
        let answer = call.await.map_err(|_| {
            let (action, timeout) = (RPCTypes::InstallSnapshot, SNAPSHOT_TIMEOUT);
            StreamingError::Timeout(Timeout { action, id: self.me, target: self.target, timeout })
        })?;
        let refused = |status: Status| {
            self.parts.outdated.note_refusal(self.target, &status);
            streaming_error(&status)
        };
        let answer = answer.map_err(refused)?.into_inner();
        let theirs = wire::required_vote("snapshot answer", answer.vote)
            .and_then(|theirs| {
                wire::within_reach(theirs.leader_id.term, vote.leader_id.term).map(|()| theirs)
            })
            .map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
        if theirs == vote {
            self.parts.outdated.note_stored(self.target);
        }
        Ok(SnapshotResponse::new(theirs))
    }
}
