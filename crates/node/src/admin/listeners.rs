//! Listeners.

mod addresses;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::v1::listener_service_server::ListenerService;
use trestle_api::{convert, status, v1};
use trestle_model::{Kind, Listener, ListenerName, Outcome, Refusal, Violations};

use super::paging::page;
use super::{Accepted, Admin, mismatch};
use crate::access::{Caller, Target, TargetKind};

pub(super) fn parse_listener(name: &str) -> Result<ListenerName, Status> {
    let mut v = Violations::new();
    let parsed = convert::parse_listener_name("name", name, &mut v);
    parsed.ok_or_else(|| status::invalid(&trestle_model::Invalid(v.into_vec())))
}

fn answer(accepted: Accepted) -> Result<Response<v1::Listener>, Status> {
    match accepted.outcome {
        Outcome::Listener(listener) => {
            let warnings = accepted.warnings;
            Ok(Response::new(v1::Listener { warnings, ..convert::listener(&listener) }))
        }
        other => Err(mismatch(&other)),
    }
}

#[tonic::async_trait]
impl ListenerService for Admin {
    async fn create_listener(
        &self,
        request: Request<v1::CreateListenerRequest>,
    ) -> Result<Response<v1::Listener>, Status> {
        let (caller, request) = Caller::take(request)?;
        let wanted = request.if_absent.then(|| request.listener.clone().unwrap_or_default());
        self.create(&caller, convert::create_listener(&request), answer, wanted).await
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
        answer(self.write(&caller, convert::update_listener(&request)).await?)
    }

    async fn delete_listener(
        &self,
        request: Request<v1::DeleteListenerRequest>,
    ) -> Result<Response<v1::DeleteListenerResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let Accepted { revision, .. } = self.write(&caller, convert::delete_listener(&request)).await?;
        Ok(Response::new(v1::DeleteListenerResponse { revision }))
    }

    async fn get_listener_health(
        &self,
        request: Request<v1::GetListenerHealthRequest>,
    ) -> Result<Response<v1::ListenerHealth>, Status> {
        self.listener_health(request.get_ref()).await.map(Response::new)
    }
}
