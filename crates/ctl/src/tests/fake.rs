//! A member that says what a test tells it to, over a real connection.

mod happening;
mod ownership;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio_stream::Iter;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use trestle_api::v1;
use trestle_api::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use trestle_api::v1::connection_service_server::ConnectionServiceServer;
use trestle_api::v1::event_service_server::EventServiceServer;
use trestle_api::v1::listener_service_server::{ListenerService, ListenerServiceServer};
use trestle_api::v1::member_service_server::MemberServiceServer;
use trestle_api::v1::pool_service_server::{PoolService, PoolServiceServer};
use trestle_api::v1::vip_service_server::VipServiceServer;

use super::sample::{sample_backend, sample_listener, sample_pool, sample_status};

/// What a member answers, and what it was asked.
#[derive(Default)]
pub(crate) struct Script {
    /// Answered to writes, one each, before they succeed.
    pub(crate) refusals: VecDeque<Status>,
    /// Pools in the order of their names, listed two to a page.
    pub(crate) pools: Vec<v1::Pool>,
    /// What members see; NOT_FOUND when there is nothing.
    pub(crate) health: Option<v1::PoolHealth>,
    /// Where listeners are bound, and what goes through them; each answer after the first counts 10 connections more.
    pub(crate) bound: v1::ListenerHealth,
    /// Creations of listeners that arrived.
    pub(crate) listened: Vec<v1::CreateListenerRequest>,
    /// Changes of listeners that arrived.
    pub(crate) relistened: Vec<v1::UpdateListenerRequest>,
    /// Messages of WaitForRevision.
    pub(crate) waits: Vec<v1::WaitForRevisionResponse>,
    /// The cluster's status.
    pub(crate) status: Option<v1::ClusterStatus>,
    /// Streams of WatchCluster, one for each call; OUT_OF_RANGE when there are no more.
    pub(crate) watches: VecDeque<Vec<Result<v1::WatchClusterResponse, Status>>>,
    /// Messages of ListEvents.
    pub(crate) happened: Vec<v1::ListEventsResponse>,
    /// Streams of WatchEvents, one for each call; RESOURCE_EXHAUSTED when there are no more.
    pub(crate) happening: VecDeque<Vec<Result<v1::WatchEventsResponse, Status>>>,
    /// What was asked for with each.
    pub(crate) followed: Vec<v1::WatchEventsRequest>,
    /// Creations that arrived.
    pub(crate) created: Vec<v1::CreatePoolRequest>,
    /// Changes of pools that arrived.
    pub(crate) changed: Vec<v1::UpdatePoolRequest>,
    /// Changes of backends that arrived.
    pub(crate) updated: Vec<v1::UpdateBackendRequest>,
    /// Watches that arrived.
    pub(crate) watched: Vec<v1::WatchClusterRequest>,
    /// Virtual IPs in the order of their names.
    pub(crate) vips: Vec<v1::Vip>,
    /// There is no leader: only local reads of virtual IPs are answered.
    pub(crate) leaderless: bool,
    /// What members' kernels have of virtual IPs.
    pub(crate) held: v1::VipStatus,
    /// Who held them.
    pub(crate) events: Vec<v1::VipEvent>,
    /// Creations of virtual IPs that arrived.
    pub(crate) vips_created: Vec<v1::CreateVipRequest>,
    /// Changes of virtual IPs that arrived.
    pub(crate) vips_updated: Vec<v1::UpdateVipRequest>,
    /// Deletions of virtual IPs that arrived.
    pub(crate) vips_deleted: Vec<v1::DeleteVipRequest>,
    /// Moves that arrived.
    pub(crate) moved: Vec<v1::MoveVipsRequest>,
    /// Drains that began, "members/{member}" with the request's id.
    pub(crate) drained: Vec<(String, String)>,
    /// Connections on the member that is drained.
    pub(crate) connections: u64,
}

/// A member that runs until it is dropped.
pub(crate) struct Member {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it answers.
    pub(crate) script: Arc<Mutex<Script>>,
    runtime: Option<Runtime>,
}

impl Member {
    pub(crate) fn start(script: Script) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let script = Arc::new(Mutex::new(script));
        let fake = Fake(script.clone());
        let address = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(
                tonic::transport::Server::builder()
                    .add_service(PoolServiceServer::new(fake.clone()))
                    .add_service(ListenerServiceServer::new(fake.clone()))
                    .add_service(VipServiceServer::new(fake.clone()))
                    .add_service(MemberServiceServer::new(fake.clone()))
                    .add_service(ConnectionServiceServer::new(fake.clone()))
                    .add_service(EventServiceServer::new(fake.clone()))
                    .add_service(ClusterServiceServer::new(fake))
                    .serve_with_incoming(TcpIncoming::from(listener)),
            );
            address
        });
        Self { address, script, runtime: Some(runtime) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Script>>);

type Answer<T> = Result<Response<T>, Status>;

fn not_scripted<T>() -> Answer<T> {
    Err(Status::unimplemented("not scripted"))
}

#[tonic::async_trait]
impl PoolService for Fake {
    async fn create_pool(&self, request: Request<v1::CreatePoolRequest>) -> Answer<v1::Pool> {
        let mut script = self.0.lock().unwrap();
        let request = request.into_inner();
        let name = request.pool_id.clone();
        script.created.push(request);
        match script.refusals.pop_front() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(sample_pool(&name))),
        }
    }

    async fn list_pools(&self, request: Request<v1::ListPoolsRequest>) -> Answer<v1::ListPoolsResponse> {
        let script = self.0.lock().unwrap();
        let first: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let next = first + 2;
        let next_page_token = if next < script.pools.len() { next.to_string() } else { String::new() };
        let possibly_stale = request.get_ref().consistency() == v1::Consistency::Local;
        let read = v1::ReadInfo { revision: 12, possibly_stale, member: "members/m1".to_owned() };
        let pools = script.pools.iter().skip(first).take(2).cloned().collect();
        Ok(Response::new(v1::ListPoolsResponse { pools, next_page_token, read: Some(read) }))
    }

    async fn list_backends(&self, _: Request<v1::ListBackendsRequest>) -> Answer<v1::ListBackendsResponse> {
        let backends = vec![sample_backend("a", 1)];
        Ok(Response::new(v1::ListBackendsResponse { backends, ..Default::default() }))
    }

    async fn update_backend(&self, request: Request<v1::UpdateBackendRequest>) -> Answer<v1::Backend> {
        self.0.lock().unwrap().updated.push(request.into_inner());
        Ok(Response::new(sample_backend("a", 1)))
    }

    /// One backend a page.
    async fn get_pool_health(&self, request: Request<v1::GetPoolHealthRequest>) -> Answer<v1::PoolHealth> {
        let health = self.0.lock().unwrap().health.clone();
        let none = (request.get_ref().name == "pools/-").then(v1::PoolHealth::default);
        let mut health = health.or(none).ok_or_else(|| Status::not_found("pool \"web\" does not exist"))?;
        let first: usize = request.get_ref().page_token.parse().unwrap_or(0);
        if first + 1 < health.backends.len() {
            health.next_page_token = (first + 1).to_string();
        }
        health.backends = health.backends.into_iter().skip(first).take(1).collect();
        Ok(Response::new(health))
    }

    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Answer<v1::Pool> {
        let script = self.0.lock().unwrap();
        let pool = script.pools.iter().find(|pool| pool.name == request.get_ref().name);
        pool.cloned().map(Response::new).ok_or_else(|| Status::not_found("pool does not exist"))
    }

    async fn update_pool(&self, request: Request<v1::UpdatePoolRequest>) -> Answer<v1::Pool> {
        let mut script = self.0.lock().unwrap();
        script.changed.push(request.into_inner());
        match script.refusals.pop_front() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(sample_pool("web"))),
        }
    }

    async fn delete_pool(&self, _: Request<v1::DeletePoolRequest>) -> Answer<v1::DeletePoolResponse> {
        not_scripted()
    }

    async fn create_backend(&self, _: Request<v1::CreateBackendRequest>) -> Answer<v1::Backend> {
        not_scripted()
    }

    async fn get_backend(&self, _: Request<v1::GetBackendRequest>) -> Answer<v1::Backend> {
        not_scripted()
    }

    async fn delete_backend(
        &self,
        _: Request<v1::DeleteBackendRequest>,
    ) -> Answer<v1::DeleteBackendResponse> {
        not_scripted()
    }
}

#[tonic::async_trait]
impl ListenerService for Fake {
    async fn create_listener(&self, request: Request<v1::CreateListenerRequest>) -> Answer<v1::Listener> {
        self.0.lock().unwrap().listened.push(request.into_inner());
        Ok(Response::new(sample_listener("front")))
    }

    async fn update_listener(&self, request: Request<v1::UpdateListenerRequest>) -> Answer<v1::Listener> {
        self.0.lock().unwrap().relistened.push(request.into_inner());
        Ok(Response::new(sample_listener("front")))
    }

    async fn get_listener_health(
        &self,
        request: Request<v1::GetListenerHealthRequest>,
    ) -> Answer<v1::ListenerHealth> {
        let mut script = self.0.lock().unwrap();
        let mut health = script.bound.clone();
        let first: usize = request.get_ref().page_token.parse().unwrap_or(0);
        // One view a page.
        if first + 1 < health.views.len() {
            health.next_page_token = (first + 1).to_string();
        } else {
            script.bound.views.iter_mut().for_each(|view| view.connections += 10);
        }
        health.views = health.views.into_iter().skip(first).take(1).collect();
        Ok(Response::new(health))
    }

    async fn get_listener(&self, _: Request<v1::GetListenerRequest>) -> Answer<v1::Listener> {
        not_scripted()
    }

    async fn list_listeners(
        &self,
        _: Request<v1::ListListenersRequest>,
    ) -> Answer<v1::ListListenersResponse> {
        let listeners = vec![sample_listener("front")];
        Ok(Response::new(v1::ListListenersResponse { listeners, ..Default::default() }))
    }

    async fn delete_listener(
        &self,
        _: Request<v1::DeleteListenerRequest>,
    ) -> Answer<v1::DeleteListenerResponse> {
        not_scripted()
    }
}

type Stream<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;

#[tonic::async_trait]
impl ClusterService for Fake {
    type WatchClusterStream = Stream<v1::WatchClusterResponse>;
    type WaitForRevisionStream = Stream<v1::WaitForRevisionResponse>;
    type BackupConfigurationStream = Stream<v1::BackupConfigurationResponse>;

    async fn bootstrap_cluster(
        &self,
        _: Request<v1::BootstrapClusterRequest>,
    ) -> Answer<v1::BootstrapClusterResponse> {
        not_scripted()
    }

    async fn get_cluster_status(&self, _: Request<v1::GetClusterStatusRequest>) -> Answer<v1::ClusterStatus> {
        Ok(Response::new(self.0.lock().unwrap().status.clone().unwrap_or_else(sample_status)))
    }

    async fn transfer_leadership(
        &self,
        _: Request<v1::TransferLeadershipRequest>,
    ) -> Answer<v1::TransferLeadershipResponse> {
        not_scripted()
    }

    async fn watch_cluster(
        &self,
        request: Request<v1::WatchClusterRequest>,
    ) -> Answer<Self::WatchClusterStream> {
        let mut script = self.0.lock().unwrap();
        script.watched.push(request.into_inner());
        let messages = script.watches.pop_front();
        let messages =
            messages.ok_or_else(|| Status::out_of_range("changes before revision 9 are no longer kept"))?;
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn backup_configuration(
        &self,
        _: Request<v1::BackupConfigurationRequest>,
    ) -> Answer<Self::BackupConfigurationStream> {
        let part = |pools| v1::Configuration { pools, ..Default::default() };
        let pools = self.0.lock().unwrap().pools.clone();
        let first = v1::Configuration { format_version: 1, ..Default::default() };
        let parts = std::iter::once(first).chain(pools.into_iter().map(|pool| part(vec![pool])));
        let read = Some(v1::ReadInfo { revision: 7, ..Default::default() });
        let messages: Vec<_> = parts
            .map(|part| Ok(v1::BackupConfigurationResponse { read: read.clone(), part: Some(part) }))
            .collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn apply_batch(&self, _: Request<v1::ApplyBatchRequest>) -> Answer<v1::ApplyBatchResponse> {
        Err(tonic::Status::unimplemented("not asked for here"))
    }

    async fn secure_cluster(
        &self,
        _: Request<v1::SecureClusterRequest>,
    ) -> Answer<v1::SecureClusterResponse> {
        not_scripted()
    }

    async fn restore_configuration(
        &self,
        request: Request<tonic::Streaming<v1::RestoreConfigurationRequest>>,
    ) -> Answer<v1::RestoreConfigurationResponse> {
        let mut parts = request.into_inner();
        let mut whole = v1::Configuration::default();
        let mut replace = false;
        while let Some(message) = parts.message().await? {
            replace |= message.replace;
            trestle_api::convert::merge_configuration(&mut whole, message.part.unwrap_or_default());
        }
        let mut script = self.0.lock().unwrap();
        if !script.pools.is_empty() && !replace {
            return Err(Status::already_exists("the cluster has a configuration already"));
        }
        let created = u32::try_from(whole.pools.len()).unwrap();
        script.pools = whole.pools;
        Ok(Response::new(v1::RestoreConfigurationResponse { revision: 8, created, ..Default::default() }))
    }

    async fn wait_for_revision(
        &self,
        _: Request<v1::WaitForRevisionRequest>,
    ) -> Answer<Self::WaitForRevisionStream> {
        let messages: Vec<_> = self.0.lock().unwrap().waits.iter().cloned().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }
}
