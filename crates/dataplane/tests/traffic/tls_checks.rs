//! TLS checks against servers good and bad.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use trestle_dataplane::Verdict;
use trestle_model::{CheckKind, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::patch::{HealthPatch, PoolPatch};

const DONE: &str = "TLS handshake done";

fn trusting(ca: &Arc<str>, name: Option<&str>) -> CheckKind {
    CheckKind::Tls(TlsCheck {
        ca: Some(ca.clone()),
        server_name: name.map(Into::into),
        ..TlsCheck::default()
    })
}

fn at_least(min_days_left: u32) -> CheckKind {
    CheckKind::Tls(TlsCheck { min_days_left, ..TlsCheck::default() })
}

async fn until_closed(mut stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let _ = stream.read(&mut [0; 8]).await;
}

#[tokio::test]
async fn without_a_ca_any_certificate_will_do() {
    let address = tls_server(self_signed(30).into(), until_closed).await;
    assert_eq!(outcome(CheckKind::Tls(TlsCheck::default()), PATIENT, address).await, good(DONE));
}

#[tokio::test]
async fn a_ca_is_believed_and_nobody_else() {
    let (ours, other, namesake) = (Authority::new("ours"), Authority::new("other"), Authority::new("ours"));
    let address = tls_server(ours.server(&["a.example"], 30).into(), until_closed).await;
    let named = Some("a.example");
    assert_eq!(outcome(trusting(&ours.pem, named), PATIENT, address).await, good(DONE));
    for stranger in [&other, &namesake] {
        assert_eq!(
            outcome(trusting(&stranger.pem, named), PATIENT, address).await,
            bad("TLS: certificate is not signed by the CA given")
        );
    }
    let both: Arc<str> = format!("{}{}", other.pem, ours.pem).into();
    assert_eq!(outcome(trusting(&both, named), PATIENT, address).await, good(DONE));
    let none: Arc<str> = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into();
    assert_eq!(
        outcome(trusting(&none, named), PATIENT, address).await,
        bad("TLS: the CA given holds no usable certificate")
    );
}

#[tokio::test]
async fn a_ca_is_not_its_own_server() {
    let ca = Authority::new("ours");
    let address = tls_server(ca.as_server().into(), until_closed).await;
    assert_eq!(
        outcome(trusting(&ca.pem, None), PATIENT, address).await,
        bad("TLS: certificate is not fit for a server (a CA's own?)")
    );
}

#[tokio::test]
async fn a_verified_certificate_must_be_for_the_name_or_the_address() {
    let ca = Authority::new("ours");
    let named = tls_server(ca.server(&["a.example"], 30).into(), until_closed).await;
    assert_eq!(
        outcome(trusting(&ca.pem, Some("b.example")), PATIENT, named).await,
        bad("TLS: certificate is not for b.example")
    );
    assert_eq!(
        outcome(trusting(&ca.pem, None), PATIENT, named).await,
        bad(&format!("TLS: certificate is not for {}", named.ip()))
    );
    let ip = ip();
    let config = ca.server(&[&ip.to_string()], 30);
    let address = tls_server_at(ip, config.into(), until_closed).await;
    assert_eq!(outcome(trusting(&ca.pem, None), PATIENT, address).await, good(DONE));
}

#[tokio::test]
async fn the_server_name_is_sent_and_an_address_is_not() {
    let (names, mut seen) = mpsc::unbounded_channel();
    let address = tls_server(self_signed(30).into(), move |stream| {
        let _ = names.send(stream.get_ref().1.server_name().map(str::to_owned));
        until_closed(stream)
    })
    .await;
    for name in [None, Some("a.example")] {
        let check = TlsCheck { server_name: name.map(Into::into), ..TlsCheck::default() };
        assert_eq!(outcome(CheckKind::Tls(check), PATIENT, address).await, good(DONE));
        let mut last = soon("a handshake", seen.recv()).await.unwrap();
        while let Ok(later) = seen.try_recv() {
            last = later;
        }
        assert_eq!(last.as_deref(), name);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_where_somebody_looks() {
    let ca = Authority::new("ours");
    let expired = tls_server(ca.server(&["a.example"], -3).into(), until_closed).await;
    assert_eq!(
        outcome(trusting(&ca.pem, Some("a.example")), PATIENT, expired).await,
        bad("TLS: certificate expired 3 days ago")
    );
    assert_eq!(outcome(at_least(1), PATIENT, expired).await, bad("TLS: certificate expired 3 days ago"));
    assert_eq!(outcome(at_least(0), PATIENT, expired).await, good(DONE));
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_refused_in_time() {
    let address = tls_server(self_signed(3).into(), until_closed).await;
    assert_eq!(
        outcome(at_least(14), PATIENT, address).await,
        bad("TLS: certificate expires in 3 days, wanted 14")
    );
    assert_eq!(outcome(at_least(3), PATIENT, address).await, good(DONE));
}

#[tokio::test]
async fn a_server_without_tls_is_refused() {
    let check = || CheckKind::Tls(TlsCheck::default());
    let echo = Server::start("x").await;
    assert_eq!(outcome(check(), PATIENT, echo.address).await, bad("TLS: the answer is not TLS"));
    let (closing, _) = server(|mut stream| async move {
        // Reads first, for a close with unread bytes would be a reset.
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.shutdown().await;
    })
    .await;
    assert_eq!(outcome(check(), PATIENT, closing).await, bad("TLS: connection closed during the handshake"));
    let (resetting, _) = server(|mut stream| async move {
        // At once could be before the check knows that it is connected.
        let _ = stream.read(&mut [0; 8]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(outcome(check(), PATIENT, resetting).await, bad("TLS: connection reset during the handshake"));
}

#[tokio::test]
async fn a_server_that_hangs_times_out_and_nothing_is_left() {
    let (hanging, open) = server(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let mut plane = Plane::start();
    let spec = checked_by(CheckKind::Tls(TlsCheck::default()), HASTY);
    plane.pool("p", spec, &[("a", at(hanging))]).await;
    until("five checks", || plane.backend_counts("p", "a").checks_failed >= 5).await;
    assert_eq!(plane.verdict("p", "a"), bad("TLS: timed out after 200ms"));
    let health = HealthPatch { kind: Some(CheckKind::None), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    until("every connection is closed", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_server_that_answers_byte_by_byte_times_out() {
    let (dripping, _) = server(|mut stream| async move {
        // The beginning of a long handshake record.
        for byte in [0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xfb].into_iter().chain(std::iter::repeat(0)) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let check = CheckKind::Tls(TlsCheck::default());
    assert_eq!(outcome(check, HASTY, dripping).await, bad("TLS: timed out after 200ms"));
}

#[tokio::test]
async fn a_check_says_goodbye_and_lets_the_server_finish() {
    let (ends, mut seen) = mpsc::unbounded_channel();
    let address = tls_server(self_signed(30).into(), move |mut stream| {
        let ends = ends.clone();
        async move {
            let read = stream.read(&mut [0; 8]).await.map_err(|error| error.kind());
            // More than goodbye was said, so this fails where the check did not wait.
            let written = stream.write_all(b"late").await.map_err(|error| error.kind());
            let flushed = stream.flush().await.map_err(|error| error.kind());
            let _ = ends.send((read, written, flushed));
        }
    })
    .await;
    assert_eq!(outcome(CheckKind::Tls(TlsCheck::default()), PATIENT, address).await, good(DONE));
    let end = soon("the server sees the end", seen.recv()).await.unwrap();
    assert_eq!(end, (Ok(0), Ok(()), Ok(())));
}

#[tokio::test]
async fn a_server_that_ignores_goodbye_is_healthy() {
    let address = tls_server(self_signed(30).into(), |stream| async move {
        let (stream, _session) = stream.into_inner();
        // Notices a reset, but not a goodbye.
        until("the connection is reset", || stream.try_read(&mut [0; 64]).is_err_and(is_reset)).await;
    })
    .await;
    assert_eq!(outcome(CheckKind::Tls(TlsCheck::default()), PATIENT, address).await, good(DONE));
}

fn is_reset(error: std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionReset
}

#[tokio::test]
async fn other_settings_apply_at_once_and_keep_the_verdict() {
    let address = tls_server(self_signed(3).into(), until_closed).await;
    let mut plane = Plane::start();
    let mut spec = checked_by(at_least(0), PATIENT);
    spec.health.fall = 100;
    plane.pool("p", spec, &[("a", at(address))]).await;
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    let health = HealthPatch { kind: Some(at_least(14)), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    until("checks fail", || plane.backend_counts("p", "a").checks_failed >= 2).await;
    assert_eq!(plane.verdict("p", "a"), good(DONE));
    let health = HealthPatch { fall: Some(1), ..HealthPatch::default() };
    plane.update_pool("p", PoolPatch { health, ..PoolPatch::default() }).await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    assert_eq!(plane.verdict("p", "a"), bad("TLS: certificate expires in 3 days, wanted 14"));
}

/// `openssl s_server` with these arguments on a free port.
pub(crate) struct OpenSsl {
    process: std::process::Child,
    _dir: tempfile::TempDir,
}

impl OpenSsl {
    pub(crate) async fn start(address: std::net::SocketAddr, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        std::fs::write(dir.path().join("cert.pem"), pem).unwrap();
        std::fs::copy(dir.path().join("cert.pem"), dir.path().join("key.pem")).unwrap();
        Self::with(dir, address, arguments).await
    }

    /// With `cert.pem` and `key.pem` of the directory.
    async fn with(dir: tempfile::TempDir, address: std::net::SocketAddr, arguments: &[&str]) -> Self {
        let process = Command::new("openssl")
            .args(["s_server", "-quiet", "-cert", "cert.pem", "-key", "key.pem"])
            .args(["-accept", &address.to_string()])
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, _dir: dir };
        until("openssl listens", || std::net::TcpStream::connect(address).is_ok()).await;
        server
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn openssl_understands_us() {
    let check = || CheckKind::Tls(TlsCheck::default());
    for version in ["-tls1_2", "-tls1_3"] {
        let address = free();
        let _server = OpenSsl::start(address, &[version]).await;
        assert_eq!(outcome(check(), PATIENT, address).await, good(DONE), "{version}");
    }
    // With 1.3 a server refuses a client without a certificate only after the handshake, with 1.2 within it.
    let (refusing, later) = (free(), free());
    let _refusing = OpenSsl::start(refusing, &["-tls1_2", "-Verify", "1"]).await;
    let _later = OpenSsl::start(later, &["-tls1_3", "-Verify", "1"]).await;
    assert_eq!(outcome(check(), PATIENT, later).await, good(DONE));
    let refused = "TLS: the backend refused the handshake (handshake failure); if it wants one of these, this check \
                   lacks it: Ed448, X448, and key exchange by DHE or static RSA";
    assert_eq!(outcome(check(), PATIENT, refusing).await, bad(refused));
    let address = free();
    let _server = OpenSsl::start(address, &["-tls1_2", "-cipher", "AES128-SHA256"]).await;
    assert_eq!(outcome(check(), PATIENT, address).await, bad(refused));
}

/// Runs `openssl` in a directory.
fn openssl(dir: &std::path::Path, arguments: &str) {
    let run = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
}

/// A self-signed certificate with a key of this kind.
fn made(dir: &std::path::Path, key: &str) {
    let name = "-nodes -keyout key.pem -out cert.pem -subj /CN=a.example -days 30";
    openssl(dir, &format!("req -x509 -newkey {key} {name}"));
}

#[tokio::test]
async fn keys_that_openssl_takes_are_taken() {
    let kinds = [
        ("ec -pkeyopt ec_paramgen_curve:P-256", ""),
        ("ec -pkeyopt ec_paramgen_curve:P-384", ""),
        ("ec -pkeyopt ec_paramgen_curve:P-521", ""),
        ("ec -pkeyopt ec_paramgen_curve:P-521", "-tls1_2"),
        ("ed25519", ""),
        ("rsa:2048", ""),
        ("rsa-pss -pkeyopt rsa_keygen_bits:2048", ""),
        (
            "rsa-pss -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha384 -pkeyopt rsa_pss_keygen_mgf1_md:sha384 -pkeyopt rsa_pss_keygen_saltlen:48",
            "",
        ),
        ("rsa:2048", "-groups P-521"),
        ("rsa:2048", "-groups P-521 -tls1_2"),
    ];
    for (key, options) in kinds {
        let (dir, address) = (tempfile::tempdir().unwrap(), free());
        made(dir.path(), key);
        let options: Vec<&str> = options.split(' ').filter(|option| !option.is_empty()).collect();
        let _server = OpenSsl::with(dir, address, &options).await;
        let found = outcome(CheckKind::Tls(TlsCheck::default()), PATIENT, address).await;
        assert_eq!(found, good(DONE), "{key} {options:?}");
    }
}

#[tokio::test]
async fn what_this_check_lacks_is_said_to_be_lacking_here() {
    for (key, options) in [
        ("ed448", ""),
        ("rsa:2048", "-groups X448"),
        ("rsa:2048", "-tls1_2 -cipher AES256-SHA256"),
        ("rsa-pss -pkeyopt rsa_keygen_bits:2048", "-tls1_2"),
    ] {
        let (dir, address) = (tempfile::tempdir().unwrap(), free());
        made(dir.path(), key);
        let options: Vec<&str> = options.split(' ').filter(|option| !option.is_empty()).collect();
        let _server = OpenSsl::with(dir, address, &options).await;
        let (verdict, reason) = outcome(CheckKind::Tls(TlsCheck::default()), PATIENT, address).await;
        assert_eq!(verdict, Verdict::Unhealthy, "{key} {options:?}");
        assert!(reason.contains("this check lacks"), "{key} {options:?}: {reason}");
    }
}

#[tokio::test]
async fn certificates_signed_by_such_keys_are_verified() {
    let authorities = [
        ("ec -pkeyopt ec_paramgen_curve:P-521", "-sha256"),
        ("ec -pkeyopt ec_paramgen_curve:P-521", "-sha384"),
        ("ec -pkeyopt ec_paramgen_curve:P-521", "-sha512"),
        ("rsa-pss -pkeyopt rsa_keygen_bits:2048", "-sha256 -sigopt rsa_pss_saltlen:digest"),
    ];
    for (key, signing) in authorities {
        let (dir, address) = (tempfile::tempdir().unwrap(), free());
        made(dir.path(), key);
        let at = dir.path();
        std::fs::rename(at.join("cert.pem"), at.join("ca.pem")).unwrap();
        std::fs::rename(at.join("key.pem"), at.join("ca.key")).unwrap();
        std::fs::write(at.join("ext"), format!("subjectAltName=IP:{}", address.ip())).unwrap();
        openssl(
            at,
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=leaf",
        );
        let sign = "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out cert.pem";
        openssl(at, &format!("{sign} {signing}"));
        let ca: Arc<str> = std::fs::read_to_string(at.join("ca.pem")).unwrap().into();
        let _server = OpenSsl::with(dir, address, &[]).await;
        let trusting = |ca: Arc<str>| CheckKind::Tls(TlsCheck { ca: Some(ca), ..TlsCheck::default() });
        assert_eq!(outcome(trusting(ca), PATIENT, address).await, good(DONE), "{key} {signing}");
        let other = Authority::new("another").pem;
        assert_eq!(outcome(trusting(other), PATIENT, address).await.0, Verdict::Unhealthy, "{key} {signing}");
    }
}
