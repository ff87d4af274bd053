//! Servers that tests of checks are about, certificates for them, and what checks say of them.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trestle_dataplane::Verdict;
use trestle_model::{CheckKind, HttpCheck, PoolSpec, TlsCheck};

use crate::harness::*;

/// Long enough for any check that does not hang, on a machine however busy.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);

/// For checks that shall not end by themselves.
pub(crate) const HASTY: Duration = Duration::from_millis(200);

/// What the first check says of the backend at `address`.
pub(crate) async fn outcome(kind: CheckKind, timeout: Duration, address: SocketAddr) -> (Verdict, String) {
    let mut plane = Plane::start();
    plane.pool("p", checked_by(kind, timeout), &[("a", at(address))]).await;
    until("a verdict", || plane.verdict("p", "a").0 != Verdict::Unknown).await;
    plane.verdict("p", "a")
}

/// A pool with such a check, done often.
pub(crate) fn checked_by(kind: CheckKind, timeout: Duration) -> PoolSpec {
    let mut spec = checked();
    (spec.health.kind, spec.health.timeout) = (kind, timeout);
    spec
}

pub(crate) fn good(reason: &str) -> (Verdict, String) {
    (Verdict::Healthy, reason.to_owned())
}

pub(crate) fn bad(reason: &str) -> (Verdict, String) {
    (Verdict::Unhealthy, reason.to_owned())
}

pub(crate) fn over_tls(tls: TlsCheck) -> HttpCheck {
    HttpCheck { tls: Some(tls), ..HttpCheck::default() }
}

/// Does `serve` with each connection; counts those that are open.
pub(crate) async fn server<F>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    server_at(ip(), serve).await
}

async fn server_at<F>(
    ip: IpAddr,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let socket = TcpListener::bind((ip, 0)).await.unwrap();
    let (address, open) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = open.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let open = counted.clone();
            open.fetch_add(1, Ordering::SeqCst);
            let served = serve(stream);
            tokio::spawn(async move {
                served.await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

/// Does `serve` with each connection after the handshake.
pub(crate) async fn tls_server<F>(
    config: Arc<ServerConfig>,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    tls_server_at(ip(), config, serve).await
}

/// The same at an address that the certificate is for.
pub(crate) async fn tls_server_at<F>(
    ip: IpAddr,
    config: Arc<ServerConfig>,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let (address, _) = server_at(ip, move |stream| {
        let (accepting, serve) = (TlsAcceptor::from(config.clone()).accept(stream), serve.clone());
        async move {
            // Fails where the check refuses the certificate.
            if let Ok(stream) = accepting.await {
                serve(stream).await;
            }
        }
    })
    .await;
    address
}

/// When a certificate expires, in days from now; an hour more, so that the test may take its time.
fn in_days(days: i64) -> SystemTime {
    let hour = Duration::from_secs(3600);
    let span = Duration::from_secs(days.unsigned_abs() * 86_400);
    if days < 0 { SystemTime::now() - span - hour } else { SystemTime::now() + span + hour }
}

/// Somebody who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    /// Its own certificate.
    pub(crate) pem: Arc<str>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = certificate.pem().into();
        Self { issuer: Issuer::new(params, key), certificate, pem }
    }

    /// A certificate and its key, in PEM form, for somebody of this name.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(&[name], 30).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server that shows the certificate of the CA itself.
    pub(crate) fn as_server(&self) -> ServerConfig {
        config(self.certificate.clone(), self.issuer.key())
    }

    /// A server with a certificate for `names` (host names or addresses) that expires in so many days.
    pub(crate) fn server(&self, names: &[&str], days: i64) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, days).signed_by(&key, &self.issuer).unwrap();
        config(certificate, &key)
    }
}

/// A server that signed its own certificate.
pub(crate) fn self_signed(days: i64) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    config(params(&["self.example"], days).self_signed(&key).unwrap(), &key)
}

fn params(names: &[&str], days: i64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = in_days(days).into();
    params
}

fn config(certificate: rcgen::Certificate, key: &KeyPair) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap()
}
