//! Pools and their backends.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::v1::pool_service_server::PoolService;
use trestle_api::{convert, status, v1};
use trestle_model::{BackendName, Kind, Outcome, PoolEntry, PoolName, Refusal, Violations};

use super::paging::page;
use super::{Accepted, Admin, ReadView, mismatch};
use crate::access::{Caller, Target, TargetKind};

pub(super) fn missing(kind: Kind, name: impl ToString) -> Status {
    status::refusal(&Refusal::NotFound { kind, name: name.to_string() })
}

pub(super) fn parse_pool(field: &str, name: &str) -> Result<PoolName, Status> {
    let mut v = Violations::new();
    let parsed = convert::parse_pool_name(field, name, &mut v);
    parsed.ok_or_else(|| status::invalid(&trestle_model::Invalid(v.into_vec())))
}

fn entry<'a>(read: &'a ReadView, name: &PoolName) -> Result<&'a Arc<PoolEntry>, Status> {
    read.state().pools.get(name).ok_or_else(|| missing(Kind::Pool, name))
}

fn pool_answer(accepted: Accepted) -> Result<Response<v1::Pool>, Status> {
    match accepted.outcome {
        Outcome::Pool(pool, backends) => Ok(Response::new(convert::pool(&pool, backends))),
        other => Err(mismatch(&other)),
    }
}

fn backend_answer(accepted: Accepted) -> Result<Response<v1::Backend>, Status> {
    match accepted.outcome {
        Outcome::Backend(pool, backend) => Ok(Response::new(convert::backend(&pool, &backend))),
        other => Err(mismatch(&other)),
    }
}

#[tonic::async_trait]
impl PoolService for Admin {
    async fn create_pool(
        &self,
        request: Request<v1::CreatePoolRequest>,
    ) -> Result<Response<v1::Pool>, Status> {
        let (caller, request) = Caller::take(request)?;
        let wanted = request.if_absent.then(|| request.pool.clone().unwrap_or_default());
        self.create(&caller, convert::create_pool(&request), pool_answer, wanted).await
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::Pool>, Status> {
        let (caller, request) = Caller::take(request)?;
        let name = parse_pool("name", &request.name)?;
        let target = Target::named(TargetKind::Pool, &request.name);
        let read = self.read(&caller, &target, request.consistency).await?;
        let entry = entry(&read, &name)?;
        Ok(read.answer(convert::pool(&entry.pool, entry.backends.len())))
    }

    async fn list_pools(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let target = Target::all(TargetKind::Pool);
        let read = self.read(&caller, &target, request.consistency).await?;
        let render = |entry: &Arc<PoolEntry>| convert::pool(&entry.pool, entry.backends.len());
        let page =
            page(&read.state().pools, request.page_size, &request.page_token, PoolName::parse, render)?;
        let answer =
            v1::ListPoolsResponse { pools: page.items, next_page_token: page.next, read: Some(read.info) };
        Ok(Response::new(answer))
    }

    async fn update_pool(
        &self,
        request: Request<v1::UpdatePoolRequest>,
    ) -> Result<Response<v1::Pool>, Status> {
        let (caller, request) = Caller::take(request)?;
        pool_answer(self.write(&caller, convert::update_pool(&request)).await?)
    }

    async fn delete_pool(
        &self,
        request: Request<v1::DeletePoolRequest>,
    ) -> Result<Response<v1::DeletePoolResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let Accepted { revision, .. } = self.write(&caller, convert::delete_pool(&request)).await?;
        Ok(Response::new(v1::DeletePoolResponse { revision }))
    }

    async fn create_backend(
        &self,
        request: Request<v1::CreateBackendRequest>,
    ) -> Result<Response<v1::Backend>, Status> {
        let (caller, request) = Caller::take(request)?;
        let wanted = request.if_absent.then(|| request.backend.clone().unwrap_or_default());
        self.create(&caller, convert::create_backend(&request), backend_answer, wanted).await
    }

    async fn get_backend(
        &self,
        request: Request<v1::GetBackendRequest>,
    ) -> Result<Response<v1::Backend>, Status> {
        let (caller, request) = Caller::take(request)?;
        let mut v = Violations::new();
        let parsed = convert::parse_backend_name("name", &request.name, &mut v);
        let (pool, name) = parsed.ok_or_else(|| status::invalid(&trestle_model::Invalid(v.into_vec())))?;
        let target = Target::named(TargetKind::Backend, &request.name);
        let read = self.read(&caller, &target, request.consistency).await?;
        let backend = entry(&read, &pool)?.backends.get(&name);
        let backend = backend.ok_or_else(|| missing(Kind::Backend, format!("{pool}/{name}")))?;
        Ok(read.answer(convert::backend(&pool, backend)))
    }

    async fn list_backends(
        &self,
        request: Request<v1::ListBackendsRequest>,
    ) -> Result<Response<v1::ListBackendsResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let pool = parse_pool("parent", &request.parent)?;
        let target = Target::named(TargetKind::Pool, &request.parent);
        let read = self.read(&caller, &target, request.consistency).await?;
        let backends = &entry(&read, &pool)?.backends;
        let render = |backend: &Arc<trestle_model::Backend>| convert::backend(&pool, backend);
        let page = page(backends, request.page_size, &request.page_token, BackendName::parse, render)?;
        let answer = v1::ListBackendsResponse {
            backends: page.items,
            next_page_token: page.next,
            read: Some(read.info),
        };
        Ok(Response::new(answer))
    }

    async fn update_backend(
        &self,
        request: Request<v1::UpdateBackendRequest>,
    ) -> Result<Response<v1::Backend>, Status> {
        let (caller, request) = Caller::take(request)?;
        backend_answer(self.write(&caller, convert::update_backend(&request)).await?)
    }

    async fn delete_backend(
        &self,
        request: Request<v1::DeleteBackendRequest>,
    ) -> Result<Response<v1::DeleteBackendResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let Accepted { revision, .. } = self.write(&caller, convert::delete_backend(&request)).await?;
        Ok(Response::new(v1::DeleteBackendResponse { revision }))
    }

    async fn get_pool_health(
        &self,
        request: Request<v1::GetPoolHealthRequest>,
    ) -> Result<Response<v1::PoolHealth>, Status> {
        self.pool_health(request.get_ref()).await.map(Response::new)
    }
}
