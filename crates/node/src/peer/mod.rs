//! What members ask of one another beside Raft.

mod clients;

pub(crate) use clients::PeerClients;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tonic::{Request, Response, Status};
use trestle_api::convert::ConnectionFilter;
use trestle_api::peer::peer_service_server::PeerService;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::{peer, status, storage, stored};
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

/// The member that has proved by its key to call.
fn proven_member(caller: &Caller) -> Result<MemberId, Status> {
    caller.proven_member().ok_or_else(|| {
        let why = "keys go only from member to member, over TLS";
        status::failure(&status::Failure::Denied(why.to_owned()))
    })
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    async fn describe(
        &self,
        request: Request<peer::DescribeRequest>,
    ) -> Result<Response<peer::DescribeResponse>, Status> {
        if PeerCaller::of(&request)? == PeerCaller::Anonymous {
            let identity = self.local.consensus.identity();
            return Ok(Response::new(peer::DescribeResponse {
                cluster_id: identity.map(|identity| identity.cluster_id.to_string()).unwrap_or_default(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }));
        }
        Ok(Response::new(self.local.described()))
    }

    async fn describe_founding(
        &self,
        request: Request<peer::DescribeFoundingRequest>,
    ) -> Result<Response<peer::DescribeFoundingResponse>, Status> {
        let local = self.local.clone();
        self.on_api(async move { local.founding.answer(&local, request.get_ref()) }).await
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
        PeerCaller::of(&request)?.is(MemberId(request.get_ref().member_id))?;
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
        let member = Some(MemberId(request.member_id));
        let caller = caller.on_behalf_of(member, client, actor(request.actor)?)?;
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
            let caller = caller.on_behalf_of(member, client, actor)?;
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
        let caller = PeerCaller::of(&request)?;
        let request = request.into_inner();
        self.check_destination(request.to.as_ref())?;
        let signer = self.admin.signer.clone();
        self.on_api(async move { signer.sign_for(caller, request) }).await
    }

    async fn join(
        &self,
        request: Request<peer::JoinRequest>,
    ) -> Result<Response<peer::JoinResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        if request.to.is_some() {
            self.check_destination(request.to.as_ref())?;
        }
        let joins = self.admin.joins.clone();
        self.on_api(async move { joins.join(&caller, request).await }).await
    }

    async fn take_authority_key(
        &self,
        request: Request<peer::TakeAuthorityKeyRequest>,
    ) -> Result<Response<peer::TakeAuthorityKeyResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.check_destination(request.to.as_ref())?;
        proven_member(&caller)?;
        let joins = self.admin.joins.clone();
        self.on_api(async move { joins.keep(request) }).await
    }

    async fn fetch_authority_key(
        &self,
        request: Request<peer::FetchAuthorityKeyRequest>,
    ) -> Result<Response<peer::FetchAuthorityKeyResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.check_destination(request.to.as_ref())?;
        let member = proven_member(&caller)?;
        let joins = self.admin.joins.clone();
        self.on_api(async move { joins.give(member, &request) }).await
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
