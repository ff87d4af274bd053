//! Checks that show a client's certificate, against OpenSSL and nginx.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trestle_dataplane::{DataPlaneSettings, Verdict};
use trestle_model::{CheckKind, ClientIdentity, GrpcCheck, HttpCheck, TlsCheck};

use crate::checking::*;
use crate::harness::*;
use crate::tls_checks::OpenSsl;

const DONE: &str = "TLS handshake done";

/// Somebody's certificate and key, in files.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new(ca: &Authority) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.write(ca.sign("checker.example"));
        files
    }

    fn write(&self, (certificate, key): (String, String)) {
        std::fs::write(self.path("cert.pem"), certificate).unwrap();
        std::fs::write(self.path("key.pem"), key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tls(&self) -> TlsCheck {
        let path = |name| self.path(name).to_str().unwrap().into();
        let identity = ClientIdentity { certificate_file: path("cert.pem"), key_file: path("key.pem") };
        TlsCheck { identity: Some(identity), ..TlsCheck::default() }
    }
}

#[tokio::test]
async fn openssl_demands_our_certificate_and_takes_it() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &*ours.pem).unwrap();
    let ca = ca.to_str().unwrap();
    let (files, stranger) = (Files::new(&ours), Files::new(&other));
    for version in ["-tls1_2", "-tls1_3"] {
        let address = free();
        let demands =
            [version, "-alpn", "h2,http/1.1", "-Verify", "1", "-verify_return_error", "-CAfile", ca];
        let _server = OpenSsl::start(address, &demands).await;
        assert_eq!(outcome(CheckKind::Tls(files.tls()), PATIENT, address).await, good(DONE), "{version}");
        // With TLS 1.3 a check of HTTP is told only after it has asked.
        for kind in [
            CheckKind::Tls(stranger.tls()),
            CheckKind::Http(over_tls(stranger.tls())),
            CheckKind::Grpc(GrpcCheck { tls: Some(stranger.tls()), ..GrpcCheck::default() }),
        ] {
            assert_eq!(
                outcome(kind.clone(), PATIENT, address).await,
                bad("TLS: the backend refused the handshake (unknown CA)"),
                "{version}, {kind:?}"
            );
        }
    }
}

/// nginx that is ended with the test.
pub(crate) struct Nginx {
    process: Child,
    _dir: TempDir,
}

impl Nginx {
    /// Answers only those who have a certificate from this CA.
    async fn start(address: SocketAddr, ca: &Authority) -> Self {
        let (certificate, key) = ca.sign("a.example");
        let server = format!(
            "server {{\nlisten {address} ssl;\nssl_certificate cert.pem;\nssl_certificate_key key.pem;\n\
             ssl_client_certificate ca.pem;\nssl_verify_client on;\nlocation / {{ return 200 ok; }}\n}}\n"
        );
        let files = [("cert.pem", &*certificate), ("key.pem", &key), ("ca.pem", &ca.pem)];
        Self::serving(address, &server, &files).await
    }

    /// nginx with these servers, which listen at `address`, and these files.
    pub(crate) async fn serving(address: SocketAddr, servers: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n{servers}}}\n"
        );
        for (name, content) in files.iter().chain([&("nginx.conf", &*configuration)]) {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let process = nginx.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let nginx = Self { process, _dir: dir };
        until("nginx listens", || std::net::TcpStream::connect(address).is_ok()).await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn nginx_answers_who_shows_a_certificate() {
    let ca = Authority::new("ours");
    let address = free();
    let _nginx = Nginx::start(address, &ca).await;
    let files = Files::new(&ca);
    let with = |tls| CheckKind::Http(HttpCheck { tls: Some(tls), ..HttpCheck::default() });
    assert_eq!(outcome(with(files.tls()), PATIENT, address).await, good("HTTP 200"));
    assert_eq!(outcome(with(TlsCheck::default()), PATIENT, address).await, bad("HTTP 400, wanted 200-299"));
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let address = free();
    let _nginx = Nginx::start(address, &new).await;
    let files = Files::new(&old);
    let check = CheckKind::Http(HttpCheck { tls: Some(files.tls()), ..HttpCheck::default() });
    let mut plane = Plane::start();
    plane.pool("p", checked_by(check, PATIENT), &[("a", at(address))]).await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    files.write(new.sign("checker.example"));
    plane.until_verdict("p", "a", Verdict::Healthy).await;
    std::fs::remove_file(files.path("key.pem")).unwrap();
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    files.write(new.sign("checker.example"));
    plane.until_verdict("p", "a", Verdict::Healthy).await;
}

#[tokio::test]
async fn files_that_are_no_use_say_why_and_not_what_is_in_them() {
    let ca = Authority::new("ours");
    let address = free();
    let _server = OpenSsl::start(address, &["-tls1_3", "-Verify", "1"]).await;
    let files = Files::new(&ca);
    let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
    let (c, k) = (certificate.display(), key.display());
    let said = || outcome(CheckKind::Tls(files.tls()), PATIENT, address);
    let (good_certificate, good_key) = ca.sign("checker.example");

    files.write((good_certificate.clone(), ca.sign("other.example").1));
    assert_eq!(said().await, bad(&format!("TLS: client key {k}: is not the key of {c}")));
    files.write((good_key.clone(), good_key.clone()));
    assert_eq!(said().await, bad(&format!("TLS: client certificate {c}: holds no certificate in PEM form")));
    files.write((good_certificate.clone(), "secret".to_owned()));
    assert_eq!(
        said().await,
        bad(&format!("TLS: client key {k}: holds no private key in PEM form without a passphrase"))
    );
    let empty = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    files.write((empty.to_owned(), good_key.clone()));
    assert_eq!(said().await, bad(&format!("TLS: client certificate {c}: certificate cannot be read")));
    files.write((good_certificate.clone(), "x".repeat(300_000)));
    assert_eq!(said().await, bad(&format!("TLS: client key {k}: has over 262144 bytes")));
    std::fs::remove_file(&key).unwrap();
    assert_eq!(said().await, bad(&format!("TLS: client key {k}: no such file")));
    std::fs::create_dir(&key).unwrap();
    assert_eq!(said().await, bad(&format!("TLS: client key {k}: not a file")));
    std::fs::remove_file(&certificate).unwrap();
    assert_eq!(said().await, bad(&format!("TLS: client certificate {c}: no such file")));
}

/// A server that answers 204 to requests with this Authorization field, and 401 to others.
async fn guarded(field: &'static str) -> SocketAddr {
    let (address, _) = server(move |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut head).await, Ok(1..)) {}
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = if head.contains(&format!("authorization: {field}\r\n")) { "204 Yes" } else { "401 No" };
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
    })
    .await;
    address
}

#[tokio::test]
async fn a_token_comes_from_a_file_that_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let asks = || {
        let token_file = Some(file.to_str().unwrap().into());
        CheckKind::Http(HttpCheck { token_file, ..HttpCheck::default() })
    };
    let missing = format!("HTTP: token {}: no such file", file.display());
    assert_eq!(outcome(asks(), PATIENT, guarded("bearer abc").await).await, bad(&missing));
    for (content, field) in [("abc\n", "bearer abc"), ("Basic dXNlcg==", "basic dxnlcg==")] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(outcome(asks(), PATIENT, guarded(field).await).await, good("HTTP 204"), "{content:?}");
    }
    std::fs::write(&file, "two\nlines").unwrap();
    let (verdict, reason) = outcome(asks(), PATIENT, guarded("bearer two").await).await;
    assert_eq!(verdict, Verdict::Unhealthy);
    assert!(reason.contains("one line of printable ASCII") && !reason.contains("two"), "{reason}");

    std::fs::write(&file, "old").unwrap();
    let mut plane = Plane::start();
    plane.pool("p", checked_by(asks(), PATIENT), &[("a", at(guarded("bearer new").await))]).await;
    plane.until_verdict("p", "a", Verdict::Unhealthy).await;
    std::fs::write(&file, "new").unwrap();
    plane.until_verdict("p", "a", Verdict::Healthy).await;
}

#[tokio::test]
async fn files_elsewhere_than_in_the_directory_of_checks_are_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::with(DataPlaneSettings { check_directory: dir.path().into(), ..settings() });
    let outside = ["/etc/hostname", "/nowhere", &format!("{}/../x", dir.path().display())];
    for (number, path) in outside.into_iter().enumerate() {
        let check = HttpCheck { token_file: Some(path.into()), ..HttpCheck::default() };
        let pool = format!("p{number}");
        plane.pool(&pool, checked_by(CheckKind::Http(check), PATIENT), &[("a", at(guarded("").await))]).await;
        until("a verdict", || plane.verdict(&pool, "a").0 != Verdict::Unknown).await;
        let directory = dir.path().display();
        let reason = format!(
            "HTTP: token {path}: is not below {directory}, the check_directory of this member's configuration"
        );
        assert_eq!(plane.verdict(&pool, "a"), bad(&reason));
    }
}
