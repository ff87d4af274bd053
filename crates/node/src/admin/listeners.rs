//! Listeners.

mod addresses;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::resource::ListCall;
use trestle_api::v1::listener_service_server::ListenerService;
use trestle_api::{convert, v1};
use trestle_model::{ClusterState, Listener, ListenerName};

use super::Admin;
use super::paging::{Page, page};
use super::resources::{Answer, ServedResource};
use crate::access::TargetKind;

impl ServedResource for v1::Listener {
    const TARGET: TargetKind = TargetKind::Listener;

    fn page(state: &ClusterState, call: &ListCall) -> Result<Page<Self>, Status> {
        let render = |listener: &Arc<Listener>| convert::listener(listener);
        page(&state.listeners, call.page_size, &call.page_token, ListenerName::parse, render)
    }

    fn warn(&mut self, warnings: Vec<String>) {
        self.warnings = warnings;
    }
}

#[tonic::async_trait]
impl ListenerService for Admin {
    async fn create_listener(&self, request: Request<v1::CreateListenerRequest>) -> Answer<v1::Listener> {
        self.create(request).await
    }

    async fn get_listener(&self, request: Request<v1::GetListenerRequest>) -> Answer<v1::Listener> {
        self.get(request).await
    }

    async fn list_listeners(
        &self,
        request: Request<v1::ListListenersRequest>,
    ) -> Answer<v1::ListListenersResponse> {
        self.list::<v1::Listener>(request).await
    }

    async fn update_listener(&self, request: Request<v1::UpdateListenerRequest>) -> Answer<v1::Listener> {
        self.update(request).await
    }

    async fn delete_listener(
        &self,
        request: Request<v1::DeleteListenerRequest>,
    ) -> Answer<v1::DeleteListenerResponse> {
        self.delete::<v1::Listener>(request).await
    }

    async fn get_listener_health(
        &self,
        request: Request<v1::GetListenerHealthRequest>,
    ) -> Answer<v1::ListenerHealth> {
        self.listener_health(request.get_ref()).await.map(Response::new)
    }
}
