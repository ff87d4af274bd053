//! Pools and their backends.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::resource::ListCall;
use trestle_api::v1::pool_service_server::PoolService;
use trestle_api::{convert, status, v1};
use trestle_model::{Backend, BackendName, ClusterState, PoolEntry, PoolName};

use super::Admin;
use super::paging::{Page, page};
use super::resources::{Answer, ServedResource, name};
use crate::access::{Target, TargetKind};

impl ServedResource for v1::Pool {
    const TARGET: TargetKind = TargetKind::Pool;

    fn page(state: &ClusterState, call: &ListCall) -> Result<Page<Self>, Status> {
        let render = |entry: &Arc<PoolEntry>| convert::pool(&entry.pool, entry.backends.len());
        page(&state.pools, call.page_size, &call.page_token, PoolName::parse, render)
    }
}

impl ServedResource for v1::Backend {
    const TARGET: TargetKind = TargetKind::Backend;

    fn listed(call: &ListCall) -> Result<Target, Status> {
        name::<v1::Pool>("parent", &call.parent)?;
        Ok(Target::named(TargetKind::Pool, &call.parent))
    }

    fn page(state: &ClusterState, call: &ListCall) -> Result<Page<Self>, Status> {
        let pool = name::<v1::Pool>("parent", &call.parent)?;
        let missing = || status::refusal(&state.not_there(&pool.clone().into()));
        let backends = &state.pools.get(&pool).ok_or_else(missing)?.backends;
        let render = |backend: &Arc<Backend>| convert::backend(&pool, backend);
        page(backends, call.page_size, &call.page_token, BackendName::parse, render)
    }
}

#[tonic::async_trait]
impl PoolService for Admin {
    async fn create_pool(&self, request: Request<v1::CreatePoolRequest>) -> Answer<v1::Pool> {
        self.create(request).await
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Answer<v1::Pool> {
        self.get(request).await
    }

    async fn list_pools(&self, request: Request<v1::ListPoolsRequest>) -> Answer<v1::ListPoolsResponse> {
        self.list::<v1::Pool>(request).await
    }

    async fn update_pool(&self, request: Request<v1::UpdatePoolRequest>) -> Answer<v1::Pool> {
        self.update(request).await
    }

    async fn delete_pool(&self, request: Request<v1::DeletePoolRequest>) -> Answer<v1::DeletePoolResponse> {
        self.delete::<v1::Pool>(request).await
    }

    async fn create_backend(&self, request: Request<v1::CreateBackendRequest>) -> Answer<v1::Backend> {
        self.create(request).await
    }

    async fn get_backend(&self, request: Request<v1::GetBackendRequest>) -> Answer<v1::Backend> {
        self.get(request).await
    }

    async fn list_backends(
        &self,
        request: Request<v1::ListBackendsRequest>,
    ) -> Answer<v1::ListBackendsResponse> {
        self.list::<v1::Backend>(request).await
    }

    async fn update_backend(&self, request: Request<v1::UpdateBackendRequest>) -> Answer<v1::Backend> {
        self.update(request).await
    }

    async fn delete_backend(
        &self,
        request: Request<v1::DeleteBackendRequest>,
    ) -> Answer<v1::DeleteBackendResponse> {
        self.delete::<v1::Backend>(request).await
    }

    async fn get_pool_health(&self, request: Request<v1::GetPoolHealthRequest>) -> Answer<v1::PoolHealth> {
        self.pool_health(request.get_ref()).await.map(Response::new)
    }
}
