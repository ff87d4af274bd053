//! The member's gRPC servers.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tracing::error;
use trestle_api::peer::peer_service_server::PeerServiceServer;
use trestle_api::v1::authority_service_server::AuthorityServiceServer;
use trestle_api::v1::cluster_service_server::ClusterServiceServer;
use trestle_api::v1::connection_service_server::ConnectionServiceServer;
use trestle_api::v1::event_service_server::EventServiceServer;
use trestle_api::v1::listener_service_server::ListenerServiceServer;
use trestle_api::v1::member_service_server::MemberServiceServer;
use trestle_api::v1::pool_service_server::PoolServiceServer;
use trestle_api::v1::token_service_server::TokenServiceServer;
use trestle_api::v1::user_service_server::UserServiceServer;
use trestle_api::v1::vip_service_server::VipServiceServer;
use trestle_consensus::{Consensus, PEER_WINDOW};

use crate::accept::{self, Grpc, Guard, Http2, ListeningSocket, ServicePort};
use crate::admin::Admin;
use crate::peer::PeerServer;

/// Largest request to the admin API, in bytes: a little more than a log entry, so that what is too large for one is told so.
const ADMIN_REQUEST_MAX: usize = (1 << 20) + 64 * 1024;
/// The admin API's requests are small, and there are many connections.
const ADMIN_HTTP2: Http2 = Http2 {
    stream_window: 64 * 1024,
    connection_window: 128 * 1024,
    keep_alive: (Duration::from_secs(20), Duration::from_secs(20)),
};

/// The services of the admin API, whose health clients may ask for.
const SERVICES: [&str; 10] = [
    <PoolServiceServer<Admin> as NamedService>::NAME,
    <ListenerServiceServer<Admin> as NamedService>::NAME,
    <ConnectionServiceServer<Admin> as NamedService>::NAME,
    <MemberServiceServer<Admin> as NamedService>::NAME,
    <ClusterServiceServer<Admin> as NamedService>::NAME,
    <VipServiceServer<Admin> as NamedService>::NAME,
    <EventServiceServer<Admin> as NamedService>::NAME,
    <UserServiceServer<Admin> as NamedService>::NAME,
    <TokenServiceServer<Admin> as NamedService>::NAME,
    <AuthorityServiceServer<Admin> as NamedService>::NAME,
];

/// The admin API, with health and reflection, on one of its sockets.
pub(crate) async fn admin<L: ListeningSocket>(
    listener: L,
    (port, guard): (Arc<ServicePort>, Arc<dyn Guard>),
    admin: Admin,
    leaving: CancellationToken,
    stop: CancellationToken,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    tokio::spawn(async move {
        leaving.cancelled().await;
        // The empty name stands for the server as a whole (grpc.health.v1).
        for service in SERVICES.into_iter().chain([""]) {
            health.set_service_status(service, ServingStatus::NotServing).await;
        }
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
    let services =
        Routes::new(PoolServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
            .add_service(
                ListenerServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX),
            )
            .add_service(
                ConnectionServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX),
            )
            .add_service(MemberServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
            .add_service(
                ClusterServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX),
            )
            .add_service(EventServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
            .add_service(UserServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
            .add_service(TokenServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX))
            .add_service(
                AuthorityServiceServer::new(admin.clone()).max_decoding_message_size(ADMIN_REQUEST_MAX),
            )
            .add_service(VipServiceServer::new(admin).max_decoding_message_size(ADMIN_REQUEST_MAX))
            .add_service(health_service)
            .add_service(reflection);
    let grpc = Grpc { services: services.into_axum_router(), http2: ADMIN_HTTP2, guard };
    accept::run(listener, port, grpc, stop).await;
}

/// Raft, and what members ask of one another. What operators call is not served here.
pub(crate) async fn peers(
    socket: std::net::TcpListener,
    (port, guard): (Arc<ServicePort>, Arc<dyn Guard>),
    peers: PeerServer,
    consensus: Consensus,
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
    let services = Routes::new(consensus.raft_service()).add_service(PeerServiceServer::new(peers));
    let http2 = Http2 {
        stream_window: PEER_WINDOW,
        connection_window: PEER_WINDOW,
        keep_alive: consensus.peer_keep_alive(),
    };
    let grpc = Grpc { services: services.into_axum_router(), http2, guard };
    accept::run(listener, port, grpc, stop).await;
}
