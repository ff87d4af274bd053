//! Virtual IPs, members and connections of the member that says what a test tells it to.

use tonic::{Request, Response, Status};
use trestle_api::v1;
use trestle_api::v1::connection_service_server::ConnectionService;
use trestle_api::v1::member_service_server::MemberService;
use trestle_api::v1::vip_service_server::VipService;

use super::{Answer, Fake, Stream, not_scripted};
use crate::tests::sample::{sample_member, sample_vip};

impl Fake {
    /// How fresh a read is, or the refusal of one that needs a leader.
    fn fresh(&self, consistency: v1::Consistency) -> Result<v1::ReadInfo, Status> {
        let possibly_stale = consistency == v1::Consistency::Local;
        if self.0.lock().unwrap().leaderless && !possibly_stale {
            return Err(Status::unavailable("there is no leader now"));
        }
        Ok(v1::ReadInfo { revision: 12, possibly_stale, member: "members/m1".to_owned() })
    }

    fn member(resource: &str, draining: bool) -> v1::Member {
        let name = resource.strip_prefix("members/").unwrap();
        v1::Member { draining, revision: 16, ..sample_member(name, 1) }
    }
}

#[tonic::async_trait]
impl VipService for Fake {
    async fn create_vip(&self, request: Request<v1::CreateVipRequest>) -> Answer<v1::Vip> {
        let request = request.into_inner();
        let vip = sample_vip(&request.vip_id);
        self.0.lock().unwrap().vips_created.push(request);
        Ok(Response::new(vip))
    }

    async fn get_vip(&self, request: Request<v1::GetVipRequest>) -> Answer<v1::Vip> {
        self.fresh(request.get_ref().consistency())?;
        let script = self.0.lock().unwrap();
        let vip = script.vips.iter().find(|vip| vip.name == request.get_ref().name);
        vip.cloned().map(Response::new).ok_or_else(|| Status::not_found("vip does not exist"))
    }

    async fn list_vips(&self, request: Request<v1::ListVipsRequest>) -> Answer<v1::ListVipsResponse> {
        let read = Some(self.fresh(request.get_ref().consistency())?);
        let vips = self.0.lock().unwrap().vips.clone();
        Ok(Response::new(v1::ListVipsResponse { vips, read, ..Default::default() }))
    }

    async fn update_vip(&self, request: Request<v1::UpdateVipRequest>) -> Answer<v1::Vip> {
        self.0.lock().unwrap().vips_updated.push(request.into_inner());
        Ok(Response::new(sample_vip("api")))
    }

    async fn delete_vip(&self, request: Request<v1::DeleteVipRequest>) -> Answer<v1::DeleteVipResponse> {
        self.0.lock().unwrap().vips_deleted.push(request.into_inner());
        Ok(Response::new(v1::DeleteVipResponse { revision: 17 }))
    }

    async fn get_vip_status(&self, request: Request<v1::GetVipStatusRequest>) -> Answer<v1::VipStatus> {
        let mut status = self.0.lock().unwrap().held.clone();
        let name = &request.get_ref().name;
        status.views.retain(|view| name.is_empty() || view.vip == *name);
        Ok(Response::new(status))
    }

    async fn move_vips(&self, request: Request<v1::MoveVipsRequest>) -> Answer<v1::MoveVipsResponse> {
        self.0.lock().unwrap().moved.push(request.into_inner());
        Ok(Response::new(v1::MoveVipsResponse {
            holder: "members/m2".to_owned(),
            term: 4,
            former_holder: "members/m1".to_owned(),
            connections_left: 2,
        }))
    }

    async fn list_vip_events(
        &self,
        request: Request<v1::ListVipEventsRequest>,
    ) -> Answer<v1::ListVipEventsResponse> {
        let read = Some(self.fresh(request.get_ref().consistency())?);
        Ok(Response::new(v1::ListVipEventsResponse { events: self.0.lock().unwrap().events.clone(), read }))
    }
}

#[tonic::async_trait]
impl MemberService for Fake {
    type AddMemberStream = Stream<v1::MemberProgress>;
    type PromoteMemberStream = Stream<v1::MemberProgress>;

    async fn drain_member(&self, request: Request<v1::DrainMemberRequest>) -> Answer<v1::Member> {
        let request = request.into_inner();
        let member = Self::member(&request.name, true);
        self.0.lock().unwrap().drained.push((request.name, request.request_id));
        Ok(Response::new(member))
    }

    async fn update_member(&self, _: Request<v1::UpdateMemberRequest>) -> Answer<v1::Member> {
        Err(Status::unimplemented("not part of these tests"))
    }
    async fn enable_member(&self, request: Request<v1::EnableMemberRequest>) -> Answer<v1::Member> {
        Ok(Response::new(Self::member(&request.get_ref().name, false)))
    }

    async fn enroll_member(&self, _: Request<v1::EnrollMemberRequest>) -> Answer<v1::Member> {
        not_scripted()
    }

    async fn request_member_certificate(
        &self,
        _: Request<v1::RequestMemberCertificateRequest>,
    ) -> Answer<v1::RequestMemberCertificateResponse> {
        not_scripted()
    }

    async fn install_member_certificate(
        &self,
        _: Request<v1::InstallMemberCertificateRequest>,
    ) -> Answer<v1::InstallMemberCertificateResponse> {
        not_scripted()
    }

    async fn get_member(&self, _: Request<v1::GetMemberRequest>) -> Answer<v1::Member> {
        not_scripted()
    }

    async fn list_members(&self, _: Request<v1::ListMembersRequest>) -> Answer<v1::ListMembersResponse> {
        not_scripted()
    }

    async fn add_member(&self, _: Request<v1::AddMemberRequest>) -> Answer<Self::AddMemberStream> {
        not_scripted()
    }

    async fn promote_member(
        &self,
        _: Request<v1::PromoteMemberRequest>,
    ) -> Answer<Self::PromoteMemberStream> {
        not_scripted()
    }

    async fn remove_member(&self, _: Request<v1::RemoveMemberRequest>) -> Answer<v1::RemoveMemberResponse> {
        not_scripted()
    }
}

#[tonic::async_trait]
impl ConnectionService for Fake {
    async fn list_connections(
        &self,
        _: Request<v1::ListConnectionsRequest>,
    ) -> Answer<v1::ListConnectionsResponse> {
        let total_size = self.0.lock().unwrap().connections;
        Ok(Response::new(v1::ListConnectionsResponse { total_size, ..Default::default() }))
    }

    async fn close_connections(
        &self,
        _: Request<v1::CloseConnectionsRequest>,
    ) -> Answer<v1::CloseConnectionsResponse> {
        not_scripted()
    }

    type CloseConnectionsGraduallyStream = Stream<v1::CloseConnectionsGraduallyResponse>;

    async fn close_connections_gradually(
        &self,
        _: Request<v1::CloseConnectionsGraduallyRequest>,
    ) -> Answer<Self::CloseConnectionsGraduallyStream> {
        not_scripted()
    }
}
