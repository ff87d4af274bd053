//! Checks of backends that are known by name: what they ask for, and what certificates must be for.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use trestle_dataplane::Verdict;
use trestle_model::{CheckKind, ExchangeCheck, GrpcCheck, HttpCheck, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::identities::Nginx;
use crate::name_server::{NameServer, named};

/// What a check asked a server for: the server name of TLS, and the Host field or authority.
type Asked = (Option<String>, String);

/// A name as certificates and requests have it.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// A member that knows this name as the address.
fn knowing(name: &str, address: SocketAddr) -> (Plane, NameServer) {
    let names = NameServer::start();
    names.point(&plain(name), &[address.ip()]);
    (Plane::with(names.settings()), names)
}

/// What the first check says of a backend that is known by this name.
async fn found(name: &str, kind: CheckKind, address: SocketAddr) -> (Verdict, String) {
    let (mut plane, _names) = knowing(name, address);
    plane.pool("p", checked_by(kind, PATIENT), &[("a", named(name, address.port()))]).await;
    until("a verdict", || plane.verdict("p", "a").0 != Verdict::Unknown).await;
    plane.verdict("p", "a")
}

/// Reads a request and answers; returns its Host field.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut head).await, Ok(1..)) {}
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let _ = stream.shutdown().await;
    let head = String::from_utf8(head).unwrap();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    host.to_owned()
}

/// A server that tells what checks ask for.
async fn web(seen: mpsc::UnboundedSender<Asked>) -> SocketAddr {
    let (address, _) = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            let _ = seen.send((None, answer(&mut stream).await));
        }
    })
    .await;
    address
}

/// The same over TLS.
async fn secure_web(config: rustls::ServerConfig, seen: mpsc::UnboundedSender<Asked>) -> SocketAddr {
    tls_server(config.into(), move |mut stream| {
        let seen = seen.clone();
        async move {
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let _ = seen.send((name, answer(&mut stream).await));
        }
    })
    .await
}

/// The same by gRPC.
async fn grpc(stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<String> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let (request, mut respond) = connection.accept().await?.ok()?;
    let mut body = respond.send_response(Response::new(()), false).ok()?;
    // SERVING.
    body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false).ok()?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    body.send_trailers(trailers).ok()?;
    while connection.accept().await.is_some() {}
    request.uri().authority().map(ToString::to_string)
}

fn https(tls: TlsCheck, host: Option<&str>) -> CheckKind {
    CheckKind::Http(HttpCheck { host: host.map(Into::into), ..over_tls(tls) })
}

fn trusting(ca: &Authority, name: Option<&str>) -> TlsCheck {
    TlsCheck { ca: Some(ca.pem.clone()), server_name: name.map(Into::into), ..TlsCheck::default() }
}

#[tokio::test]
async fn the_name_is_what_is_asked_for_and_verified() {
    let ca = Authority::new("ours");
    for name in ["web.example", "WEB.Example", "web.example.", "web_1.example", "web_1"] {
        let (seen, mut asked) = mpsc::unbounded_channel();
        let plain = plain(name);
        let address = secure_web(ca.server(&[&plain], 30), seen).await;
        assert_eq!(found(name, https(trusting(&ca, None), None), address).await, good("HTTP 200"), "{name}");
        let host = format!("{plain}:{}", address.port());
        assert_eq!(soon("a request", asked.recv()).await, Some((Some(plain), host)));
    }
    let (seen, mut asked) = mpsc::unbounded_channel();
    let address = web(seen).await;
    let plain = CheckKind::Http(HttpCheck::default());
    assert_eq!(found("web.example", plain, address).await, good("HTTP 200"));
    let host = format!("web.example:{}", address.port());
    assert_eq!(soon("a request", asked.recv()).await, Some((None, host)));
}

#[tokio::test]
async fn every_check_over_tls_asks_for_the_name() {
    let ca = Authority::new("ours");
    let kinds = [
        CheckKind::Tls(trusting(&ca, None)),
        CheckKind::Exchange(ExchangeCheck {
            tls: Some(trusting(&ca, None)),
            expect: b"ready"[..].into(),
            ..ExchangeCheck::default()
        }),
    ];
    for kind in kinds {
        let (seen, mut asked) = mpsc::unbounded_channel();
        let address = tls_server(ca.server(&["web.example"], 30).into(), move |mut stream| {
            let _ = seen.send(stream.get_ref().1.server_name().map(str::to_owned));
            async move {
                let _ = stream.write_all(b"ready").await;
                let _ = stream.read(&mut [0; 8]).await;
            }
        })
        .await;
        assert_eq!(found("web.example", kind.clone(), address).await.0, Verdict::Healthy);
        assert_eq!(soon("a handshake", asked.recv()).await, Some(Some("web.example".to_owned())));
        let words = bad("TLS: certificate is not for other.example");
        assert_eq!(found("other.example", kind, address).await, words);
    }
}

#[tokio::test]
async fn grpc_asks_for_the_name_or_for_whom_it_is_told_to() {
    let ca = Authority::new("ours");
    let plain =
        |authority: Option<&str>| GrpcCheck { authority: authority.map(Into::into), ..GrpcCheck::default() };
    let secured = |authority, name| GrpcCheck { tls: Some(trusting(&ca, name)), ..plain(authority) };
    let (a, b) = (Some("a.example"), Some("b.example:1"));
    for (check, server_name, authority) in [
        (plain(None), None, "web.example:PORT"),
        (plain(b), None, "b.example:1"),
        (secured(None, None), Some("web.example"), "web.example:PORT"),
        (secured(None, a), a, "a.example"),
        (secured(b, None), Some("b.example"), "b.example:1"),
        (secured(b, a), a, "b.example:1"),
    ] {
        let (seen, mut asked) = mpsc::unbounded_channel();
        let address = if check.tls.is_some() {
            let config = ca.server(&["web.example", "a.example", "b.example"], 30);
            tls_server(Arc::new(config), move |mut stream| {
                let seen = seen.clone();
                async move {
                    let name = stream.get_ref().1.server_name().map(str::to_owned);
                    let _ = seen.send((name, grpc(&mut stream).await));
                }
            })
            .await
        } else {
            let served = server(move |stream| {
                let seen = seen.clone();
                async move {
                    let _ = seen.send((None, grpc(stream).await));
                }
            });
            served.await.0
        };
        let kind = CheckKind::Grpc(check);
        assert_eq!(found("web.example", kind.clone(), address).await, good("gRPC: SERVING"), "{authority}");
        let authority = authority.replace("PORT", &address.port().to_string());
        let wanted = (server_name.map(str::to_owned), Some(authority));
        assert_eq!(soon("a call", asked.recv()).await, Some(wanted));
    }
}

#[tokio::test]
async fn a_host_names_the_server_too_and_a_server_name_comes_first() {
    let ca = Authority::new("ours");
    let (a, b) = (Some("a.example"), Some("b.example:1"));
    for (check, server_name, host) in [
        (https(trusting(&ca, None), b), Some("b.example"), "b.example:1"),
        (https(trusting(&ca, a), b), a, "b.example:1"),
        (https(trusting(&ca, a), None), a, "web.example:PORT"),
        (https(trusting(&ca, None), Some("[::1]:1")), Some("web.example"), "[::1]:1"),
        (https(trusting(&ca, Some("web_1")), None), Some("web_1"), "web.example:PORT"),
    ] {
        let (seen, mut asked) = mpsc::unbounded_channel();
        let config = ca.server(&["web.example", "a.example", "b.example", "web_1"], 30);
        let address = secure_web(config, seen).await;
        assert_eq!(found("web.example", check.clone(), address).await, good("HTTP 200"), "{host}");
        let wanted = (server_name.map(str::to_owned), host.replace("PORT", &address.port().to_string()));
        assert_eq!(soon("a request", asked.recv()).await, Some(wanted));
    }
    // A backend that is known by its address is asked for nobody, unless the settings name somebody.
    for (host, server_name) in [(None, None), (b, Some("b.example")), (Some("10.0.0.1"), None)] {
        let (seen, mut asked) = mpsc::unbounded_channel();
        let address = secure_web(self_signed(30), seen).await;
        let check = https(TlsCheck::default(), host);
        assert_eq!(outcome(check, PATIENT, address).await, good("HTTP 200"));
        let wanted = (server_name.map(str::to_owned), host.map_or(address.to_string(), str::to_owned));
        assert_eq!(soon("a request", asked.recv()).await, Some(wanted));
    }
}

#[tokio::test]
async fn one_pool_verifies_servers_with_certificates_of_their_own() {
    let (ca, address) = (Authority::new("ours"), free());
    // Whom nginx does not know it refuses, as a server with many sites does.
    let site = |name: &str| {
        format!(
            "server {{\nlisten {address} ssl;\nserver_name {name};\nssl_certificate {name}.pem;\n\
             ssl_certificate_key {name}.key;\nlocation / {{ return 200 {name}; }}\n}}\n"
        )
    };
    let servers = format!(
        "server {{\nlisten {address} ssl default_server;\nssl_reject_handshake on;\n}}\n{}{}",
        site("web.example"),
        site("api.example")
    );
    let ((web, web_key), (api, api_key)) = (ca.sign("web.example"), ca.sign("api.example"));
    let files = [
        ("web.example.pem", &*web),
        ("web.example.key", &*web_key),
        ("api.example.pem", &*api),
        ("api.example.key", &*api_key),
    ];
    let _nginx = Nginx::serving(address, &servers, &files).await;
    let (mut plane, names) = knowing("web.example", address);
    names.point("api.example", &[address.ip()]);
    names.point("none.example", &[address.ip()]);
    let at_port = |name: &str| named(name, address.port());
    let backends = [
        ("api", at_port("api.example")),
        ("ip", at(address)),
        ("none", at_port("none.example")),
        ("web", at_port("web.example")),
    ];
    plane.pool("p", checked_by(https(trusting(&ca, None), None), PATIENT), &backends).await;
    plane.until_verdict("p", "web", Verdict::Healthy).await;
    plane.until_verdict("p", "api", Verdict::Healthy).await;
    plane.until_verdict("p", "none", Verdict::Unhealthy).await;
    plane.until_verdict("p", "ip", Verdict::Unhealthy).await;
    let refused = |asked: &str| {
        bad(&format!("TLS: the backend refused the handshake (unrecognized name); it was asked for {asked}"))
    };
    assert_eq!(plane.verdict("p", "none"), refused("none.example"));
    assert_eq!(plane.verdict("p", "ip"), refused("no name"));
}
