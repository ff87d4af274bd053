//! Virtual IPs: their settings, what members' kernels have of them, and who held them.

use tonic::{Request, Response, Status};
use trestle_api::v1::vip_service_server::VipService;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{Invalid, Kind, Outcome, Refusal, Violations, VipName};

use super::leader::resource_name;
use super::paging::{PageBounds, abridge, shorten_text};
use super::{Accepted, Admin, mismatch};
use crate::access::{Caller, Target, TargetKind};

fn parse_vip(name: &str) -> Result<VipName, Status> {
    let mut v = Violations::new();
    let parsed = convert::parse_vip_name("name", name, &mut v);
    parsed.ok_or_else(|| status::invalid(&Invalid(v.into_vec())))
}

fn answer(accepted: Accepted) -> Result<Response<v1::Vip>, Status> {
    match accepted.outcome {
        Outcome::Vip(vip) => Ok(Response::new(convert::vip(&vip))),
        other => Err(mismatch(&other)),
    }
}

fn missing(name: &VipName) -> Status {
    status::refusal(&Refusal::NotFound { kind: Kind::Vip, name: name.to_string() })
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
    async fn create_vip(&self, request: Request<v1::CreateVipRequest>) -> Result<Response<v1::Vip>, Status> {
        let (caller, request) = Caller::take(request)?;
        let wanted = request.if_absent.then(|| request.vip.clone().unwrap_or_default());
        self.create(&caller, convert::create_vip(&request), answer, wanted).await
    }

    async fn get_vip(&self, request: Request<v1::GetVipRequest>) -> Result<Response<v1::Vip>, Status> {
        let (caller, request) = Caller::take(request)?;
        let name = parse_vip(&request.name)?;
        let target = Target::named(TargetKind::Vip, &request.name);
        let read = self.read(&caller, &target, request.consistency).await?;
        let vip = read.state().vips.get(&name).ok_or_else(|| missing(&name))?;
        Ok(read.answer(convert::vip(vip)))
    }

    async fn list_vips(
        &self,
        request: Request<v1::ListVipsRequest>,
    ) -> Result<Response<v1::ListVipsResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let read = self.read(&caller, &Target::all(TargetKind::Vip), request.consistency).await?;
        let vips = read.state().vips.values().map(|vip| convert::vip(vip)).collect();
        Ok(Response::new(v1::ListVipsResponse { vips, read: Some(read.info) }))
    }

    async fn update_vip(&self, request: Request<v1::UpdateVipRequest>) -> Result<Response<v1::Vip>, Status> {
        let (caller, request) = Caller::take(request)?;
        answer(self.write(&caller, convert::update_vip(&request)).await?)
    }

    async fn delete_vip(
        &self,
        request: Request<v1::DeleteVipRequest>,
    ) -> Result<Response<v1::DeleteVipResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let Accepted { revision, .. } = self.write(&caller, convert::delete_vip(&request)).await?;
        Ok(Response::new(v1::DeleteVipResponse { revision }))
    }

    async fn get_vip_status(
        &self,
        request: Request<v1::GetVipStatusRequest>,
    ) -> Result<Response<v1::VipStatus>, Status> {
        self.require_membership()?;
        let asked = request.get_ref().name.as_str();
        if !asked.is_empty() {
            let name = parse_vip(asked)?;
            self.read_best_effort().await?.state().vips.get(&name).ok_or_else(|| missing(&name))?;
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

    async fn move_vips(
        &self,
        request: Request<v1::MoveVipsRequest>,
    ) -> Result<Response<v1::MoveVipsResponse>, Status> {
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
    ) -> Result<Response<v1::ListVipEventsResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let read = self.read(&caller, &Target::all(TargetKind::Vip), request.consistency).await?;
        let events = read.state().vip_events.iter().map(|event| convert::vip_event(event)).collect();
        Ok(Response::new(v1::ListVipEventsResponse { events, read: Some(read.info) }))
    }
}
