//! Listeners.

mod addresses;
mod binds;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::convert::Write;
use trestle_api::v1::listener_service_server::ListenerService;
use trestle_api::{convert, status, v1};
use trestle_model::{Invalid, Kind, Listener, ListenerName, Outcome, Refusal, Violations};

use super::paging::page;
use super::{Admin, mismatch};
use crate::access::{Caller, Target, TargetKind};
use binds::Binds;

pub(super) fn parse_listener(name: &str) -> Result<ListenerName, Status> {
    let mut v = Violations::new();
    let parsed = convert::parse_listener_name("name", name, &mut v);
    parsed.ok_or_else(|| status::invalid(&trestle_model::Invalid(v.into_vec())))
}

fn answer(outcome: Outcome, warnings: Vec<String>) -> Result<Response<v1::Listener>, Status> {
    match outcome {
        Outcome::Listener(listener) => {
            Ok(Response::new(v1::Listener { warnings, ..convert::listener(&listener) }))
        }
        other => Err(mismatch(&other)),
    }
}

impl Admin {
    /// The addresses of a listener that is asked for, with those of virtual IPs in place of their names.
    async fn binds(&self, listener: Option<&v1::Listener>) -> Result<Binds, Status> {
        let asked = listener.map_or(&[][..], |listener| &listener.binds);
        if !binds::any_named(asked) {
            return Ok(Binds::resolve(asked, &Default::default()));
        }
        let read = self.read_newest().await?;
        Ok(Binds::resolve(asked, &read.state().vips))
    }

    /// Writes a listener whose addresses each member that is known can have.
    async fn write_listener(
        &self,
        caller: &Caller,
        parsed: Result<Write, Invalid>,
        binds: &Binds,
    ) -> Result<Response<v1::Listener>, Status> {
        let explained = |found| status::invalid(&binds.explain(found));
        let write = parsed.map_err(explained)?;
        let warnings = self.judge_addresses(&write.proposal.command).await?.map_err(explained)?;
        let (_, outcome) = self.write(caller, Ok(write)).await?;
        answer(outcome, warnings)
    }
}

#[tonic::async_trait]
impl ListenerService for Admin {
    async fn create_listener(
        &self,
        request: Request<v1::CreateListenerRequest>,
    ) -> Result<Response<v1::Listener>, Status> {
        let (caller, request) = Caller::take(request)?;
        let binds = self.binds(request.listener.as_ref()).await?;
        let mut resolved = request.clone();
        if let Some(listener) = &mut resolved.listener {
            listener.binds = binds.resolved();
        }
        let parsed = convert::create_listener(&resolved).map(|write| write.recognised_by(&request));
        let command = parsed.as_ref().ok().map(|write| write.proposal.command.clone());
        let wanted = request.if_absent.then(|| request.listener.clone().unwrap_or_default());
        match (Box::pin(self.write_listener(&caller, parsed, &binds)).await, command.zip(wanted)) {
            (Err(refused), Some((command, wanted))) => {
                Box::pin(self.existing(&command, &wanted, refused)).await
            }
            (answered, _) => answered,
        }
    }

    async fn get_listener(
        &self,
        request: Request<v1::GetListenerRequest>,
    ) -> Result<Response<v1::Listener>, Status> {
        let (caller, request) = Caller::take(request)?;
        let name = parse_listener(&request.name)?;
        let target = Target::named(TargetKind::Listener, &request.name);
        let read = self.read(&caller, &target, request.consistency).await?;
        let missing = || status::refusal(&Refusal::NotFound { kind: Kind::Listener, name: name.to_string() });
        let listener = read.state().listeners.get(&name).ok_or_else(missing)?;
        Ok(read.answer(convert::listener(listener)))
    }

    async fn list_listeners(
        &self,
        request: Request<v1::ListListenersRequest>,
    ) -> Result<Response<v1::ListListenersResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let target = Target::all(TargetKind::Listener);
        let read = self.read(&caller, &target, request.consistency).await?;
        let render = |listener: &Arc<Listener>| convert::listener(listener);
        let all = &read.state().listeners;
        let page = page(all, request.page_size, &request.page_token, ListenerName::parse, render)?;
        let answer = v1::ListListenersResponse {
            listeners: page.items,
            next_page_token: page.next,
            read: Some(read.info),
        };
        Ok(Response::new(answer))
    }

    async fn update_listener(
        &self,
        request: Request<v1::UpdateListenerRequest>,
    ) -> Result<Response<v1::Listener>, Status> {
        let (caller, request) = Caller::take(request)?;
        let binds = self.binds(request.listener.as_ref()).await?;
        let mut resolved = request.clone();
        if let Some(listener) = &mut resolved.listener {
            listener.binds = binds.resolved();
        }
        let parsed = convert::update_listener(&resolved).map(|write| write.recognised_by(&request));
        self.write_listener(&caller, parsed, &binds).await
    }

    async fn delete_listener(
        &self,
        request: Request<v1::DeleteListenerRequest>,
    ) -> Result<Response<v1::DeleteListenerResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let (revision, _) = self.write(&caller, convert::delete_listener(&request)).await?;
        Ok(Response::new(v1::DeleteListenerResponse { revision }))
    }

    async fn get_listener_health(
        &self,
        request: Request<v1::GetListenerHealthRequest>,
    ) -> Result<Response<v1::ListenerHealth>, Status> {
        self.listener_health(request.get_ref()).await.map(Response::new)
    }
}
