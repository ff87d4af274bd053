//! Taking a snapshot in chunks. Nothing reaches Raft that it could not install: it takes each failure of that for one of its
//! storage, and ends.

use std::time::Duration;

use openraft::Snapshot;
use openraft::async_runtime::watch::WatchReceiver;
use prost::bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};
use trestle_api::peer as proto;
use trestle_api::peer_caller::PeerCaller;
use trestle_model::{ClusterId, MemberId};

use super::{Service, malformed, stopped};
use crate::abstention::OutdatedProgram;
use crate::raft_types::{LogId, SnapshotMeta, Vote};
use crate::replica::RaftHandle;
use crate::snapshot::{self, SnapshotError};
use crate::wire;

/// Most bytes of a snapshot: ten times what the model's bounds on resources can add up to, and little enough to hold.
const SNAPSHOT_MAX: usize = 256 << 20;

/// How long a snapshot may take to arrive, whatever its size.
const RECEIVE_WAIT: Duration = Duration::from_secs(10);

/// Bytes for which a second more is given: links of 1 Mbit/s are slow, and what is slower holds memory for nothing.
const BYTES_A_SECOND: usize = 128 << 10;

fn refused(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("snapshot refused: {why}"))
}

/// Receives the rest of a snapshot.
async fn receive(
    requests: &mut Streaming<proto::InstallSnapshotRequest>,
    mut payload: Vec<u8>,
) -> Result<Bytes, Status> {
    let began = Instant::now();
    loop {
        let seconds = u64::try_from(payload.len() / BYTES_A_SECOND).unwrap_or(u64::MAX);
        let deadline = began + RECEIVE_WAIT + Duration::from_secs(seconds);
        let Ok(next) = timeout_at(deadline, requests.message()).await else {
            return Err(Status::deadline_exceeded(format!(
                "{} bytes of a snapshot arrived in {:?}; it is given {RECEIVE_WAIT:?} and a second for each {BYTES_A_SECOND} bytes",
                payload.len(),
                began.elapsed()
            )));
        };
        let Some(next) = next? else { return Ok(payload.into()) };
        if payload.len() + next.chunk.len() > SNAPSHOT_MAX {
            return Err(Status::resource_exhausted(format!("a snapshot of more than {SNAPSHOT_MAX} bytes")));
        }
        payload.extend_from_slice(&next.chunk);
    }
}

/// Refuses a description that no snapshot of the leader by `vote` can have, for a member that knows what is `committed`.
fn check_meta(meta: &SnapshotMeta, vote: &Vote, committed: Option<LogId>) -> Result<(), Status> {
    let Some(last) = meta.last_log_id else { return Err(refused("it contains no log entry")) };
    let membership = meta.last_membership.log_id();
    if last.leader_id > vote.leader_id || membership.is_some_and(|id| id > last) {
        return Err(refused("it goes on beyond its leader's log"));
    }
    if meta.last_membership.membership().get_joint_config().is_empty() {
        return Err(refused("it has no voters"));
    }
    match committed {
        Some(committed) if last > committed && last.index <= committed.index => {
            Err(refused(format!("{last} is not the entry that is committed at this index")))
        }
        _ => Ok(()),
    }
}

/// Refuses bytes that are not the snapshot that they are described as, or another cluster's; answers what a program that knows
/// feature levels up to `level_max` does not know. Takes long for many bytes.
fn check_payload(
    payload: &[u8],
    meta: &SnapshotMeta,
    cluster: &ClusterId,
    level_max: u32,
) -> Result<Option<String>, Status> {
    let (found, machine) = match snapshot::decode(payload) {
        Ok(decoded) => decoded,
        Err(SnapshotError::Stored(unknown)) => return Ok(Some(unknown.to_string())),
        Err(other) => return Err(refused(other)),
    };
    if found != *meta {
        return Err(refused(format!("it contains {found}, not {meta}")));
    }
    match machine.state.cluster_id {
        Some(found) if found == *cluster => {}
        Some(other) => {
            return Err(refused(format!("it is of cluster {other}, and this member of {cluster}")));
        }
        None => return Err(refused("it is of no cluster")),
    }
    let level = machine.state.feature_level;
    let unknown = || format!("feature level {level}, and this version knows up to {level_max}");
    Ok((level > level_max).then(unknown))
}

impl Service {
    /// Takes the leader's snapshot, one at a time.
    pub(super) async fn install_snapshot(
        &self,
        caller: PeerCaller,
        mut requests: Streaming<proto::InstallSnapshotRequest>,
    ) -> Result<proto::InstallSnapshotResponse, Status> {
        let first = timeout_at(Instant::now() + RECEIVE_WAIT, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("a snapshot did not begin"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let raft = self.addressed(first.to.as_ref())?;
        let vote = wire::leader_vote("snapshot request", first.vote).map_err(malformed)?;
        caller.is(MemberId(vote.leader_id.node_id))?;
        self.core.callers.admit(&raft, &vote, true)?;
        let mine = raft.server_metrics().borrow_watched().vote;
        if mine > vote {
            return Ok(proto::InstallSnapshotResponse { vote: Some(wire::vote_message(&mine)) });
        }
        let meta =
            first.meta.ok_or_else(|| Status::invalid_argument("a snapshot without its description"))?;
        let meta = wire::snapshot_meta(meta).map_err(malformed)?;
        check_meta(&meta, &vote, committed(&raft))?;
        // It is sent again and again, and may be large.
        if let Some(known) = self.core.shared.abstentions.current().outdated
            && Some(known.at) == meta.last_log_id
        {
            return Err(self.outdated(&raft, &vote, known));
        }
        let Ok(_one) = self.core.receiving.try_lock() else {
            return Err(Status::resource_exhausted(
                "another snapshot is on its way to this member; try again",
            ));
        };
        let payload = receive(&mut requests, first.chunk).await?;
        let cluster = self.core.shared.member.identity().ok_or_else(|| stopped("no identity"))?.cluster_id;
        let (bytes, described) = (payload.clone(), meta.clone());
        let level_max = self.core.shared.member.settings().feature_level_max;
        let check =
            self.core.shared.member.blocking(move || check_payload(&bytes, &described, &cluster, level_max));
        if let (Some(what), Some(at)) = (check.await.map_err(stopped)??, meta.last_log_id) {
            return Err(self.outdated(&raft, &vote, OutdatedProgram { at, what: what.into() }));
        }
        // More may be committed by now.
        check_meta(&meta, &vote, committed(&raft))?;
        let last = meta.last_log_id;
        let answer =
            raft.install_full_snapshot(vote, Snapshot { meta, snapshot: payload }).await.map_err(stopped)?;
        if let Some(last) = last {
            self.core.shared.abstentions.set_readable(last);
        }
        Ok(proto::InstallSnapshotResponse { vote: Some(wire::vote_message(&answer.vote)) })
    }
}

/// The last entry that this member knows to be committed.
fn committed(raft: &RaftHandle) -> Option<LogId> {
    raft.metrics().borrow_watched().local_committed
}
