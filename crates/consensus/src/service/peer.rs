//! Answers to the other members' peer service, as far as it is about consensus.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use trestle_api::peer as proto;
use trestle_api::status::Failure;
use trestle_model::{ClusterId, MemberId, Proposal};

use crate::error::Error;
use crate::identity::RecoveryId;
use crate::membership_state::RemovalVerdict;
use crate::parts::Core;

/// How long the leader works on a write that another member forwarded.
const FORWARDED_WAIT: Duration = Duration::from_secs(2);

impl Core {
    fn of_this_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        match self.shared.member.identity() {
            None => Err(Error::Failed(Failure::NoCluster).to_status()),
            Some(identity) if identity.cluster_id.as_str() == cluster_id => Ok(()),
            Some(identity) => Err(Status::failed_precondition(format!(
                "this member belongs to cluster {}, the call is for {cluster_id}",
                identity.cluster_id
            ))),
        }
    }

    pub(crate) async fn serve_propose(
        &self,
        request: proto::ProposeRequest,
        may: impl FnOnce(&Proposal) -> Result<(), Status> + Send,
    ) -> Result<proto::ProposeResponse, Status> {
        self.of_this_cluster(&request.cluster_id)?;
        self.recovery.check(RecoveryId { number: request.recovery, draw: request.recovery_draw })?;
        let proposal = request.proposal.ok_or_else(|| Status::invalid_argument("a proposal is missing"))?;
        let proposal = Proposal::try_from(proposal).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if !proposal.command.is_clients() {
            return Err(Status::permission_denied(
                "only a client's command is proposed for another member; what a leader notes itself, it proposes itself",
            ));
        }
        may(&proposal)?;
        let accepted = self.proposals.propose_here(proposal, FORWARDED_WAIT).await?;
        Ok(proto::ProposeResponse { revision: accepted.revision, outcome: Some((&accepted.outcome).into()) })
    }

    pub(crate) async fn serve_read_index(
        &self,
        request: proto::ReadIndexRequest,
    ) -> Result<proto::ReadIndexResponse, Status> {
        self.of_this_cluster(&request.cluster_id)?;
        self.recovery.check(RecoveryId { number: request.recovery, draw: request.recovery_draw })?;
        Ok(proto::ReadIndexResponse { index: self.reads.read_index_here(FORWARDED_WAIT).await? })
    }

    pub(crate) async fn serve_adopt(
        self: Arc<Self>,
        request: proto::AdoptRequest,
    ) -> Result<proto::AdoptResponse, Status> {
        let mine = &self.shared.member.settings().name;
        if request.name != mine.as_str() {
            let text = format!("this member is named \"{mine}\", not \"{}\"", request.name.escape_debug());
            return Err(Status::failed_precondition(text));
        }
        let cluster = ClusterId::parse(&request.cluster_id);
        let cluster = cluster.map_err(|rule| Status::invalid_argument(format!("the cluster id {rule}")))?;
        if request.member_id == 0 {
            return Err(Status::invalid_argument("the member id must not be 0"));
        }
        let recovery = RecoveryId { number: request.recovery, draw: request.recovery_draw };
        self.adopt(cluster, MemberId(request.member_id), recovery).await?;
        Ok(proto::AdoptResponse {})
    }

    pub(crate) async fn serve_notify_removed(
        self: Arc<Self>,
        request: proto::NotifyRemovedRequest,
    ) -> Result<proto::NotifyRemovedResponse, Status> {
        let to =
            request.to.ok_or_else(|| Status::invalid_argument("a removal notice names no destination"))?;
        self.of_this_cluster(&to.cluster_id)?;
        self.recovery.check(RecoveryId { number: to.recovery, draw: to.recovery_draw })?;
        if self.shared.member.id() != Some(MemberId(to.member_id)) {
            return Err(Status::failed_precondition(format!(
                "the removal notice is for member {}",
                to.member_id
            )));
        }
        if self.shared.member.was_removed() {
            return Ok(proto::NotifyRemovedResponse {});
        }
        let core = self.clone();
        let Ok(_one) = self.removal_check.try_lock() else {
            return Err(Status::unavailable("another removal notice is being checked; try again"));
        };
        match core.confirm_removal().await {
            RemovalVerdict::Removed => Ok(proto::NotifyRemovedResponse {}),
            RemovalVerdict::Member => Err(Status::failed_precondition(
                "the leader says that this member belongs to the cluster; it goes on",
            )),
            RemovalVerdict::Open => Err(Status::unavailable(
                "no leader with a quorum, of those that this member knows, confirms that it was removed; it goes on",
            )),
        }
    }
}
