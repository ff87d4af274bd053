//! Operations that only the leader can carry out reach it over its peer port, where every member serves the same API.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};
use trestle_api::status::{self, Failure};

use super::Admin;

/// Marks a request that another member passed on, so that it is not passed on again.
const FORWARDED: &str = "trestle-forwarded";

/// How long an operation waits for a leader to be elected.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// A request to pass on.
pub(super) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

impl Admin {
    /// A channel to the leader when another member leads, `None` when this one does.
    pub(super) async fn leader_elsewhere<T>(&self, request: &Request<T>) -> Result<Option<Channel>, Status> {
        if self.member.id().is_none() {
            return Err(status::failure(&Failure::NoCluster));
        }
        let no_leader = |why: &str| status::failure(&Failure::NoLeader(why.to_owned()));
        let mut raft = self.member.consensus.status_watch();
        let known = raft.wait_for(|raft| raft.leader.is_some());
        let leader = match tokio::time::timeout(LEADER_WAIT, known).await {
            Ok(Ok(raft)) => raft.leader,
            Ok(Err(_)) => return Err(status::failure(&Failure::ShuttingDown)),
            Err(_) => None,
        };
        let leader = leader.ok_or_else(|| no_leader("none was elected in time"))?;
        if Some(leader) == self.member.id() {
            return Ok(None);
        }
        if request.metadata().contains_key(FORWARDED) {
            return Err(no_leader("leadership moved while the request was under way"));
        }
        let state = self.member.consensus.view().borrow().state.clone();
        let member = state.members.get(&leader).ok_or_else(|| no_leader("its address is not known here yet"))?;
        self.member.clients.channel(&member.spec.peer_address).map(Some)
    }
}
