//! What simulated members answer one another beside Raft.

use tonic::{Request, Response, Status};
use trestle_api::peer as proto;
use trestle_api::peer::peer_service_server::PeerService;

use trestle_consensus::Consensus;

pub(crate) struct SimulatedPeer(pub(crate) Consensus);

type PeerAnswer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PeerService for SimulatedPeer {
    async fn list_connections(
        &self,
        _: Request<proto::ListConnectionsRequest>,
    ) -> PeerAnswer<proto::ListConnectionsResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn close_connections(
        &self,
        _: Request<proto::CloseConnectionsRequest>,
    ) -> PeerAnswer<proto::CloseConnectionsResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn issue_certificate(
        &self,
        _: Request<proto::IssueCertificateRequest>,
    ) -> PeerAnswer<proto::IssueCertificateResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn join(&self, _: Request<proto::JoinRequest>) -> PeerAnswer<proto::JoinResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn take_authority_key(
        &self,
        _: Request<proto::TakeAuthorityKeyRequest>,
    ) -> PeerAnswer<proto::TakeAuthorityKeyResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn describe_founding(
        &self,
        _: Request<proto::DescribeFoundingRequest>,
    ) -> PeerAnswer<proto::DescribeFoundingResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn fetch_authority_key(
        &self,
        _: Request<proto::FetchAuthorityKeyRequest>,
    ) -> PeerAnswer<proto::FetchAuthorityKeyResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn await_events(
        &self,
        _: Request<proto::AwaitEventsRequest>,
    ) -> PeerAnswer<proto::AwaitEventsResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }

    async fn describe(&self, _: Request<proto::DescribeRequest>) -> PeerAnswer<proto::DescribeResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }
    async fn register_start(
        &self,
        _: Request<proto::RegisterStartRequest>,
    ) -> PeerAnswer<proto::RegisterStartResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }
    async fn adopt(&self, request: Request<proto::AdoptRequest>) -> PeerAnswer<proto::AdoptResponse> {
        self.0.serve_adopt(request.into_inner()).await.map(Response::new)
    }
    async fn request_join(
        &self,
        _: Request<proto::RequestJoinRequest>,
    ) -> PeerAnswer<proto::RequestJoinResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }
    async fn notify_removed(
        &self,
        request: Request<proto::NotifyRemovedRequest>,
    ) -> PeerAnswer<proto::NotifyRemovedResponse> {
        self.0.serve_notify_removed(request.into_inner()).await.map(Response::new)
    }
    async fn propose(&self, request: Request<proto::ProposeRequest>) -> PeerAnswer<proto::ProposeResponse> {
        self.0.serve_propose(request.into_inner(), |_| Ok(())).await.map(Response::new)
    }
    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> PeerAnswer<proto::ReadIndexResponse> {
        self.0.serve_read_index(request.into_inner()).await.map(Response::new)
    }
    type ForwardStream = futures_util::stream::Empty<Result<proto::ForwardResponse, Status>>;
    async fn forward(&self, _: Request<proto::ForwardRequest>) -> PeerAnswer<Self::ForwardStream> {
        Err(Status::unimplemented("not part of the simulation"))
    }
    async fn report(&self, _: Request<proto::ReportRequest>) -> PeerAnswer<proto::ReportResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }
    async fn await_revision(
        &self,
        _: Request<proto::AwaitRevisionRequest>,
    ) -> PeerAnswer<proto::AwaitRevisionResponse> {
        Err(Status::unimplemented("not part of the simulation"))
    }
}
