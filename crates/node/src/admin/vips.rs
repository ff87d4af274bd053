//! Virtual IPs: their settings, what members' kernels have of them, and who held them.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::resource::ListCall;
use trestle_api::v1::vip_service_server::VipService;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{ClusterState, Vip, VipName};

use super::Admin;
use super::leader::resource_name;
use super::paging::{Page, PageBounds, abridge, page, shorten_text};
use super::resources::{Answer, ServedResource, name};
use crate::access::{Caller, Target, TargetKind};

impl ServedResource for v1::Vip {
    const TARGET: TargetKind = TargetKind::Vip;

    fn page(state: &ClusterState, call: &ListCall) -> Result<Page<Self>, Status> {
        let render = |vip: &Arc<Vip>| convert::vip(vip);
        page(&state.vips, call.page_size, &call.page_token, VipName::parse, render)
    }
}

/// Most of what is said in words of a virtual IP on one member: 15 members have 64 of them.
const TOLD: PageBounds = PageBounds { items: 16, bytes: 2048 };

/// Longest text about what was found of a fence.
const CHANGE_MAX: usize = 512;

pub(super) fn shorten(view: &mut v1::VipView) {
    abridge(&mut view.problems, TOLD, "problems");
    // It may name all addresses that a set had, and all that it should have had.
    shorten_text(&mut view.fence_change, CHANGE_MAX);
}

#[tonic::async_trait]
impl VipService for Admin {
    async fn create_vip(&self, request: Request<v1::CreateVipRequest>) -> Answer<v1::Vip> {
        self.create(request).await
    }

    async fn get_vip(&self, request: Request<v1::GetVipRequest>) -> Answer<v1::Vip> {
        self.get(request).await
    }

    async fn list_vips(&self, request: Request<v1::ListVipsRequest>) -> Answer<v1::ListVipsResponse> {
        self.list::<v1::Vip>(request).await
    }

    async fn update_vip(&self, request: Request<v1::UpdateVipRequest>) -> Answer<v1::Vip> {
        self.update(request).await
    }

    async fn delete_vip(&self, request: Request<v1::DeleteVipRequest>) -> Answer<v1::DeleteVipResponse> {
        self.delete::<v1::Vip>(request).await
    }

    async fn get_vip_status(&self, request: Request<v1::GetVipStatusRequest>) -> Answer<v1::VipStatus> {
        self.require_membership()?;
        let asked = request.get_ref().name.as_str();
        if !asked.is_empty() {
            let id = name::<v1::Vip>("name", asked)?.into();
            let read = self.read_best_effort().await?;
            let missing = || status::refusal(&read.state().not_there(&id));
            read.state().outcome(&id).ok_or_else(missing)?;
        }
        let ask = peer::ReportRequest { vips: true, ..Default::default() };
        let (reports, unreachable_members) = self.reports.ask_all(ask).await;
        let views = reports.into_iter().flat_map(|(member, report)| {
            report.vips.into_iter().map(move |vip| convert::vip_view(&member, vip))
        });
        let mut views: Vec<_> = views.filter(|view| asked.is_empty() || view.vip == asked).collect();
        views.iter_mut().for_each(shorten);
        // Members answer in the order of their ids, which a stable sort keeps.
        views.sort_by(|one, other| one.vip.cmp(&other.vip));
        Ok(Response::new(v1::VipStatus { views, unreachable_members }))
    }

    async fn move_vips(&self, request: Request<v1::MoveVipsRequest>) -> Answer<v1::MoveVipsResponse> {
        let (caller, request) = Caller::take(request)?;
        let moved = self.transfer_leadership_to(&caller, &request.to).await?;
        Ok(Response::new(v1::MoveVipsResponse {
            holder: resource_name(&moved.leader),
            term: moved.term,
            former_holder: resource_name(&moved.former),
            connections_left: moved.connections_left,
        }))
    }

    async fn list_vip_events(
        &self,
        request: Request<v1::ListVipEventsRequest>,
    ) -> Answer<v1::ListVipEventsResponse> {
        let (caller, request) = Caller::take(request)?;
        let read = self.read(&caller, &Target::all(TargetKind::Vip), request.consistency).await?;
        let events = read.state().vip_events.iter().map(|event| convert::vip_event(event)).collect();
        Ok(Response::new(v1::ListVipEventsResponse { events, read: Some(read.info) }))
    }
}
