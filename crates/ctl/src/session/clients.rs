//! Clients of the services, over one connection.

use tonic::transport::Channel;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::connection_service_client::ConnectionServiceClient;
use trestle_api::v1::event_service_client::EventServiceClient;
use trestle_api::v1::listener_service_client::ListenerServiceClient;
use trestle_api::v1::member_service_client::MemberServiceClient;
use trestle_api::v1::pool_service_client::PoolServiceClient;
use trestle_api::v1::vip_service_client::VipServiceClient;

use super::ANSWER_MAX;

/// A client of the pool service.
pub(crate) fn pools(channel: Channel) -> PoolServiceClient<Channel> {
    PoolServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}

/// A client of the listener service.
pub(crate) fn listeners(channel: Channel) -> ListenerServiceClient<Channel> {
    ListenerServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}

/// A client of the connection service.
pub(crate) fn connections(channel: Channel) -> ConnectionServiceClient<Channel> {
    ConnectionServiceClient::new(channel)
}

/// A client of the member service.
pub(crate) fn members(channel: Channel) -> MemberServiceClient<Channel> {
    MemberServiceClient::new(channel)
}

/// A client of the virtual IP service.
pub(crate) fn vips(channel: Channel) -> VipServiceClient<Channel> {
    VipServiceClient::new(channel)
}

/// A client of the event service.
pub(crate) fn events(channel: Channel) -> EventServiceClient<Channel> {
    EventServiceClient::new(channel)
}

/// A client of the cluster service.
pub(crate) fn cluster(channel: Channel) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}
