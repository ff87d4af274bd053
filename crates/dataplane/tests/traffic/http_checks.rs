//! HTTP and HTTPS checks against servers good and bad.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use trestle_model::{CheckKind, HttpCheck, Method, StatusRange, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};

/// Reads the head of a request.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads a request, says `answer` and closes.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    head(&mut stream).await;
    // The check may have read all that it wants to.
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// A server that always says this.
async fn saying(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer: Arc<[u8]> = answer.into().into();
    let (address, _) = server(move |stream| {
        let answer = answer.clone();
        async move { say(stream, &answer).await }
    })
    .await;
    address
}

async fn asked(check: HttpCheck, address: SocketAddr) -> (trestle_dataplane::Verdict, String) {
    outcome(CheckKind::Http(check), PATIENT, address).await
}

fn looking_for(text: &str) -> HttpCheck {
    HttpCheck { body_contains: Some(text.into()), ..HttpCheck::default() }
}

#[tokio::test]
async fn the_status_decides() {
    let usual = HttpCheck::default;
    let ok = saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(asked(usual(), ok).await, good("HTTP 200"));
    let old = saying("HTTP/1.0 204 Fine\r\n\r\n").await;
    assert_eq!(asked(usual(), old).await, good("HTTP 204"));
    let down = saying("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(asked(usual(), down).await, bad("HTTP 503, wanted 200-299"));
    let expect = ["200-299", "503"].map(|range| StatusRange::parse(range).unwrap()).to_vec();
    assert_eq!(asked(HttpCheck { expect: expect.clone(), ..usual() }, down).await, good("HTTP 503"));
    let moved = saying("HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(asked(HttpCheck { expect, ..usual() }, moved).await, bad("HTTP 301, wanted 200-299, 503"));
    let informed = saying("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(asked(usual(), informed).await, good("HTTP 200"));
}

#[tokio::test]
async fn the_request_is_as_configured() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let (address, _) = server(move |mut stream| {
        let heads = heads.clone();
        async move {
            let _ = heads.send(head(&mut stream).await);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    })
    .await;
    assert_eq!(asked(HttpCheck::default(), address).await, good("HTTP 200"));
    let usual = soon("a request", seen.recv()).await.unwrap().to_ascii_lowercase();
    assert!(usual.starts_with("get / http/1.1\r\n"), "{usual}");
    for field in [&*format!("host: {address}"), "connection: close", "user-agent: trestle-check"] {
        assert_eq!(usual.matches(&format!("\r\n{field}\r\n")).count(), 1, "{field:?} in {usual}");
    }
    let special = HttpCheck {
        method: Method::Options,
        path: "/readyz?verbose".into(),
        host: Some("api.example".into()),
        headers: vec![("X-A".into(), "1".into()), ("User-Agent".into(), "probe".into())],
        ..HttpCheck::default()
    };
    while seen.try_recv().is_ok() {}
    assert_eq!(asked(special, address).await, good("HTTP 200"));
    let mut special = soon("a request", seen.recv()).await.unwrap();
    while special.starts_with("GET") {
        special = soon("another request", seen.recv()).await.unwrap();
    }
    let special = special.to_ascii_lowercase();
    assert!(special.starts_with("options /readyz?verbose http/1.1\r\n"), "{special}");
    for field in ["host: api.example", "x-a: 1", "user-agent: probe", "connection: close"] {
        assert_eq!(special.matches(&format!("\r\n{field}\r\n")).count(), 1, "{field:?} in {special}");
    }
    assert_eq!(special.matches("\r\nhost:").count() + special.matches("\r\nuser-agent:").count(), 2);
}

#[tokio::test]
async fn the_body_is_searched_as_far_as_it_should_be() {
    let body = saying("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall ready").await;
    assert_eq!(asked(looking_for("ready"), body).await, good("HTTP 200"));
    assert_eq!(asked(looking_for("primary"), body).await, bad("HTTP 200, body does not contain \"primary\""));
    let chunks =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nx re\r\n2\r\nad\r\n3\r\ny x\r\n0\r\n\r\n";
    let chunked = saying(chunks).await;
    assert_eq!(asked(looking_for("ready"), chunked).await, good("HTTP 200"));
    for (before, found) in [(65_536 - 5, true), (65_536 - 4, false)] {
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}ready{}", "x".repeat(before), "x".repeat(300_000));
        let long = saying(long).await;
        let wanted = if found { good("HTTP 200") } else { bad("HTTP 200, body does not contain \"ready\"") };
        assert_eq!(asked(looking_for("ready"), long).await, wanted, "after {before} bytes");
    }
    let cut = saying("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all").await;
    assert_eq!(
        asked(looking_for("ready"), cut).await,
        bad("HTTP: connection closed before the answer was complete")
    );
    let head = HttpCheck { method: Method::Head, ..HttpCheck::default() };
    assert_eq!(asked(head, cut).await, good("HTTP 200"));
}

#[tokio::test]
async fn https_is_http_over_verified_tls() {
    let (ca, other) = (Authority::new("ours"), Authority::new("other"));
    let mut config = ca.server(&["a.example"], 30);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let address = tls_server(config.into(), |stream| async move {
        let chosen = stream.get_ref().1.alpn_protocol() == Some(b"http/1.1");
        let status = if chosen { "200 OK" } else { "400 Wrong protocol" };
        say(stream, format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nready").as_bytes()).await;
    })
    .await;
    let tls = |ca: &Authority| TlsCheck {
        ca: Some(ca.pem.clone()),
        server_name: Some("a.example".into()),
        ..TlsCheck::default()
    };
    let check = HttpCheck { body_contains: Some("ready".into()), ..over_tls(tls(&ca)) };
    assert_eq!(asked(check, address).await, good("HTTP 200"));
    assert_eq!(
        asked(over_tls(tls(&other)), address).await,
        bad("TLS: certificate is not signed by the CA given")
    );
    let soon_over = TlsCheck { min_days_left: 60, ..TlsCheck::default() };
    assert_eq!(
        asked(over_tls(soon_over), address).await,
        bad("TLS: certificate expires in 30 days, wanted 60")
    );
}

#[tokio::test]
async fn http_and_https_are_not_mistaken_for_one_another() {
    let plain = saying("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let (eager, _) = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(asked(HttpCheck::default(), plain).await, bad("HTTP 400, wanted 200-299"));
    assert_eq!(asked(over_tls(TlsCheck::default()), eager).await, bad("TLS: the answer is not TLS"));
    let secure = tls_server(self_signed(30).into(), |_| async {}).await;
    assert_eq!(asked(HttpCheck::default(), secure).await, bad("HTTP: the answer is not HTTP/1"));
}

#[tokio::test]
async fn an_answer_that_is_none_is_refused() {
    let garbage = saying("SSH-2.0-OpenSSH_9.2p1 Debian\r\n").await;
    assert_eq!(asked(HttpCheck::default(), garbage).await, bad("HTTP: the answer is not HTTP/1"));
    let nothing = saying("").await;
    assert_eq!(
        asked(HttpCheck::default(), nothing).await,
        bad("HTTP: connection closed before the answer was complete")
    );
    let half = saying("HTTP/1.1 200 OK\r\ncontent-le").await;
    assert_eq!(
        asked(HttpCheck::default(), half).await,
        bad("HTTP: connection closed before the answer was complete")
    );
    let (resetting, _) = server(|mut stream| async move {
        head(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(asked(HttpCheck::default(), resetting).await, bad("HTTP: connection reset"));
    let wrong = saying("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").await;
    assert_eq!(asked(HttpCheck::default(), wrong).await, bad("HTTP: the answer is not HTTP/1"));
}

/// A server that says `first`, then `again` without end, as fast as it is read or with a pause in between.
async fn endless(first: &'static str, again: &'static str, pause: Option<Duration>) -> SocketAddr {
    let (address, _) = server(move |mut stream| async move {
        head(&mut stream).await;
        let mut next = first;
        while stream.write_all(next.as_bytes()).await.is_ok() {
            next = again;
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    })
    .await;
    address
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let large = bad("HTTP: head of the answer has over 16 KiB or 100 fields");
    let field = endless("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyyyyyyyyyy", None).await;
    assert_eq!(asked(HttpCheck::default(), field).await, large);
    let fields = endless("HTTP/1.1 200 OK\r\n", "x: y\r\n", None).await;
    assert_eq!(asked(HttpCheck::default(), fields).await, large);
    for (length, wanted) in [(15_000, good("HTTP 200")), (20_000, large)] {
        let address = saying(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(length))).await;
        assert_eq!(asked(HttpCheck::default(), address).await, wanted, "{length} bytes");
    }
}

#[tokio::test]
async fn an_answer_without_end_times_out() {
    let pause = Some(Duration::from_millis(20));
    let late = bad("HTTP: timed out after 200ms");
    let drip = endless("HTTP/1.1 200 OK\r\nx: ", "y", pause).await;
    assert_eq!(outcome(CheckKind::Http(HttpCheck::default()), HASTY, drip).await, late);
    let hints = endless("HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n", None).await;
    let many = bad("HTTP: sent more than 8 interim answers (1xx)");
    assert_eq!(asked(HttpCheck::default(), hints).await, many);
    for (count, wanted) in [(8, good("HTTP 200")), (9, many)] {
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
        let address = saying(format!("{hints}HTTP/1.1 200 OK\r\n\r\n")).await;
        assert_eq!(asked(HttpCheck::default(), address).await, wanted, "{count} interim answers");
    }
    let body = endless("HTTP/1.1 200 OK\r\n\r\n", "y", pause).await;
    assert_eq!(outcome(CheckKind::Http(looking_for("ready")), HASTY, body).await, late);
    // Nobody looks at that body.
    assert_eq!(asked(HttpCheck::default(), body).await, good("HTTP 200"));
}

#[tokio::test]
async fn an_answer_without_end_costs_its_bytes_and_no_more() {
    // Of each six bytes only one is searched, so what is read ends before what is searched.
    let chunks = endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n", None).await;
    let overrun = bad("sent more than the 256 KiB that a check reads");
    assert_eq!(asked(looking_for("ready"), chunks).await, overrun);
}

#[tokio::test]
async fn a_server_that_hangs_times_out_and_nothing_is_left() {
    let (hanging, open) = server(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut plane = Plane::start();
    let spec = checked_by(CheckKind::Http(HttpCheck::default()), HASTY);
    plane.pool("p", spec, &[("a", at(hanging))]).await;
    until("five checks", || plane.backend_counts("p", "a").checks_failed >= 5).await;
    assert_eq!(plane.verdict("p", "a"), bad("HTTP: timed out after 200ms"));
    let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    until("every connection is closed", || open.load(Ordering::SeqCst) == 0).await;
}

/// Counts connections that the check ended other than by an end.
fn counting_resets(
    answer: &'static [u8],
    read_first: bool,
) -> impl Future<Output = (SocketAddr, Arc<AtomicUsize>)> {
    let resets = Arc::new(AtomicUsize::new(0));
    async move {
        let counted = resets.clone();
        let (address, _) = server(move |mut stream| {
            let counted = counted.clone();
            async move {
                if read_first {
                    head(&mut stream).await;
                }
                for piece in answer.chunks(700) {
                    if stream.write_all(piece).await.is_err() {
                        counted.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = stream.shutdown().await;
                if stream.read_to_end(&mut Vec::new()).await.is_err() {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .await;
        (address, resets)
    }
}

#[tokio::test]
async fn an_answer_is_read_to_its_end_and_the_connection_not_reset() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec();
    answer.resize(answer.len() + 100_000, b'x');
    let (address, resets) = counting_resets(answer.leak(), true).await;
    let mut plane = Plane::start();
    plane.pool("p", checked_by(CheckKind::Http(HttpCheck::default()), PATIENT), &[("a", at(address))]).await;
    until("20 checks", || plane.backend_counts("p", "a").checks_ok >= 20).await;
    assert_eq!(plane.verdict("p", "a"), good("HTTP 200"));
    assert_eq!(resets.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_counts() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nsynced.\n";
    for close in [false, true] {
        let (address, _) = server(move |mut stream| async move {
            let _ = stream.write_all(answer).await;
            if !close {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let mut plane = Plane::start();
        let check = HttpCheck { body_contains: Some("synced".into()), ..HttpCheck::default() };
        plane.pool("p", checked_by(CheckKind::Http(check), PATIENT), &[("a", at(address))]).await;
        until("20 checks", || plane.backend_counts("p", "a").checks_ok >= 20).await;
        assert_eq!(plane.backend_counts("p", "a").checks_failed, 0, "the server closes: {close}");
    }
}
