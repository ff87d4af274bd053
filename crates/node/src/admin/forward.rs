//! Operations that only the leader can carry out reach it over its peer port, where every member serves the same API.

use std::error::Error;

use tonic::transport::Channel;
use tonic::{Request, Status};
use trestle_api::status::{self, Failure};
use trestle_api::unanswered;
use trestle_consensus::DEFAULT_WAIT;
use trestle_model::MemberId;

use super::Admin;

/// Marks a request that another member passed on, so that it is not passed on again.
const FORWARDED: &str = "trestle-forwarded";

/// A request to pass on.
pub(super) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// What the leader answered; where it did not, why.
pub(super) fn answered<T>(answer: Result<T, Status>) -> Result<T, Status> {
    answer.map_err(|status| match status.source() {
        Some(_) => {
            Status::new(status.code(), format!("the leader did not answer: {}", unanswered::why(&status)))
        }
        None => status,
    })
}

impl Admin {
    /// A channel to the leader when another member leads, `None` when this one does.
    pub(super) async fn leader_elsewhere<T>(&self, request: &Request<T>) -> Result<Option<Channel>, Status> {
        if self.member.id().is_none() {
            return Err(status::failure(&Failure::NoCluster));
        }
        let mut role = self.member.consensus.role();
        let known = role.wait_for(|role| role.leader.is_some());
        let leader = match tokio::time::timeout(DEFAULT_WAIT, known).await {
            Ok(Ok(role)) => role.leader.as_ref().map(|(id, _)| *id),
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
        self.channel_to(leader).map(Some)
    }

    /// A channel to another member.
    pub(super) fn channel_to(&self, id: MemberId) -> Result<Channel, Status> {
        let state = self.member.consensus.view().borrow().state.clone();
        let member = state.members.get(&id).ok_or_else(|| no_leader("its address is not known here yet"))?;
        self.member.clients.channel(&member.spec.peer_address)
    }
}

fn no_leader(why: &str) -> Status {
    status::failure(&Failure::NoLeader(why.to_owned()))
}
