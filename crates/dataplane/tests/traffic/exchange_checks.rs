//! Send/expect checks against servers good and bad.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use trestle_dataplane::Verdict;
use trestle_model::{CheckKind, ExchangeCheck, ExchangeStep, SendProxy, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};

const EXPECTED: &str = "answer as expected";

fn check(send: &str, expect: &str) -> CheckKind {
    CheckKind::Exchange(ExchangeCheck {
        tls: None,
        send: send.as_bytes().into(),
        expect: expect.as_bytes().into(),
        then: Vec::new(),
    })
}

fn steps(steps: &[(&str, &str)]) -> CheckKind {
    let step = |(send, expect): &(&str, &str)| ExchangeStep {
        send: send.as_bytes().into(),
        expect: expect.as_bytes().into(),
    };
    let mut steps = steps.iter().map(step);
    let ExchangeStep { send, expect } = steps.next().unwrap();
    CheckKind::Exchange(ExchangeCheck { tls: None, send, expect, then: steps.collect() })
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
        bad("answer does not contain \"+PONG\" (34 bytes came)")
    );
}

#[tokio::test]
async fn over_tls_it_is_the_same() {
    let kind = CheckKind::Exchange(ExchangeCheck {
        tls: Some(TlsCheck::default()),
        send: (*b"PING\r\n").into(),
        expect: (*b"+PONG").into(),
        then: Vec::new(),
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
        bad("answer does not contain \"\\x00\\r\\n\\'\\\"\" (24 bytes came)")
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
    assert_eq!(
        outcome(ping(), PATIENT, cut).await,
        bad("answer does not contain \"+PONG\" (100 bytes came)")
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
    assert_eq!(
        outcome(check("", "y"), PATIENT, address).await,
        bad("answer does not contain \"y\" (65536 bytes came)")
    );
    assert!(sent.load(Ordering::SeqCst) >= 64 * 1024);
}

#[tokio::test]
async fn what_tls_adds_counts_too() {
    // A record of one byte has 22 more, so what is read ends before what is searched.
    let address = tls_server(self_signed(30).into(), |mut stream| async move {
        while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {}
    })
    .await;
    let kind = CheckKind::Exchange(ExchangeCheck {
        tls: Some(TlsCheck::default()),
        send: (*b"").into(),
        expect: (*b"y").into(),
        then: Vec::new(),
    });
    assert_eq!(outcome(kind, PATIENT, address).await, bad("sent more than the 256 KiB that a check reads"));
}

/// A mail server that counts clients that spoke before its greeting, and those that left without a word or by a reset.
async fn mail(mut stream: tokio::net::TcpStream, early: Arc<AtomicUsize>, rude: Arc<AtomicUsize>) {
    tokio::time::sleep(Duration::from_millis(20)).await;
    if stream.try_read(&mut [0; 1]).is_ok() {
        early.fetch_add(1, Ordering::SeqCst);
    }
    let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    let mut said = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut said).await {
        if said == b"QUIT\r\n" {
            let _ = stream.write_all(b"221 2.0.0 Bye\r\n").await;
            break;
        }
    }
    // After its last word only an end may come.
    if said != b"QUIT\r\n" || !matches!(stream.read(&mut [0; 1]).await, Ok(0)) {
        rude.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn steps_take_turns_and_a_server_that_speaks_first_is_let_speak() {
    for kind in [steps(&[("", "220 "), ("QUIT\r\n", "221 ")]), check("QUIT\r\n", "221 ")] {
        let (early, rude) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = (early.clone(), rude.clone());
        let (address, open) = server(move |stream| mail(stream, counted.0.clone(), counted.1.clone())).await;
        let mut plane = Plane::start();
        plane.pool("p", checked_by(kind, PATIENT), &[("a", at(address))]).await;
        plane.until_verdict("p", "a", Verdict::Healthy).await;
        until("ten checks", || plane.backend_counts("p", "a").checks_ok >= 10).await;
        let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
        plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
        until("every connection is closed", || open.load(Ordering::SeqCst) == 0).await;
        // The check that was given up may have been cut off.
        assert_eq!(early.load(Ordering::SeqCst), 0);
        assert!(rude.load(Ordering::SeqCst) <= 1, "{rude:?}");
    }
}

#[tokio::test]
async fn each_step_looks_at_what_comes_after_the_one_before() {
    let (address, _) = server(|mut stream| async move {
        let _ = stream.write_all(b"+OK ready +OK done\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(outcome(steps(&[("", "+OK"), ("", "+OK")]), PATIENT, address).await, good(EXPECTED));
    assert_eq!(
        outcome(steps(&[("", "+OK"), ("", "+OK"), ("", "+OK")]), HASTY, address).await,
        bad("answer does not contain \"+OK\" (7 bytes came)")
    );
}

#[tokio::test]
async fn a_header_of_version_1_names_the_checks_own_addresses() {
    let (address, _) = server(|mut stream| async move {
        let expected = format!(
            "PROXY TCP4 {} {} {} {}\r\n",
            stream.peer_addr().unwrap().ip(),
            stream.local_addr().unwrap().ip(),
            stream.peer_addr().unwrap().port(),
            stream.local_addr().unwrap().port(),
        );
        let mut said = vec![0; expected.len()];
        if stream.read_exact(&mut said).await.is_ok() && said == expected.as_bytes() {
            let _ = stream.write_all(b"220 \r\n").await;
        }
        let _ = stream.read_to_end(&mut said).await;
    })
    .await;
    let mut plane = Plane::start();
    let mut spec = checked_by(check("", "220 "), PATIENT);
    spec.send_proxy = SendProxy::V1;
    plane.pool("p", spec, &[("a", at(address))]).await;
    until("a verdict", || plane.verdict("p", "a").0 != Verdict::Unknown).await;
    assert_eq!(plane.verdict("p", "a"), good(EXPECTED));
}
