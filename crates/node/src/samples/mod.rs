//! Samples of what a balancer stands between: a backend that says who it is and who asks, and a client that says what it sees.

mod client;
mod sightings;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use tokio::net::TcpListener;

pub use client::SampleClient;

/// What comes before the address from which a sample backend was asked: through a balancer, a member's.
const ASKED_FROM: &str = ", asked from ";

/// Begins to serve a backend of this name; what is returned never ends.
///
/// # Errors
/// When its port cannot be listened on.
pub async fn sample_backend(
    name: String,
    address: SocketAddr,
) -> std::io::Result<impl Future<Output = std::io::Result<()>>> {
    let listener = TcpListener::bind(address).await?;
    let answer = async move |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
        format!("sample backend {name}{ASKED_FROM}{}\n", peer.ip())
    };
    let app = Router::new().fallback(answer).into_make_service_with_connect_info::<SocketAddr>();
    Ok(async move { axum::serve(listener, app).await })
}
