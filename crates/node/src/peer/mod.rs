//! What members ask of one another beside Raft.

mod clients;

pub(crate) use clients::Clients;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tonic::{Request, Response, Status};
use trestle_api::peer::peer_service_server::PeerService;
use trestle_api::{peer, status, stored};
use trestle_model::{ClusterId, HostPort, Invalid, MemberId, Violation};

use crate::admin::Admin;
use crate::member::Member;

/// Newest storage format that this version reads.
const STORAGE_FORMAT: u32 = 1;

/// Answers peers. Its server runs on Raft's runtime, so whatever may take long goes to the runtime of the API.
#[derive(Clone)]
pub(crate) struct Peers {
    member: Arc<Member>,
    api: Handle,
}

impl Peers {
    pub(crate) fn new(member: Arc<Member>, api: Handle) -> Self {
        Self { member, api }
    }

    /// Runs an answer on the runtime of the API.
    async fn on_api<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let answer = self.api.spawn(answer).await;
        answer.map_err(|_| status::failure(&status::Failure::ShuttingDown))?.map(Response::new)
    }

    /// Refuses a call that is meant for another cluster.
    fn for_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        match self.member.consensus.identity() {
            None => Err(status::failure(&status::Failure::NoCluster)),
            Some(identity) if identity.cluster_id.as_str() == cluster_id => Ok(()),
            Some(identity) => Err(status::failure(&status::Failure::InCluster(identity.cluster_id.to_string()))),
        }
    }
}

fn invalid(field: &str, value: &str, rule: impl Into<String>) -> Status {
    status::invalid(&Invalid(vec![Violation::new(field, value, rule)]))
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn describe(
        &self,
        _: Request<peer::DescribeRequest>,
    ) -> Result<Response<peer::DescribeResponse>, Status> {
        let config = &self.member.config;
        let identity = self.member.consensus.identity();
        Ok(Response::new(peer::DescribeResponse {
            name: config.name.to_string(),
            peer_address: config.advertise_peer_address.to_string(),
            admin_address: config.advertise_admin_address.to_string(),
            cluster_id: identity.as_ref().map(|i| i.cluster_id.to_string()).unwrap_or_default(),
            member_id: identity.map_or(0, |i| i.member_id.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage_format: STORAGE_FORMAT,
        }))
    }

    async fn adopt(&self, request: Request<peer::AdoptRequest>) -> Result<Response<peer::AdoptResponse>, Status> {
        let request = request.into_inner();
        let cluster = ClusterId::parse(&request.cluster_id);
        let cluster = cluster.map_err(|rule| invalid("cluster_id", &request.cluster_id, rule))?;
        if request.name != self.member.config.name.as_str() {
            let rule = format!("is not this member's name, which is \"{}\"", self.member.config.name);
            return Err(invalid("name", &request.name, rule));
        }
        let member = self.member.clone();
        self.on_api(async move {
            member.consensus.adopt(cluster, MemberId(request.member_id)).await?;
            Ok(peer::AdoptResponse {})
        })
        .await
    }

    async fn request_join(
        &self,
        request: Request<peer::RequestJoinRequest>,
    ) -> Result<Response<peer::RequestJoinResponse>, Status> {
        let address = request.into_inner().peer_address;
        let address = HostPort::parse(&address).map_err(|rule| invalid("peer_address", &address, rule))?;
        let admin = Admin::new(self.member.clone());
        self.on_api(async move {
            admin.take_in(address).await?;
            Ok(peer::RequestJoinResponse {})
        })
        .await
    }

    async fn dismiss(
        &self,
        request: Request<peer::DismissRequest>,
    ) -> Result<Response<peer::DismissResponse>, Status> {
        let to = request.into_inner().to.unwrap_or_default();
        self.for_cluster(&to.cluster_id)?;
        if self.member.id() != Some(MemberId(to.member_id)) {
            return Err(status::failure(&status::Failure::Membership(format!(
                "member id {} is not this member's",
                to.member_id
            ))));
        }
        let member = self.member.clone();
        self.on_api(async move {
            member.consensus.dismissed().await?;
            Ok(peer::DismissResponse {})
        })
        .await
    }

    async fn propose(
        &self,
        request: Request<peer::ProposeRequest>,
    ) -> Result<Response<peer::ProposeResponse>, Status> {
        let request = request.into_inner();
        self.for_cluster(&request.cluster_id)?;
        let proposal = stored::proposal_from(request.proposal)
            .map_err(|error| status::failure(&status::Failure::Internal(format!("proposal of a peer: {error}"))))?;
        let accepted = self.member.consensus.propose_here(proposal).await?;
        let outcome = Some(stored::outcome_to(&accepted.outcome));
        Ok(Response::new(peer::ProposeResponse { revision: accepted.revision, outcome }))
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        self.for_cluster(&request.into_inner().cluster_id)?;
        let index = self.member.consensus.read_index_here().await?;
        Ok(Response::new(peer::ReadIndexResponse { index }))
    }

    async fn report(
        &self,
        request: Request<peer::ReportRequest>,
    ) -> Result<Response<peer::ReportResponse>, Status> {
        let member = self.member.clone();
        self.on_api(async move { Ok(member.report(request.get_ref())) }).await
    }

    async fn await_revision(
        &self,
        request: Request<peer::AwaitRevisionRequest>,
    ) -> Result<Response<peer::AwaitRevisionResponse>, Status> {
        let request = request.into_inner();
        let timeout = request.timeout.and_then(|given| Duration::try_from(given).ok()).unwrap_or_default();
        let in_force = self.member.await_here(request.revision, timeout).await;
        Ok(Response::new(peer::AwaitRevisionResponse { in_force }))
    }
}
