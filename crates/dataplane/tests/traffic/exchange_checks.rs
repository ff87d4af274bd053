//! Send/expect checks against servers good and bad.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use trestle_model::{CheckKind, ExchangeCheck, HealthPatch, PoolPatch, TlsCheck};

use crate::checking::*;
use crate::harness::*;

const EXPECTED: &str = "answer as expected";

fn check(send: &str, expect: &str) -> CheckKind {
    CheckKind::Exchange(ExchangeCheck {
        tls: None,
        send: send.as_bytes().into(),
        expect: expect.as_bytes().into(),
    })
}

/// Answers each read as a Redis with or without a password does to PING, piece by piece.
async fn redis(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &'static [&'static str]) {
    let mut request = [0; 64];
    while let Ok(read @ 1..) = stream.read(&mut request).await {
        assert_eq!(&request[..read], b"PING\r\n");
        for piece in answer {
            if stream.write_all(piece.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn answering(answer: &'static [&'static str]) -> SocketAddr {
    server(move |stream| redis(stream, answer)).await.0
}

#[tokio::test]
async fn the_answer_must_contain_what_is_expected() {
    let ping = || check("PING\r\n", "+PONG");
    assert_eq!(outcome(ping(), PATIENT, answering(&["+PONG\r\n"]).await).await, good(EXPECTED));
    assert_eq!(outcome(ping(), PATIENT, answering(&["+", "PO", "NG\r\n"]).await).await, good(EXPECTED));
    // A server that goes on without the text is given up at the end of the time.
    assert_eq!(
        outcome(ping(), HASTY, answering(&["-NOAUTH Authentication required.\r\n"]).await).await,
        bad("answer does not contain \"+PONG\" (got \"-NOAUTH Authentication required.\")")
    );
}

#[tokio::test]
async fn over_tls_it_is_the_same() {
    let kind = CheckKind::Exchange(ExchangeCheck {
        tls: Some(TlsCheck::default()),
        send: (*b"PING\r\n").into(),
        expect: (*b"+PONG").into(),
    });
    let address = tls_server(self_signed(30).into(), |stream| redis(stream, &["+PONG\r\n"])).await;
    assert_eq!(outcome(kind.clone(), PATIENT, address).await, good(EXPECTED));
    let plain = answering(&["+PONG\r\n"]).await;
    // The handshake is no PING, so the server ends.
    assert_eq!(outcome(kind, PATIENT, plain).await.0, trestle_dataplane::Verdict::Unhealthy);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_listened_to() {
    let (address, _) = server(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        let _ = stream.read(&mut [0; 8]).await;
    })
    .await;
    assert_eq!(outcome(check("", "220 "), PATIENT, address).await, good(EXPECTED));
    assert_eq!(
        outcome(check("", "\0\r\n'\""), HASTY, address).await,
        bad("answer does not contain \"\\x00\\r\\n\\'\\\"\" (got \"220 mail.example ESMTP\")")
    );
}

#[tokio::test]
async fn what_ends_too_soon_is_told_apart() {
    let ping = || check("PING\r\n", "+PONG");
    let (closing, _) = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 64]).await;
    })
    .await;
    assert_eq!(
        outcome(ping(), PATIENT, closing).await,
        bad("connection closed without an answer, wanted \"+PONG\"")
    );
    let (resetting, _) = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 2]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(
        outcome(ping(), PATIENT, resetting).await,
        bad("connection reset without an answer, wanted \"+PONG\"")
    );
    let (cut, _) = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 64]).await;
        let _ = stream.write_all(&[b'x'; 100]).await;
    })
    .await;
    let got = "x".repeat(64);
    assert_eq!(
        outcome(ping(), PATIENT, cut).await,
        bad(&format!("answer does not contain \"+PONG\" (got \"{got}...\")"))
    );
}

#[tokio::test]
async fn a_silent_server_times_out_and_nothing_is_left() {
    let (hanging, open) = server(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut plane = Plane::start();
    plane.pool("p", checked_by(check("PING\r\n", "+PONG"), HASTY), &[("a", at(hanging))]).await;
    until("three checks", || plane.backend_counts("p", "a").checks_failed >= 3).await;
    assert_eq!(plane.verdict("p", "a"), bad("no answer after 200ms, wanted \"+PONG\""));
    let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    until("every connection is closed", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn an_endless_answer_is_read_up_to_64_kib() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let (address, _) = server(move |mut stream| {
        let counted = counted.clone();
        async move {
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {
                counted.fetch_add(1024, Ordering::SeqCst);
            }
        }
    })
    .await;
    let got = "x".repeat(64);
    assert_eq!(
        outcome(check("", "y"), PATIENT, address).await,
        bad(&format!("answer does not contain \"y\" (got \"{got}...\")"))
    );
    assert!(sent.load(Ordering::SeqCst) >= 64 * 1024);
}
