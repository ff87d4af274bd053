//! Calls to other members' peer service, and this member's answers to such calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use trestle_api::peer as proto;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::status::{APPLIED_KEY, CALLER_REMOVED, Failure};
use trestle_api::unanswered;
use trestle_model::{ClusterId, MemberId, Outcome, Proposal};

use crate::error::Error;
use crate::membership_state::RemovalVerdict;
use crate::network::Lane;
use crate::propose::{AppliedProposal, Retry};
use crate::recovery::RecoveryId;
use crate::shared::Core;

/// How long the leader works on a write that another member forwarded.
const FORWARDED_WAIT: Duration = Duration::from_secs(2);

/// Reasons of statuses that say for certain that nothing was proposed; see `trestle_api::status::failure`.
const NOTHING_PROPOSED: [&str; 3] = ["NO_LEADER", "SHUTTING_DOWN", "NO_CLUSTER"];

/// The reason in a status that this program made.
pub(crate) fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// The index up to which the answering member has applied the log, in a status that says that the caller was removed.
pub(crate) fn caller_removed(status: &Status) -> Option<u64> {
    let info = status.get_details_error_info().filter(|info| info.reason == CALLER_REMOVED)?;
    info.metadata.get(APPLIED_KEY)?.parse().ok()
}

/// True when no connection was made, so that the call cannot have reached anyone.
fn never_left(status: &Status) -> bool {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn retry(status: Status) -> Retry {
    match reason(&status).as_deref() {
        Some(reason) if NOTHING_PROPOSED.contains(&reason) => Retry::Safe(status.message().to_owned()),
        Some("OUTCOME_UNKNOWN") => Retry::OutcomeUnknown(status.message().to_owned()),
        Some(_) => Retry::Never(Error::Relayed(Box::new(status))),
        None if never_left(&status) => {
            Retry::Safe(format!("the leader cannot be reached: {}", unanswered::why(&status)))
        }
        None => Retry::OutcomeUnknown(format!("the call to the leader failed: {}", unanswered::why(&status))),
    }
}

impl Core {
    fn peer(&self, address: &str) -> Result<PeerServiceClient<Channel>, Retry> {
        let channel =
            self.channels.to(address, Lane::Log).map_err(|e| Retry::Never(Error::internal(e.message())))?;
        Ok(PeerServiceClient::new(channel))
    }

    fn cluster(&self) -> Result<ClusterId, Retry> {
        self.identity().map(|identity| identity.cluster_id).ok_or(Retry::Never(Failure::NoCluster.into()))
    }

    /// Lets the leader at `address` propose.
    pub(crate) async fn forward(
        &self,
        address: &str,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<AppliedProposal, Retry> {
        let message = proto::ProposeRequest {
            cluster_id: self.cluster()?.to_string(),
            proposal: Some(proposal.into()),
            recovery: self.recovery().number,
            recovery_draw: self.recovery().draw,
        };
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut peer = self.peer(address)?;
        let Ok(answer) = timeout_at(deadline, peer.propose(request)).await else {
            return Err(Retry::OutcomeUnknown("the leader did not answer in time".to_owned()));
        };
        let answer = answer.map_err(retry)?.into_inner();
        let outcome = answer.outcome.map(Outcome::try_from);
        match outcome {
            Some(Ok(outcome)) => Ok(AppliedProposal { revision: answer.revision, outcome }),
            Some(Err(error)) => Err(Retry::Never(Error::internal(error))),
            None => Err(Retry::Never(Error::internal("the leader's answer has no outcome"))),
        }
    }

    /// Asks the leader at `address` what a linearizable read must have applied.
    pub(crate) async fn ask_index(&self, address: &str, deadline: Instant) -> Result<u64, Retry> {
        let RecoveryId { number: recovery, draw: recovery_draw } = self.recovery();
        let cluster_id = self.cluster()?.to_string();
        let request = proto::ReadIndexRequest { cluster_id, recovery, recovery_draw };
        let mut peer = self.peer(address)?;
        match timeout_at(deadline, peer.read_index(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().index),
            // A read changes nothing: whatever went wrong, ask again.
            Ok(Err(status)) => Err(Retry::Safe(status.message().to_owned())),
            Err(_) => Err(Retry::Safe("the leader did not answer in time".to_owned())),
        }
    }

    fn of_this_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        match self.identity() {
            None => Err(Error::Failed(Failure::NoCluster).to_status()),
            Some(identity) if identity.cluster_id.as_str() == cluster_id => Ok(()),
            Some(identity) => Err(Status::new(
                Code::FailedPrecondition,
                format!(
                    "this member belongs to cluster {}, the call is for {cluster_id}",
                    identity.cluster_id
                ),
            )),
        }
    }

    pub(crate) async fn serve_propose(
        &self,
        request: proto::ProposeRequest,
    ) -> Result<proto::ProposeResponse, Status> {
        self.of_this_cluster(&request.cluster_id)?;
        self.same_recovery(RecoveryId { number: request.recovery, draw: request.recovery_draw })?;
        let proposal = request.proposal.ok_or_else(|| Status::invalid_argument("a proposal is missing"))?;
        let proposal = Proposal::try_from(proposal).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if !proposal.command.is_clients() {
            return Err(Status::permission_denied(
                "only a client's command is proposed for another member; what a leader notes itself, it proposes itself",
            ));
        }
        let accepted = self.propose_here(proposal, FORWARDED_WAIT).await?;
        Ok(proto::ProposeResponse { revision: accepted.revision, outcome: Some((&accepted.outcome).into()) })
    }

    pub(crate) async fn serve_read_index(
        &self,
        request: proto::ReadIndexRequest,
    ) -> Result<proto::ReadIndexResponse, Status> {
        self.of_this_cluster(&request.cluster_id)?;
        self.same_recovery(RecoveryId { number: request.recovery, draw: request.recovery_draw })?;
        Ok(proto::ReadIndexResponse { index: self.read_index_here(FORWARDED_WAIT).await? })
    }

    pub(crate) async fn serve_adopt(
        self: Arc<Self>,
        request: proto::AdoptRequest,
    ) -> Result<proto::AdoptResponse, Status> {
        let mine = &self.settings.name;
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
        self.same_recovery(RecoveryId { number: to.recovery, draw: to.recovery_draw })?;
        if self.me() != Some(MemberId(to.member_id)) {
            return Err(Status::failed_precondition(format!(
                "the removal notice is for member {}",
                to.member_id
            )));
        }
        if self.was_removed() {
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

    /// Tells the empty member at `address` who it is from now on.
    pub(crate) async fn call_adopt(
        &self,
        address: &str,
        id: MemberId,
        name: &str,
        within: Duration,
    ) -> Result<(), Error> {
        let request = proto::AdoptRequest {
            cluster_id: self.cluster()?.to_string(),
            member_id: id.0,
            name: name.to_owned(),
            recovery: self.recovery().number,
            recovery_draw: self.recovery().draw,
        };
        let call = async { Ok::<_, Error>(self.peer(address)?.adopt(request).await) };
        let why = match timeout_at(Instant::now() + within, call).await {
            Ok(answer) => match answer? {
                Ok(_) => return Ok(()),
                Err(status) => status.message().to_owned(),
            },
            Err(_) => format!("no answer within {within:?}"),
        };
        Err(Error::membership(format!(
            "member \"{name}\" at {address} could not be taken in: {why}; see that it runs with an empty data directory, or \
             was a member of this cluster, then repeat the command, which goes on where it stopped"
        )))
    }

    /// Tells a member that it was removed, if it can be reached; it also learns so when it next asks for a vote.
    pub(crate) async fn notify_removed(&self, address: &str, id: MemberId, within: Duration) {
        let (Ok(cluster), Ok(mut peer)) = (self.cluster(), self.peer(address)) else { return };
        let to = proto::Destination {
            cluster_id: cluster.to_string(),
            member_id: id.0,
            recovery: self.recovery().number,
            recovery_draw: self.recovery().draw,
            ..Default::default()
        };
        match tokio::time::timeout(within, peer.notify_removed(proto::NotifyRemovedRequest { to: Some(to) }))
            .await
        {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::info!(%id, "a removed member was not told so: {}", status.message()),
            Err(_) => tracing::info!(%id, "a removed member was not told so: it does not answer"),
        }
    }
}
