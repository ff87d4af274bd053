//! The calling side.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trestle_model::{ClusterId, UserName};

use super::{ALPN, no_tls12, provider, verify_signature};
use crate::certificate::{CertificateFacts, from_pem};
use crate::name::{CertificateSubject, SpiffeId, admin_host};
use crate::private_key::PrivateKey;
use crate::verify::{CertificateRefusal, time_text, verify_member, verify_own};

/// Bytes of the first answer that are read to see whether there is one; the rest is read by whoever gets the connection.
const FIRST_READ: usize = 1024;

/// Why there is no connection, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The own certificate cannot be used.
    #[error(
        "of user \"{user}\", {refusal}; let an admin make a new one with \"trestle user rotate {user}\", or set the clock right"
    )]
    Own {
        /// Whose it is.
        user: UserName,
        /// What is wrong with it.
        refusal: CertificateRefusal,
    },
    /// The member is not believed.
    #[error("what answers there is not believed to be a member of cluster {cluster}: {refusal}")]
    Member {
        /// The cluster of the context.
        cluster: ClusterId,
        /// What is wrong with its certificate.
        refusal: CertificateRefusal,
    },
    /// The member refused.
    #[error("the member refused user \"{user}\": {why}")]
    Refused {
        /// Who was refused.
        user: UserName,
        /// Why, as far as an alert tells.
        why: String,
    },
    /// It does not speak TLS.
    #[error("what answers there does not speak TLS 1.3 as a member does: {0}")]
    NotTls(String),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Broken(String),
}

/// What an alert of a member says of the user that it refused.
fn words(alert: AlertDescription, user: &UserName, now: SystemTime) -> String {
    match alert {
        AlertDescription::CertificateExpired => format!(
            "its certificate has expired or is not valid yet by the clock of the member, and it is {} here; compare the clocks",
            time_text(now)
        ),
        AlertDescription::UnknownCA => {
            "its certificate was signed by no authority of the member's cluster".to_owned()
        }
        AlertDescription::AccessDenied => {
            "there is no such user in the member's cluster any more; let an admin create it anew".to_owned()
        }
        AlertDescription::CertificateRevoked => format!(
            "its key was rotated; use the context that was made last, or let an admin run \"trestle user rotate {user}\""
        ),
        AlertDescription::UnsupportedCertificate => {
            "its certificate is of another cluster, or is not a user's".to_owned()
        }
        AlertDescription::BadCertificate => "its certificate has no name that counts there".to_owned(),
        AlertDescription::InternalError => {
            "the member has no certificate of its own yet; its log and \"trestle status\" say why".to_owned()
        }
        other => format!("it ended the TLS handshake with the alert {other:?}"),
    }
}

/// A user's certificate and key, and the authorities that it believes. Clones share them.
#[derive(Debug, Clone)]
pub struct ClientTls(Arc<UserIdentity>);

#[derive(Debug)]
struct UserIdentity {
    cluster: ClusterId,
    user: UserName,
    authorities: Vec<Vec<u8>>,
    certificate: Vec<u8>,
    key: PrivateKey,
}

impl ClientTls {
    /// Takes the authorities' certificates, the user's certificate and its key, each in PEM.
    ///
    /// # Errors
    /// In words, when one cannot be read, the certificate is not a user's, or the key is another's.
    pub fn new(authorities: &str, certificate: &str, key: &str) -> Result<Self, String> {
        let authorities = from_pem(authorities).map_err(|rule| format!("ca {rule}"))?;
        let found = from_pem(certificate).map_err(|rule| format!("certificate {rule}"))?;
        let certificate = found.into_iter().next().unwrap_or_default();
        let key = PrivateKey::from_pem(key).map_err(|error| format!("key: {error}"))?;
        let facts = CertificateFacts::read(&certificate).map_err(|refusal| refusal.to_string())?;
        let uri = facts.uris.first().map(String::as_str).unwrap_or_default();
        let name =
            SpiffeId::parse(uri).map_err(|rule| format!("the name in certificate, \"{uri}\", {rule}"))?;
        let CertificateSubject::User(user) = name.subject else {
            return Err(format!("certificate is for \"{uri}\", which is no user"));
        };
        if facts.pin != key.pin() {
            return Err(format!("key {} is not that of certificate, which is {}", key.pin(), facts.pin));
        }
        Ok(Self(Arc::new(UserIdentity { cluster: name.cluster, user, authorities, certificate, key })))
    }

    /// The cluster that its certificate is of.
    pub fn cluster(&self) -> &ClusterId {
        &self.0.cluster
    }

    /// The user that its certificate is for.
    pub fn user(&self) -> &UserName {
        &self.0.user
    }

    /// The end of its certificate.
    pub fn not_after(&self) -> Option<SystemTime> {
        CertificateFacts::read(&self.0.certificate).ok().map(|facts| facts.not_after)
    }

    /// Speaks TLS with a member, and waits for its first words: only these tell that it has let the user in (a client ends its part
    /// of the handshake before the server has seen its certificate, RFC 8446 section 2).
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: Io,
        now: SystemTime,
    ) -> Result<Greeted<TlsStream<Io>>, TlsError> {
        let own = |refusal| TlsError::Own { user: self.0.user.clone(), refusal };
        verify_own(&self.0.certificate, now).map_err(own)?;
        let refused = Arc::new(Mutex::new(None));
        let config = self.config(refused.clone()).map_err(|error| TlsError::Broken(error.to_string()))?;
        let name = ServerName::try_from(admin_host(&self.0.cluster))
            .map_err(|error| TlsError::Broken(error.to_string()))?;
        let failed = |error: &io::Error| {
            let refusal = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.told(error, refusal, now)
        };
        let connected = TlsConnector::from(Arc::new(config)).connect(name, io).await;
        let mut stream = connected.map_err(|error| failed(&error))?;
        let mut first = vec![0; FIRST_READ];
        match stream.read(&mut first).await {
            Ok(0) => Err(TlsError::Broken("it was closed from there".to_owned())),
            Ok(bytes) => {
                first.truncate(bytes);
                Ok(Greeted { first, taken: 0, io: stream })
            }
            Err(error) => Err(failed(&error)),
        }
    }

    fn config(&self, refused: Arc<Mutex<Option<CertificateRefusal>>>) -> Result<ClientConfig, Error> {
        let provider = provider();
        let UserIdentity { cluster, authorities, certificate, key, .. } = &*self.0;
        let verifier = MemberVerifier {
            cluster: cluster.clone(),
            authorities: authorities.clone(),
            provider: provider.clone(),
            refused,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![CertificateDer::from(certificate.clone())], key.der())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn told(&self, error: &io::Error, refusal: Option<CertificateRefusal>, now: SystemTime) -> TlsError {
        let UserIdentity { cluster, user, .. } = &*self.0;
        if let Some(refusal) = refusal {
            return TlsError::Member { cluster: cluster.clone(), refusal };
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => {
                TlsError::Refused { user: user.clone(), why: words(*alert, user, now) }
            }
            Some(error) => TlsError::NotTls(error.to_string()),
            None => TlsError::Broken(error.to_string()),
        }
    }
}

/// Verifies a member's certificate by the authorities of the context, in place of the name in an address: members are reached under
/// many, and an authority signs for no other cluster.
#[derive(Debug)]
struct MemberVerifier {
    cluster: ClusterId,
    authorities: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
    refused: Arc<Mutex<Option<CertificateRefusal>>>,
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        match verify_member(&self.cluster, &self.authorities, end_entity, now) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
                Err(CertificateError::UnknownIssuer.into())
            }
        }
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
