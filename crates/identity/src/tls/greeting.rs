//! A handshake as the calling side makes it: whose certificate is believed is judged by whoever calls, and the connection counts as made
//! when the other side has said something.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::ServerLeaf;
use super::{ALPN, Judge, no_tls12, provider, verify_signature};
use crate::verify::{CertificateRefusal, ShownChain};

/// Bytes of the first answer that are read to see whether there is one; the rest is read by whoever gets the connection.
const FIRST_READ: usize = 1024;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotGreeted {
    /// The other side is not believed.
    Disbelieved(CertificateRefusal),
    /// It has refused, with this alert.
    Alert(AlertDescription),
    /// It does not speak TLS.
    NotTls(String),
    /// The connection broke.
    Broken(String),
}

type Outcome<T> = Mutex<Option<Result<T, CertificateRefusal>>>;

struct ServerCheck<T> {
    judge: Judge<T>,
    provider: Arc<CryptoProvider>,
    outcome: Arc<Outcome<T>>,
}

impl<T> fmt::Debug for ServerCheck<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCheck")
    }
}

impl<T: Send> ServerCertVerifier for ServerCheck<T> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let others: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        let judged = (self.judge)(ShownChain { leaf: end_entity, others: &others });
        let answer = match &judged {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(_) => Err(CertificateError::UnknownIssuer.into()),
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(judged);
        answer
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn config<T: Send + 'static>(
    own: Option<&ServerLeaf>,
    judge: Judge<T>,
    outcome: Arc<Outcome<T>>,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let check = ServerCheck { judge, provider: provider.clone(), outcome };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match own {
        Some(leaf) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(leaf.certified().clone())))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn told<T>(error: &io::Error, outcome: &Outcome<T>) -> NotGreeted {
    if let Some(Err(refusal)) = outcome.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return NotGreeted::Disbelieved(refusal);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => NotGreeted::Alert(*alert),
        Some(error) => NotGreeted::NotTls(error.to_string()),
        None => NotGreeted::Broken(error.to_string()),
    }
}

/// Speaks TLS with whoever answers, shows it `own`, and waits for its first words: only these tell that it has let this side in (a client
/// ends its part of the handshake before the server has seen its certificate, RFC 8446 section 2). Answers the stream and what the judge
/// has answered.
pub(super) async fn greet<Io: AsyncRead + AsyncWrite + Unpin, T: Send + 'static>(
    io: Io,
    name: &str,
    own: Option<&ServerLeaf>,
    judge: Judge<T>,
) -> Result<(Greeted<TlsStream<Io>>, T), NotGreeted> {
    let broken = |why: &dyn fmt::Display| NotGreeted::Broken(why.to_string());
    let outcome = Arc::new(Outcome::<T>::default());
    let config = config(own, judge, outcome.clone()).map_err(|error| broken(&error))?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| broken(&error))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, io).await;
    let mut stream = connected.map_err(|error| told(&error, &outcome))?;
    let mut first = vec![0; FIRST_READ];
    match stream.read(&mut first).await {
        Ok(0) => return Err(NotGreeted::Broken("it was closed from there".to_owned())),
        Ok(bytes) => first.truncate(bytes),
        Err(error) => return Err(told(&error, &outcome)),
    }
    let judged = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    match judged {
        Some(Ok(judged)) => Ok((Greeted { first, taken: 0, io: stream }, judged)),
        Some(Err(refusal)) => Err(NotGreeted::Disbelieved(refusal)),
        None => Err(broken(&"no certificate was judged")),
    }
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
pub struct Greeted<Io> {
    first: Vec<u8>,
    taken: usize,
    io: Io,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Greeted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.first.get(this.taken..).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        }
        let bytes = left.len().min(buffer.remaining());
        buffer.put_slice(left.get(..bytes).unwrap_or_default());
        this.taken += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Greeted<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
