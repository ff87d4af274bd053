//! gRPC checks against tonic's health service, and against what is none.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use tonic::transport::Server as Tonic;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use trestle_model::{CheckKind, GrpcCheck, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};

const SERVING: &str = "gRPC: SERVING";

async fn serve(routes: Routes) -> SocketAddr {
    let socket = TcpListener::bind((ip(), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(Tonic::builder().add_routes(routes).serve_with_incoming(TcpIncoming::from(socket)));
    address
}

/// A server whose health is what the reporter says.
async fn healthy() -> (SocketAddr, HealthReporter) {
    let (reporter, service) = health_reporter();
    (serve(Routes::new(service)).await, reporter)
}

fn about(service: Option<&str>) -> CheckKind {
    CheckKind::Grpc(GrpcCheck { service: service.map(Into::into), ..GrpcCheck::default() })
}

fn secured(tls: TlsCheck) -> CheckKind {
    CheckKind::Grpc(GrpcCheck { tls: Some(tls), ..GrpcCheck::default() })
}

#[tokio::test]
async fn a_server_is_as_healthy_as_it_says() {
    let (address, reporter) = healthy().await;
    assert_eq!(outcome(about(None), PATIENT, address).await, good(SERVING));
    reporter.set_service_status("", ServingStatus::NotServing).await;
    assert_eq!(outcome(about(None), PATIENT, address).await, bad("gRPC: NOT_SERVING, wanted SERVING"));
    reporter.set_service_status("", ServingStatus::Unknown).await;
    assert_eq!(outcome(about(None), PATIENT, address).await, bad("gRPC: UNKNOWN, wanted SERVING"));
    reporter.set_service_status("shop.v1.Cart", ServingStatus::Serving).await;
    assert_eq!(outcome(about(Some("shop.v1.Cart")), PATIENT, address).await, good(SERVING));
    assert_eq!(
        outcome(about(Some("shop.v1.Till")), PATIENT, address).await,
        bad("gRPC: service \"shop.v1.Till\" is unknown")
    );
}

#[tokio::test]
async fn a_server_without_the_service_says_so() {
    let address = serve(Routes::default()).await;
    assert_eq!(outcome(about(None), PATIENT, address).await, bad("gRPC: status UNIMPLEMENTED"));
}

/// TLS in front of a server without it.
async fn secure(config: rustls::ServerConfig, behind: SocketAddr) -> SocketAddr {
    tls_server(config.into(), move |mut stream| async move {
        let mut behind = TcpStream::connect(behind).await.unwrap();
        // Ends with the check, which says no goodbye.
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
    })
    .await
}

#[tokio::test]
async fn over_tls_http_2_is_agreed_on() {
    let (behind, _reporter) = healthy().await;
    let ca = Authority::new("ours");
    let speaking = |protocol: &[u8]| {
        let mut config = ca.server(&["a.example"], 30);
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    };
    let trusting = || TlsCheck {
        ca: Some(ca.pem.clone()),
        server_name: Some("a.example".into()),
        ..TlsCheck::default()
    };
    let address = secure(speaking(b"h2"), behind).await;
    assert_eq!(outcome(secured(trusting()), PATIENT, address).await, good(SERVING));
    assert_eq!(outcome(secured(TlsCheck::default()), PATIENT, address).await, good(SERVING));
    let old = secure(speaking(b"http/1.1"), behind).await;
    assert_eq!(
        outcome(secured(trusting()), PATIENT, old).await,
        bad("TLS: the backend refused the handshake (no application protocol)")
    );
}

#[tokio::test]
async fn what_is_not_grpc_is_refused() {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let (old, _) = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(ANSWER).await;
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    assert_eq!(outcome(about(None), PATIENT, old).await, bad("gRPC: the answer is not HTTP/2"));
    let (closing, _) = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    assert_eq!(
        outcome(about(None), PATIENT, closing).await,
        bad("gRPC: connection closed before the answer was complete")
    );
    let (resetting, _) = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 8]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(outcome(about(None), PATIENT, resetting).await, bad("gRPC: connection reset"));
    let (hanging, open) = server(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut plane = Plane::start();
    plane.pool("p", checked_by(about(None), HASTY), &[("a", at(hanging))]).await;
    until("three checks", || plane.backend_counts("p", "a").checks_failed >= 3).await;
    assert_eq!(plane.verdict("p", "a"), bad("gRPC: timed out after 200ms"));
    let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    until("every connection is closed", || open.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_web_server_that_speaks_http_2_is_not_serving() {
    let routes = Routes::from(tonic::service::AxumRouter::new());
    let not_found = serve(routes).await;
    assert_eq!(outcome(about(None), PATIENT, not_found).await, bad("gRPC: HTTP 404, wanted 200"));
}

/// SETTINGS and their acknowledgement (RFC 9113 §6.5).
const BEGIN: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

#[tokio::test]
async fn frames_that_mean_nothing_cost_their_bytes_and_no_more() {
    // Of a type that nobody knows, which is to be ignored (RFC 9113 §5.5).
    const UNKNOWN: &[u8] = b"\0\0\x04\xfa\0\0\0\0\0abcd";
    let (address, _) = server(|mut stream| async move {
        let _ = stream.write_all(BEGIN).await;
        let many = UNKNOWN.repeat(100);
        while stream.write_all(&many).await.is_ok() {}
    })
    .await;
    let overrun = bad("sent more than the 256 KiB that a check reads");
    assert_eq!(outcome(about(None), PATIENT, address).await, overrun);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused() {
    let (address, _) = server(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_question, mut answer))) = connection.accept().await {
            let mut body = answer.send_response(hyper::Response::new(()), false).unwrap();
            body.send_data(vec![0; 5000].into(), true).unwrap();
        }
    })
    .await;
    let long = bad("gRPC: the answer has over 4096 bytes");
    assert_eq!(outcome(about(None), PATIENT, address).await, long);
}

#[tokio::test]
async fn a_server_that_pushes_is_not_listened_to() {
    // PUSH_PROMISE frames on stream 1 without end (RFC 9113 §6.6).
    let promise = |stream: u32| {
        [b"\0\0\x08\x05\x04\0\0\0\x01", &stream.to_be_bytes()[..], b"\x82\x87\x84\x88"].concat()
    };
    let (prefaces, mut said) = tokio::sync::mpsc::unbounded_channel();
    let (address, open) = server(move |mut stream| {
        let prefaces = prefaces.clone();
        async move {
            let mut preface = Vec::with_capacity(4096);
            // 24 bytes, and a frame of settings that has two at least.
            while preface.len() < 24 + 9 + 2 * 6 && matches!(stream.read_buf(&mut preface).await, Ok(1..)) {}
            let _ = prefaces.send(preface);
            let _ = stream.write_all(BEGIN).await;
            for number in 1.. {
                if stream.write_all(&promise(2 * number)).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    assert_eq!(outcome(about(None), PATIENT, address).await, bad("gRPC: the answer is not HTTP/2"));
    until("every connection is closed", || open.load(std::sync::atomic::Ordering::SeqCst) <= 1).await;
    // It was told not to: SETTINGS_ENABLE_PUSH is 0 (RFC 9113 §6.5.2).
    let preface = soon("a preface", said.recv()).await.unwrap();
    assert!(preface.windows(6).any(|setting| setting == [0, 2, 0, 0, 0, 0]), "{preface:?}");
}
