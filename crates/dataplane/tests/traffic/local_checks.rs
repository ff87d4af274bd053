//! A member's check of a service on its own machine.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trestle_dataplane::{CheckResult, LocalCheck, Sources};
use trestle_model::{CheckKind, HttpCheck, TlsCheck};

use crate::checking::*;
use crate::harness::*;

fn https() -> CheckKind {
    CheckKind::Http(HttpCheck { tls: Some(TlsCheck::default()), ..HttpCheck::default() })
}

async fn run(plane: &Plane, kind: CheckKind, address: SocketAddr, ca_file: Option<&Path>) -> CheckResult {
    let check = Arc::new(LocalCheck::new(kind, address, ca_file, PATIENT));
    soon("the check", plane.plane.check_local(&check)).await.unwrap()
}

async fn answer(mut stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let _ = stream.read(&mut [0; 8]).await;
}

/// A plane that reaches backends from an address that this machine does not have.
fn plane() -> Plane {
    let elsewhere = "192.0.2.1".parse().unwrap();
    Plane::with(trestle_dataplane::DataPlaneSettings {
        source: Sources::from_iter([elsewhere]),
        ..settings()
    })
}

#[tokio::test]
async fn a_service_is_verified_by_the_ca_of_a_file_as_it_is_now() {
    let plane = plane();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let ip = ip();
    let address = tls_server_at(ip, ours.server(&[&ip.to_string()], 30).into(), answer).await;
    assert_eq!(run(&plane, https(), address, None).await, CheckResult::Answered(200));

    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("ca.pem");
    let check = Arc::new(LocalCheck::new(https(), address, Some(&file), PATIENT));
    for (contents, said) in [
        (None, format!("TLS: CA {}: no such file", file.display())),
        (Some("no certificate"), "TLS: the CA given holds no usable certificate".to_owned()),
        (Some(&*other.pem), "TLS: certificate is not signed by the CA given".to_owned()),
        (Some(&*ours.pem), "HTTP 200".to_owned()),
    ] {
        if let Some(contents) = contents {
            std::fs::write(&file, contents).unwrap();
        }
        let begin = tokio::time::Instant::now();
        loop {
            let found = soon("the check", plane.plane.check_local(&check)).await.unwrap().to_string();
            if found == said {
                break;
            }
            assert!(begin.elapsed() < DEADLINE, "{found}, not {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Whom it asks for is the address.
    let named = tls_server(ours.server(&["a.example"], 30).into(), answer).await;
    let said = run(&plane, https(), named, Some(&file)).await.to_string();
    assert_eq!(said, format!("TLS: certificate is not for {}", named.ip()));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_the_one_that_is_wanted() {
    let plane = plane();
    let elsewhere = std::net::TcpListener::bind((ip(), 0)).unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let to = elsewhere.local_addr().unwrap();
    let head = format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\r\n");
    let server = tokio::net::TcpListener::bind((ip(), 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 8]).await;
    });
    let kind = CheckKind::Http(HttpCheck::default());
    assert_eq!(run(&plane, kind, address, None).await.to_string(), "HTTP 302, wanted 200-299");
    assert_eq!(elsewhere.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_tcp_check_is_not_seen_by_the_service_and_a_closed_port_is_refused() {
    let plane = plane();
    let server = std::net::TcpListener::bind((ip(), 0)).unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    for _ in 0..3 {
        assert_eq!(run(&plane, CheckKind::Tcp, address, None).await, CheckResult::Connected);
    }
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(server);
    assert_eq!(run(&plane, CheckKind::Tcp, address, None).await, CheckResult::Refused);
}
