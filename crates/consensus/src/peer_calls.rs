//! Calls to other members, beside those that Raft makes itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Request, Status};
use trestle_api::peer as proto;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::status::{Failure, Reason};
use trestle_api::unanswered;
use trestle_model::{MemberId, Outcome, Proposal};

use crate::error::Error;
use crate::identity::Identity;
use crate::member::LocalMember;
use crate::network::{Channels, Lane, MESSAGE_MAX, PeerChannel};
use crate::recovery::Recoveries;
use crate::retry::Retry;
use crate::shared::Shared;
use crate::store::SyncedIndex;
use crate::wire;

/// The answer to an accepted proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedProposal {
    /// Revision at which the answer holds.
    pub revision: trestle_model::Revision,
    /// What became of the resource.
    pub outcome: Outcome,
}

/// What another member says of disks.
pub(crate) enum DiskAnswer {
    /// What it knows of this member's disk, and what it has on its own.
    KnownMembers(SyncedIndex, SyncedIndex),
    /// It runs an older version, which knows nothing.
    Nothing,
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

/// What the status of a proposal at another member says of making it again.
fn retry(status: Status) -> Retry {
    match Reason::of(&status) {
        Some(reason) if reason.nothing_was_proposed() => Retry::Safe(status.message().to_owned()),
        Some(Reason::OutcomeUnknown) => Retry::OutcomeUnknown(status.message().to_owned()),
        Some(_) => Retry::Never(Error::Relayed(Box::new(status))),
        None if never_left(&status) => {
            Retry::Safe(format!("the leader cannot be reached: {}", unanswered::why(&status)))
        }
        None => Retry::OutcomeUnknown(format!("the call to the leader failed: {}", unanswered::why(&status))),
    }
}

/// Calls other members in this member's name.
pub(crate) struct PeerCalls {
    member: Arc<LocalMember>,
    channels: Arc<Channels>,
    recoveries: Arc<Recoveries>,
}

impl PeerCalls {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            member: shared.member.clone(),
            channels: shared.channels.clone(),
            recoveries: shared.recoveries.clone(),
        }
    }

    fn peer(&self, address: &str) -> Result<PeerServiceClient<PeerChannel>, Retry> {
        let channel =
            self.channels.to(address, Lane::Log).map_err(|e| Retry::Never(Error::internal(e.message())))?;
        Ok(PeerServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX))
    }

    fn raft(&self, address: &str, lane: Lane) -> Option<RaftServiceClient<PeerChannel>> {
        self.channels.to(address, lane).ok().map(RaftServiceClient::new)
    }

    fn identity(&self) -> Result<Identity, Retry> {
        self.member.identity().ok_or(Retry::Never(Failure::NoCluster.into()))
    }

    /// For whom a call to the member `to` is.
    fn destination(&self, to: u64) -> Option<proto::Destination> {
        let identity = self.member.identity()?;
        Some(proto::Destination {
            cluster_id: identity.cluster_id.to_string(),
            member_id: to,
            vote_refusal_ms: self.member.timing().vote_refusal_ms(),
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
            ..Default::default()
        })
    }

    /// Lets the leader at `address` propose.
    pub(crate) async fn propose(
        &self,
        address: &str,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<AppliedProposal, Retry> {
        let identity = self.identity()?;
        let message = proto::ProposeRequest {
            cluster_id: identity.cluster_id.to_string(),
            proposal: Some(proposal.into()),
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
        };
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut peer = self.peer(address)?;
        let Ok(answer) = timeout_at(deadline, peer.propose(request)).await else {
            return Err(Retry::OutcomeUnknown("the leader did not answer in time".to_owned()));
        };
        let answer = answer.map_err(retry)?.into_inner();
        match answer.outcome.map(Outcome::try_from) {
            Some(Ok(outcome)) => Ok(AppliedProposal { revision: answer.revision, outcome }),
            Some(Err(error)) => Err(Retry::Never(Error::internal(error))),
            None => Err(Retry::Never(Error::internal("the leader's answer has no outcome"))),
        }
    }

    /// Asks the leader at `address` what a linearizable read must have applied.
    pub(crate) async fn read_index(&self, address: &str, deadline: Instant) -> Result<u64, Retry> {
        let identity = self.identity()?;
        let request = proto::ReadIndexRequest {
            cluster_id: identity.cluster_id.to_string(),
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
        };
        let mut peer = self.peer(address)?;
        match timeout_at(deadline, peer.read_index(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().index),
            // A read changes nothing: whatever went wrong, ask again.
            Ok(Err(status)) => Err(Retry::Safe(status.message().to_owned())),
            Err(_) => Err(Retry::Safe("the leader did not answer in time".to_owned())),
        }
    }

    /// Tells the empty member at `address` who it is from now on.
    pub(crate) async fn adopt(
        &self,
        address: &str,
        id: MemberId,
        name: &str,
        within: Duration,
    ) -> Result<(), Error> {
        let identity = self.identity()?;
        let request = proto::AdoptRequest {
            cluster_id: identity.cluster_id.to_string(),
            member_id: id.0,
            name: name.to_owned(),
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
        };
        let mut peer = self.peer(address)?;
        let why = match timeout(within, peer.adopt(request)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("no answer within {within:?}"),
        };
        Err(Error::membership(format!(
            "member \"{name}\" at {address} could not be taken in: {why}; see that it runs with an empty data directory, or \
             was a member of this cluster, then repeat the command, which goes on where it stopped"
        )))
    }

    /// Tells a member that it was removed, if it can be reached; it also learns so when it next asks for a vote.
    pub(crate) async fn notify_removed(&self, address: &str, id: MemberId, within: Duration) {
        let (Some(to), Ok(mut peer)) = (self.destination(id.0), self.peer(address)) else { return };
        let told = timeout(within, peer.notify_removed(proto::NotifyRemovedRequest { to: Some(to) })).await;
        match told {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::info!(%id, "a removed member was not told so: {}", status.message()),
            Err(_) => tracing::info!(%id, "a removed member was not told so: it does not answer"),
        }
    }

    /// Asks the member `to` what it knows of the part in the cluster of the member `id`.
    pub(crate) async fn check_member(
        &self,
        to: u64,
        address: &str,
        id: u64,
        within: Duration,
    ) -> Option<proto::CheckMemberResponse> {
        let request = proto::CheckMemberRequest { to: Some(self.destination(to)?), member_id: id };
        let mut service = self.raft(address, Lane::Log)?;
        let answer = timeout(within, service.check_member(request)).await.ok()?;
        Some(answer.inspect_err(|status| self.recoveries.note(status)).ok()?.into_inner())
    }

    /// Asks the member `to` what it knows of this one's disk, and tells it what this one has and knows of the other's.
    pub(crate) async fn check_disk(
        &self,
        to: u64,
        address: &str,
        known: &SyncedIndex,
        own: &SyncedIndex,
    ) -> Option<DiskAnswer> {
        let destination = proto::Destination {
            known: Some(wire::synced_index_message(known)),
            own: Some(wire::synced_index_message(own)),
            ..self.destination(to)?
        };
        let request = proto::CheckDiskRequest { to: Some(destination), member_id: self.member.id()?.0 };
        let mut service = self.raft(address, Lane::Heartbeat)?;
        match timeout(self.member.timing().patience(), service.check_disk(request)).await.ok()? {
            Ok(answer) => {
                let answer = answer.into_inner();
                let known = wire::synced_index(answer.known.as_ref()).ok()?;
                Some(DiskAnswer::KnownMembers(known, wire::synced_index(answer.own.as_ref()).ok()?))
            }
            Err(status) => {
                self.recoveries.note(&status);
                (status.code() == Code::Unimplemented).then_some(DiskAnswer::Nothing)
            }
        }
    }

    /// Asks the leader of `term` whether it hands leadership to the member `to`.
    pub(crate) async fn confirm_transfer(
        &self,
        leader: u64,
        address: &str,
        term: u64,
        to: u64,
        within: Duration,
    ) -> bool {
        let (Some(destination), Some(mut service)) =
            (self.destination(leader), self.raft(address, Lane::Heartbeat))
        else {
            return false;
        };
        let request = proto::ConfirmTransferRequest { to: Some(destination), term, to_member_id: to };
        let answer = timeout(within, service.confirm_transfer(request)).await;
        matches!(answer, Ok(Ok(answer)) if answer.get_ref().confirmed)
    }
}
