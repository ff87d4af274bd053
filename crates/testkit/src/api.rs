//! The admin API of one member, through the generated clients.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost_types::FieldMask;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::connection_service_client::ConnectionServiceClient;
use trestle_api::v1::listener_service_client::ListenerServiceClient;
use trestle_api::v1::member_progress::Step;
use trestle_api::v1::member_service_client::MemberServiceClient;
use trestle_api::v1::pool_service_client::PoolServiceClient;
use trestle_api::v1::token_service_client::TokenServiceClient;
use trestle_api::v1::user_service_client::UserServiceClient;
use trestle_api::v1::{
    AddMemberRequest, AdminState, Backend, ClusterStatus, CreateBackendRequest, CreateListenerRequest,
    CreatePoolRequest, CreateUserRequest, GetClusterStatusRequest, GetPoolHealthRequest, HealthCheck,
    Listener, MemberProgress, MemberView, NoCheck, Pool, PromoteMemberRequest, TcpCheck,
    UpdateBackendRequest, User, UserCredentials, UserRole, Verdict, health_check,
};
use trestle_identity::tls::ClientTls;
use trestle_identity::{CertificateRequest, PrivateKey};

use crate::wait::wait_until;

/// How long [`Api`] repeats a write that found no leader: elections follow one another when a machine is busy.
const RETRY_LIMIT: Duration = Duration::from_secs(20);

/// Bytes that a message has on the wire.
pub fn message_bytes(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

/// Repeats a call with the same request id while no leader is there to take it, as automation should.
async fn persist<T>(
    mut call: impl AsyncFnMut(String) -> Result<tonic::Response<T>, Status>,
) -> Result<T, Status> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let start = Instant::now();
    loop {
        match call(id.clone()).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
                    && start.elapsed() < RETRY_LIMIT =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => return Err(status),
        }
    }
}

/// Clients of one member; a clone shares the connection.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
}

impl Api {
    /// Clients of the member whose admin address this is. Connects when it is first used, and again after a failure.
    ///
    /// # Panics
    /// Never for a socket address.
    pub fn new(admin: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{admin}")).unwrap();
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(10));
        Self { channel: endpoint.connect_lazy() }
    }

    /// As [`Api::new`], over TLS where there is a user to be.
    ///
    /// # Panics
    /// Never for a socket address.
    pub fn of(admin: SocketAddr, user: Option<&ClientTls>) -> Self {
        user.map_or_else(
            || Self::new(admin),
            |user| Self::at(&Transport::tls(user.clone()), &admin.to_string()),
        )
    }

    /// Clients of the member that has this admin socket.
    ///
    /// # Panics
    /// When the path cannot be one.
    pub fn local(socket: &Path) -> Self {
        Self::at(&Transport::plain(), &format!("unix:{}", socket.display()))
    }

    fn at(transport: &Transport, address: &str) -> Self {
        let options =
            ChannelOptions { connect_timeout: Some(Duration::from_secs(1)), ..ChannelOptions::default() };
        Self { channel: transport.dialer(address, &options).unwrap().connect_lazy() }
    }

    /// Makes a user, and a key for it.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn new_user(&self, name: &str, role: UserRole) -> Result<ClientTls, Status> {
        let (key, made) = self.create_user(name, role).await?;
        Ok(ClientTls::new(&made.authorities, &made.certificate, key.to_pem().expose()).unwrap())
    }

    /// As [`Api::new_user`]; answers the key, and what was signed for it.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn create_user(
        &self,
        name: &str,
        role: UserRole,
    ) -> Result<(PrivateKey, UserCredentials), Status> {
        let key = PrivateKey::generate().unwrap();
        let request = CreateUserRequest {
            user_id: name.to_owned(),
            user: Some(User { role: role.into(), ..User::default() }),
            certificate_request: CertificateRequest::make(&key).unwrap(),
            ..CreateUserRequest::default()
        };
        Ok((key, self.users().create_user(request).await?.into_inner()))
    }

    /// Tokens by which machines join.
    pub fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone())
    }

    /// Users.
    pub fn users(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel.clone())
    }

    /// Pools and backends.
    pub fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel.clone())
    }

    /// Listeners.
    pub fn listeners(&self) -> ListenerServiceClient<Channel> {
        ListenerServiceClient::new(self.channel.clone())
    }

    /// Connections.
    pub fn connections(&self) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel.clone())
    }

    /// Members.
    pub fn members(&self) -> MemberServiceClient<Channel> {
        MemberServiceClient::new(self.channel.clone())
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    /// What every member says of itself.
    ///
    /// # Errors
    /// The member's answer, or that it cannot be reached.
    pub async fn status(&self) -> Result<ClusterStatus, Status> {
        let request = GetClusterStatusRequest { local_only: false };
        Ok(self.cluster().get_cluster_status(request).await?.into_inner())
    }

    /// Creates a pool whose backends are checked over TCP every `interval`; `None` for no check.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn create_pool(&self, name: &str, interval: Option<Duration>) -> Result<Pool, Status> {
        let kind = match interval {
            Some(_) => health_check::Kind::Tcp(TcpCheck {}),
            None => health_check::Kind::None(NoCheck {}),
        };
        let interval = interval.map(|interval| interval.try_into().unwrap());
        let check =
            HealthCheck { kind: Some(kind), fast_interval: interval, interval, ..HealthCheck::default() };
        self.create_pool_with(name, Pool { health_check: Some(check), ..Pool::default() }).await
    }

    /// Creates a pool with these settings.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn create_pool_with(&self, name: &str, pool: Pool) -> Result<Pool, Status> {
        persist(async |request_id| {
            let (pool_id, pool) = (name.to_owned(), Some(pool.clone()));
            let request = CreatePoolRequest { pool_id, pool, request_id, ..Default::default() };
            self.pools().create_pool(request).await
        })
        .await
    }

    /// Adds a backend.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn create_backend(
        &self,
        pool: &str,
        name: &str,
        address: impl Display,
    ) -> Result<Backend, Status> {
        let backend = Backend { address: address.to_string(), ..Backend::default() };
        persist(async |request_id| {
            let request = CreateBackendRequest {
                parent: format!("pools/{pool}"),
                backend_id: name.to_owned(),
                backend: Some(backend.clone()),
                request_id,
                ..Default::default()
            };
            self.pools().create_backend(request).await
        })
        .await
    }

    /// Creates a listener on one address.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn create_listener(
        &self,
        name: &str,
        bind: impl Display,
        pool: &str,
    ) -> Result<Listener, Status> {
        let binds = vec![bind.to_string()];
        let listener = Listener { binds, pool: format!("pools/{pool}"), ..Listener::default() };
        persist(async |request_id| {
            let (listener_id, listener) = (name.to_owned(), Some(listener.clone()));
            let request = CreateListenerRequest { listener_id, listener, request_id, ..Default::default() };
            self.listeners().create_listener(request).await
        })
        .await
    }

    /// Changes what the operator wants of a backend, `pools/{pool}/backends/{backend}`.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn set_state(&self, backend: &str, state: AdminState) -> Result<Backend, Status> {
        let backend = Backend { name: backend.to_owned(), admin_state: state.into(), ..Backend::default() };
        let mask = FieldMask { paths: vec!["admin_state".to_owned()] };
        persist(async |request_id| {
            let (backend, update_mask) = (Some(backend.clone()), Some(mask.clone()));
            let request = UpdateBackendRequest { backend, update_mask, request_id, validate_only: false };
            self.pools().update_backend(request).await
        })
        .await
    }

    /// Waits until every member has this verdict on every backend of the pool whose name `concerns` accepts.
    ///
    /// # Panics
    /// When that takes more than 60 s.
    pub async fn verdict(&self, pool: &str, concerns: impl Fn(&str) -> bool, verdict: Verdict) {
        wait_until(&format!("verdict {verdict:?} in pool {pool}"), Duration::from_secs(60), async || {
            let request = GetPoolHealthRequest { name: format!("pools/{pool}"), ..Default::default() };
            let answer = self.pools().get_pool_health(request).await.map_err(|status| status.to_string())?;
            let health = answer.into_inner();
            let concerned: Vec<_> =
                health.backends.iter().filter(|backend| concerns(&backend.name)).collect();
            let same = |view: &MemberView| view.verdict() == verdict;
            let all = health.unreachable_members.is_empty()
                && !concerned.is_empty()
                && concerned.iter().all(|b| !b.views.is_empty() && b.views.iter().all(same));
            if all { Ok(()) } else { Err(format!("{health:#?}")) }
        })
        .await;
    }

    /// Takes in the empty member that listens for peers at this address.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn add_member(&self, peer: SocketAddr) -> Result<MemberProgress, Status> {
        let request = AddMemberRequest { peer_address: peer.to_string(), ..Default::default() };
        follow(self.members().add_member(request).await?.into_inner()).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// The member's answer.
    pub async fn promote_member(&self, name: &str) -> Result<MemberProgress, Status> {
        let request = PromoteMemberRequest { name: format!("members/{name}"), ..Default::default() };
        follow(self.members().promote_member(request).await?.into_inner()).await
    }
}

/// Reads progress to its end.
///
/// # Errors
/// The stream's error, or that it ended before it was done.
async fn follow(mut progress: Streaming<MemberProgress>) -> Result<MemberProgress, Status> {
    while let Some(message) = progress.message().await? {
        if message.step() == Step::Done {
            return Ok(message);
        }
    }
    Err(Status::unknown("the stream of progress ended before it was done"))
}
