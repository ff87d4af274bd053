//! The member's gRPC servers.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::error;
use trestle_api::peer::peer_service_server::PeerServiceServer;
use trestle_api::v1::cluster_service_server::ClusterServiceServer;
use trestle_api::v1::connection_service_server::ConnectionServiceServer;
use trestle_api::v1::listener_service_server::ListenerServiceServer;
use trestle_api::v1::member_service_server::MemberServiceServer;
use trestle_api::v1::pool_service_server::PoolServiceServer;
use trestle_api::v1::vip_service_server::VipServiceServer;

use crate::admin::Admin;
use crate::member::Member;
use crate::peer::Peers;

/// Largest request to the admin API, in bytes; the log takes far less, and nothing larger makes sense.
const ADMIN_REQUEST_MAX: usize = 256 * 1024;
/// Calls of one connection that run at the same time; more wait.
const CONCURRENT_PER_CONNECTION: usize = 256;
/// Calls of all connections that run at the same time; more wait, so that a flood of them cannot take all memory.
const CONCURRENT_MAX: usize = 4096;
/// Silence after which a client is probed, and how long the probe may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long open calls may go on after the stop; idle HTTP/2 connections would otherwise hold it up for ever
/// (hyper #4170).
const STOP_GRACE: Duration = Duration::from_secs(1);

fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .concurrency_limit_per_connection(CONCURRENT_PER_CONNECTION)
}

/// Runs a server until the stop, and a little longer for calls that are under way.
async fn run(
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    what: &str,
    stop: &CancellationToken,
) {
    let bounded = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended { error!(%error, what, "server ended") },
        () = bounded => {}
    }
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// The admin API, with health and reflection.
pub(crate) async fn admin(
    listener: TcpListener,
    admin: Admin,
    leaving: CancellationToken,
    stop: CancellationToken,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PoolServiceServer<Admin>>().await;
    health.set_serving::<ListenerServiceServer<Admin>>().await;
    health.set_serving::<ConnectionServiceServer<Admin>>().await;
    health.set_serving::<MemberServiceServer<Admin>>().await;
    health.set_serving::<ClusterServiceServer<Admin>>().await;
    health.set_serving::<VipServiceServer<Admin>>().await;
    tokio::spawn(async move {
        leaving.cancelled().await;
        // The empty name stands for the server as a whole (grpc.health.v1).
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        health.set_not_serving::<PoolServiceServer<Admin>>().await;
        health.set_not_serving::<ListenerServiceServer<Admin>>().await;
        health.set_not_serving::<ConnectionServiceServer<Admin>>().await;
        health.set_not_serving::<MemberServiceServer<Admin>>().await;
        health.set_not_serving::<ClusterServiceServer<Admin>>().await;
        health.set_not_serving::<VipServiceServer<Admin>>().await;
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(trestle_api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let reflection = match reflection {
        Ok(reflection) => reflection,
        Err(error) => {
            error!(%error, "reflection cannot be served");
            return;
        }
    };
    let router = server()
        .layer(tower::limit::GlobalConcurrencyLimitLayer::new(CONCURRENT_MAX))
        .add_service(PoolServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
        .add_service(ListenerServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
        .add_service(ConnectionServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
        .add_service(MemberServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
        .add_service(ClusterServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
        .add_service(VipServiceServer::new(admin).max_decoding_message_size(ADMIN_REQUEST_MAX))
        .add_service(health_service)
        .add_service(reflection);
    let serving = router.serve_with_incoming_shutdown(incoming(listener), stop.cancelled());
    run(serving, "admin", &stop).await;
}

/// Raft, the questions of peers, and the operations that a member that does not lead passes on.
pub(crate) async fn peers(
    socket: std::net::TcpListener,
    peers: Peers,
    admin: Admin,
    member: Arc<Member>,
    stop: CancellationToken,
) {
    // The socket was bound on another runtime and belongs to this one from here on.
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "peer socket");
            return;
        }
    };
    let router = member
        .consensus
        .peer_server()
        .add_service(member.consensus.raft_service())
        .add_service(PeerServiceServer::new(peers))
        .add_service(MemberServiceServer::new(admin.clone()))
        .add_service(ClusterServiceServer::new(admin.clone()))
        .add_service(VipServiceServer::new(admin));
    let serving = router.serve_with_incoming_shutdown(incoming(listener), stop.cancelled());
    run(serving, "peers", &stop).await;
}
