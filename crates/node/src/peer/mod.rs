//! What members ask of one another beside Raft.

mod clients;

pub(crate) use clients::PeerClients;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tonic::{Request, Response, Status};
use trestle_api::convert::ConnectionFilter;
use trestle_api::peer::peer_service_server::PeerService;
use trestle_api::{peer, status, storage, stored};
use trestle_consensus::STORAGE_FORMAT;
use trestle_model::{Actor, HostPort, Invalid, MemberId, Proposal, Violation};

use crate::access::{self, Caller};
use crate::admin::{Admin, OperationStream};
use crate::connections::OwnConnections;
use crate::events::EventSources;
use crate::registration::Registrar;
use crate::report::Reports;
use crate::revision_waits::RevisionWaits;
use crate::this_member::ThisMember;

/// Answers peers. Its server runs on Raft's runtime, so whatever may take long goes to the runtime of the API.
#[derive(Clone)]
pub(crate) struct PeerServer {
    pub(crate) local: ThisMember,
    pub(crate) admin: Admin,
    pub(crate) reports: Arc<Reports>,
    pub(crate) registrar: Registrar,
    pub(crate) waits: RevisionWaits,
    pub(crate) events: EventSources,
    pub(crate) connections: OwnConnections,
    pub(crate) api: Handle,
}

impl PeerServer {
    /// Refuses a call for another cluster, or for an earlier member at this address.
    fn check_destination(&self, to: Option<&peer::Destination>) -> Result<(), Status> {
        let mine = self.local.destination(None);
        if to.is_some() && to == mine.as_ref() {
            return Ok(());
        }
        let asked = to.map_or_else(
            || "nobody".to_owned(),
            |to| format!("member {} of cluster {}", to.member_id, to.cluster_id),
        );
        let why = format!("the question is for {asked}, which this process is not");
        Err(status::failure(&status::Failure::Membership(why)))
    }

    /// Runs an answer on the runtime of the API.
    async fn on_api<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let answer = self.api.spawn(answer).await;
        answer.map_err(|_| status::failure(&status::Failure::ShuttingDown))?.map(Response::new)
    }
}

fn filter(given: Option<peer::ConnectionFilter>) -> Result<ConnectionFilter, Status> {
    given.unwrap_or_default().try_into().map_err(|found| status::invalid(&found))
}

fn invalid(field: &str, value: &str, rule: impl Into<String>) -> Status {
    status::invalid(&Invalid(vec![Violation::new(field, value, rule)]))
}

/// Who has asked another member for something, if that knows. Nothing is done for somebody whose rights are not known here.
fn actor(given: Option<storage::Actor>) -> Result<Option<Actor>, Status> {
    let Some(given) = given else { return Ok(None) };
    let why =
        "another member asks for a caller of a kind that this member does not know: upgrade this member";
    stored::actor(given).map(Some).ok_or_else(|| status::failure(&status::Failure::Denied(why.to_owned())))
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    async fn describe(
        &self,
        _: Request<peer::DescribeRequest>,
    ) -> Result<Response<peer::DescribeResponse>, Status> {
        let config = &self.local.config;
        let identity = self.local.consensus.identity();
        let recovery = identity.as_ref().map(|identity| identity.recovery).unwrap_or_default();
        Ok(Response::new(peer::DescribeResponse {
            name: config.name.to_string(),
            peer_address: config.advertise_peer_address.to_string(),
            admin_address: config.advertise_admin_address.to_string(),
            cluster_id: identity.as_ref().map(|i| i.cluster_id.to_string()).unwrap_or_default(),
            member_id: identity.as_ref().map_or(0, |i| i.member_id.0),
            recovery: recovery.number,
            recovery_draw: recovery.draw,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage_format: STORAGE_FORMAT,
            vote_refusal_ms: self.local.consensus.timing().vote_refusal_ms(),
            start: self.local.start,
            sockets: Some((&self.local.sockets()).into()),
            feature_level_max: config.feature_level_max,
        }))
    }

    async fn adopt(
        &self,
        request: Request<peer::AdoptRequest>,
    ) -> Result<Response<peer::AdoptResponse>, Status> {
        let consensus = self.local.consensus.clone();
        self.on_api(async move { consensus.serve_adopt(request.into_inner()).await }).await
    }

    async fn register_start(
        &self,
        request: Request<peer::RegisterStartRequest>,
    ) -> Result<Response<peer::RegisterStartResponse>, Status> {
        let registrar = self.registrar.clone();
        self.on_api(async move {
            let refusal = registrar.register(&request.into_inner()).await?.unwrap_or_default();
            Ok(peer::RegisterStartResponse { refusal })
        })
        .await
    }

    async fn request_join(
        &self,
        request: Request<peer::RequestJoinRequest>,
    ) -> Result<Response<peer::RequestJoinResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let address = request.peer_address;
        HostPort::parse(&address).map_err(|rule| invalid("peer_address", &address, rule))?;
        let admin = self.admin.clone();
        self.on_api(async move {
            admin.admit_member(&caller, address).await?;
            Ok(peer::RequestJoinResponse {})
        })
        .await
    }

    type ForwardStream = OperationStream;

    async fn forward(
        &self,
        request: Request<peer::ForwardRequest>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.check_destination(request.to.as_ref())?;
        let operation =
            request.operation.ok_or_else(|| Status::invalid_argument("an operation is missing"))?;
        let client = match request.client.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("client", text, "must be an IP address"))?),
        };
        let caller = caller.on_behalf_of(MemberId(request.member_id), client, actor(request.actor)?);
        let admin = self.admin.clone();
        self.on_api(async move { admin.lead_for(&caller, operation).await }).await
    }

    async fn notify_removed(
        &self,
        request: Request<peer::NotifyRemovedRequest>,
    ) -> Result<Response<peer::NotifyRemovedResponse>, Status> {
        let consensus = self.local.consensus.clone();
        self.on_api(async move { consensus.serve_notify_removed(request.into_inner()).await }).await
    }

    async fn propose(
        &self,
        request: Request<peer::ProposeRequest>,
    ) -> Result<Response<peer::ProposeResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let origin = request.proposal.as_ref().and_then(|proposal| proposal.origin.as_ref());
        let actor = actor(origin.and_then(|origin| origin.actor.clone()))?;
        let state = self.local.consensus.view().borrow().state.clone();
        let may = |proposal: &Proposal| {
            let (member, client) =
                proposal.origin.as_ref().map_or((None, None), |from| (from.member, from.client));
            let caller = caller.on_behalf_of(member.unwrap_or(MemberId(0)), client, actor);
            access::authorize_command(&caller, &proposal.command, &state)
        };
        self.admin.propose_for_member(request, may).await.map(Response::new)
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        self.local.consensus.serve_read_index(request.into_inner()).await.map(Response::new)
    }

    async fn report(
        &self,
        request: Request<peer::ReportRequest>,
    ) -> Result<Response<peer::ReportResponse>, Status> {
        self.check_destination(request.get_ref().to.as_ref())?;
        let reports = self.reports.clone();
        self.on_api(async move { Ok(reports.report(request.get_ref())) }).await
    }

    async fn await_revision(
        &self,
        request: Request<peer::AwaitRevisionRequest>,
    ) -> Result<Response<peer::AwaitRevisionResponse>, Status> {
        let request = request.into_inner();
        self.check_destination(request.to.as_ref())?;
        let timeout = request.timeout.and_then(|given| Duration::try_from(given).ok()).unwrap_or_default();
        let in_force = self.waits.await_here(request.revision, timeout).await;
        Ok(Response::new(peer::AwaitRevisionResponse { in_force }))
    }

    async fn await_events(
        &self,
        request: Request<peer::AwaitEventsRequest>,
    ) -> Result<Response<peer::AwaitEventsResponse>, Status> {
        self.check_destination(request.get_ref().to.as_ref())?;
        Ok(Response::new(self.events.answer(request.get_ref()).await))
    }

    async fn issue_certificate(
        &self,
        request: Request<peer::IssueCertificateRequest>,
    ) -> Result<Response<peer::IssueCertificateResponse>, Status> {
        let request = request.into_inner();
        self.check_destination(request.to.as_ref())?;
        let signer = self.admin.signer.clone();
        self.on_api(async move { signer.sign_for(request) }).await
    }

    async fn list_connections(
        &self,
        request: Request<peer::ListConnectionsRequest>,
    ) -> Result<Response<peer::ListConnectionsResponse>, Status> {
        let request = request.into_inner();
        self.check_destination(request.to.as_ref())?;
        let filter = filter(request.filter)?;
        let connections = self.connections.clone();
        self.on_api(async move { Ok(connections.list(&filter, request.after, request.limit as usize)) }).await
    }

    async fn close_connections(
        &self,
        request: Request<peer::CloseConnectionsRequest>,
    ) -> Result<Response<peer::CloseConnectionsResponse>, Status> {
        let request = request.into_inner();
        self.check_destination(request.to.as_ref())?;
        let filter = request.filter.map(|given| filter(Some(given))).transpose()?;
        let connections = self.connections.clone();
        self.on_api(
            async move { Ok(connections.close(filter.as_ref(), &request.numbers, request.validate_only)) },
        )
        .await
    }
}
