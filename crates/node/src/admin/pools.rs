//! Pools and their backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_api::v1::pool_service_server::PoolService;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{BackendName, Kind, Outcome, PoolEntry, PoolName, Refusal, Violations};

use super::{Admin, Read, mismatch, page};
use crate::report::ALL_POOLS;

/// Most backends of one answer about health: as many as one pool can have.
const BACKENDS_AT_ONCE: usize = trestle_model::defaults::BACKENDS_PER_POOL_MAX;

fn missing(kind: Kind, name: impl ToString) -> Status {
    status::refusal(&Refusal::NotFound { kind, name: name.to_string() })
}

fn parse_pool(field: &str, name: &str) -> Result<PoolName, Status> {
    let mut v = Violations::new();
    let parsed = convert::parse_pool_name(field, name, &mut v);
    parsed.ok_or_else(|| status::invalid(&trestle_model::Invalid(v.into_vec())))
}

fn entry<'a>(read: &'a Read, name: &PoolName) -> Result<&'a Arc<PoolEntry>, Status> {
    read.state().pools.get(name).ok_or_else(|| missing(Kind::Pool, name))
}

fn pool_answer(outcome: Outcome) -> Result<Response<v1::Pool>, Status> {
    match outcome {
        Outcome::Pool(pool, backends) => Ok(Response::new(convert::pool(&pool, backends))),
        other => Err(mismatch(&other)),
    }
}

fn backend_answer(outcome: Outcome) -> Result<Response<v1::Backend>, Status> {
    match outcome {
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
        let (_, outcome) = self.write(convert::create_pool(request.get_ref())).await?;
        pool_answer(outcome)
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::Pool>, Status> {
        let request = request.get_ref();
        let name = parse_pool("name", &request.name)?;
        let read = self.read(request.consistency).await?;
        let entry = entry(&read, &name)?;
        Ok(read.answer(convert::pool(&entry.pool, entry.backends.len())))
    }

    async fn list_pools(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let request = request.get_ref();
        let read = self.read(request.consistency).await?;
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
        let (_, outcome) = self.write(convert::update_pool(request.get_ref())).await?;
        pool_answer(outcome)
    }

    async fn delete_pool(
        &self,
        request: Request<v1::DeletePoolRequest>,
    ) -> Result<Response<v1::DeletePoolResponse>, Status> {
        let (revision, _) = self.write(convert::delete_pool(request.get_ref())).await?;
        Ok(Response::new(v1::DeletePoolResponse { revision }))
    }

    async fn create_backend(
        &self,
        request: Request<v1::CreateBackendRequest>,
    ) -> Result<Response<v1::Backend>, Status> {
        let (_, outcome) = self.write(convert::create_backend(request.get_ref())).await?;
        backend_answer(outcome)
    }

    async fn get_backend(
        &self,
        request: Request<v1::GetBackendRequest>,
    ) -> Result<Response<v1::Backend>, Status> {
        let request = request.get_ref();
        let mut v = Violations::new();
        let parsed = convert::parse_backend_name("name", &request.name, &mut v);
        let (pool, name) = parsed.ok_or_else(|| status::invalid(&trestle_model::Invalid(v.into_vec())))?;
        let read = self.read(request.consistency).await?;
        let backend = entry(&read, &pool)?.backends.get(&name);
        let backend = backend.ok_or_else(|| missing(Kind::Backend, format!("{pool}/{name}")))?;
        Ok(read.answer(convert::backend(&pool, backend)))
    }

    async fn list_backends(
        &self,
        request: Request<v1::ListBackendsRequest>,
    ) -> Result<Response<v1::ListBackendsResponse>, Status> {
        let request = request.get_ref();
        let pool = parse_pool("parent", &request.parent)?;
        let read = self.read(request.consistency).await?;
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
        let (_, outcome) = self.write(convert::update_backend(request.get_ref())).await?;
        backend_answer(outcome)
    }

    async fn delete_backend(
        &self,
        request: Request<v1::DeleteBackendRequest>,
    ) -> Result<Response<v1::DeleteBackendResponse>, Status> {
        let (revision, _) = self.write(convert::delete_backend(request.get_ref())).await?;
        Ok(Response::new(v1::DeleteBackendResponse { revision }))
    }

    async fn get_pool_health(
        &self,
        request: Request<v1::GetPoolHealthRequest>,
    ) -> Result<Response<v1::PoolHealth>, Status> {
        let name = request.into_inner().name;
        let read = self.read_anyhow().await?;
        let pools: Vec<(&PoolName, &Arc<PoolEntry>)> = if name == ALL_POOLS {
            read.state().pools.iter().collect()
        } else {
            let name = parse_pool("name", &name)?;
            vec![read.state().pools.get_key_value(&name).ok_or_else(|| missing(Kind::Pool, &name))?]
        };
        let all: Vec<v1::Backend> = pools
            .into_iter()
            .flat_map(|(pool, entry)| entry.backends.values().map(|b| convert::backend(pool, b)))
            .collect();
        if all.len() > BACKENDS_AT_ONCE {
            return Err(Status::failed_precondition(format!(
                "{} backends are more than the {BACKENDS_AT_ONCE} that one answer may have: ask for one pool",
                all.len()
            )));
        }
        let mut views: BTreeMap<String, Vec<v1::MemberView>> =
            all.iter().map(|backend| (backend.name.clone(), Vec::new())).collect();
        let ask = peer::ReportRequest { pool: name, ..Default::default() };
        let (reports, unreachable_members) = self.member.ask_all(ask).await;
        for report in reports {
            for backend in report.backends {
                // A member may be a revision ahead or behind: only what exists now is shown.
                if let (Some(views), Some(view)) = (views.get_mut(&backend.name), backend.view) {
                    views.push(view);
                }
            }
        }
        let with_views = |backend: v1::Backend| v1::BackendHealth {
            views: views.remove(&backend.name).unwrap_or_default(),
            admin_state: backend.admin_state,
            name: backend.name,
            address: backend.address,
        };
        let backends = all.into_iter().map(with_views).collect();
        Ok(Response::new(v1::PoolHealth { backends, unreachable_members }))
    }
}
