//! The accepting side.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trestle_model::ClusterState;

use super::{ALPN, Judge, no_tls12, provider, verify_signature};
use crate::authority::SigningError;
use crate::certificate::CertificateFacts;
use crate::private_key::PrivateKey;
use crate::verify::{AuthenticatedUser, CertificateRefusal, ShownChain, verify_user};

/// A member's certificate with its key.
#[derive(Debug, Clone)]
pub struct ServerLeaf {
    certified: Arc<CertifiedKey>,
    facts: CertificateFacts,
}

impl ServerLeaf {
    /// Takes a certificate in DER and its key.
    ///
    /// # Errors
    /// When the certificate cannot be read, or the key is another's.
    pub fn new(certificate: &[u8], key: &PrivateKey) -> Result<Self, SigningError> {
        let facts = CertificateFacts::read(certificate);
        let facts = facts.map_err(|refusal| SigningError::Certificate(refusal.to_string()))?;
        if facts.pin != key.pin() {
            return Err(SigningError::OtherKey { key: key.pin(), certificate: facts.pin });
        }
        let signing = provider().key_provider.load_private_key(key.der());
        let signing = signing.map_err(|error| SigningError::Library(error.to_string()))?;
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        Ok(Self { certified: Arc::new(CertifiedKey::new(chain, signing)), facts })
    }

    /// The same, shown with the certificates that lead from it to the oldest authority, in DER: those who know an older authority alone, or
    /// nothing but the hash of an authority's key, need them.
    #[must_use]
    pub fn with_authorities<'c>(&self, chain: impl IntoIterator<Item = &'c [u8]>) -> Self {
        let mut certified = CertifiedKey::clone(&self.certified);
        certified.cert.truncate(1);
        certified.cert.extend(chain.into_iter().map(|one| CertificateDer::from(one.to_vec())));
        Self { certified: Arc::new(certified), facts: self.facts.clone() }
    }

    /// The certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        self.certified.cert.first().map(AsRef::as_ref).unwrap_or_default()
    }

    /// The certificates that are shown with it, in DER.
    pub fn others(&self) -> Vec<&[u8]> {
        self.certified.cert.iter().skip(1).map(AsRef::as_ref).collect()
    }

    /// What the certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub struct HandshakeFailure<Io> {
    /// What the client did, in words that are the same for all of the kind.
    pub kind: &'static str,
    /// As much as is known of it, in words.
    pub words: String,
    /// The connection. The client has been sent why.
    pub io: Io,
}

/// What came of the client's certificate.
type Outcome<T> = Mutex<Option<Result<T, CertificateRefusal>>>;

/// Verifies one client's certificate.
struct ClientCheck<T> {
    judge: Judge<T>,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
    outcome: Arc<Outcome<T>>,
}

impl<T> fmt::Debug for ClientCheck<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCheck")
    }
}

/// What a client is told of a refusal: its library knows no more than the name of an alert (RFC 8446 section 6.2). The other side,
/// `client::words` or `peer::words`, makes words of it.
fn alert(refusal: &CertificateRefusal) -> CertificateError {
    match refusal {
        CertificateRefusal::Expired { .. } => CertificateError::Expired,
        CertificateRefusal::NotYetValid { .. } => CertificateError::NotValidYet,
        CertificateRefusal::WrongAuthority { .. } | CertificateRefusal::OtherAuthority { .. } => {
            CertificateError::UnknownIssuer
        }
        CertificateRefusal::OtherCluster { .. }
        | CertificateRefusal::OtherKind { .. }
        | CertificateRefusal::OtherMember { .. }
        | CertificateRefusal::OtherName { .. } => CertificateError::InvalidPurpose,
        CertificateRefusal::UnknownUser(_) => CertificateError::ApplicationVerificationFailure,
        CertificateRefusal::KeyNotPinned { .. } | CertificateRefusal::NotMembersKey { .. } => {
            CertificateError::Revoked
        }
        CertificateRefusal::Unreadable(_)
        | CertificateRefusal::NoName
        | CertificateRefusal::ManyNames(_)
        | CertificateRefusal::BadName { .. }
        | CertificateRefusal::Invalid(_) => CertificateError::BadEncoding,
    }
}

impl<T: Send> ClientCertVerifier for ClientCheck<T> {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients have one certificate, and need no hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let others: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        let judged = (self.judge)(ShownChain { leaf: end_entity, others: &others });
        let answer = match &judged {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => Err(alert(refusal).into()),
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
    leaf: &ServerLeaf,
    judge: Judge<T>,
    mandatory: bool,
    outcome: Arc<Outcome<T>>,
) -> Result<ServerConfig, Error> {
    let provider = provider();
    let check = ClientCheck { judge, mandatory, provider: provider.clone(), outcome };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(check))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(leaf.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// A client without a certificate.
const ANONYMOUS: &str = "it has shown no certificate, and must show a user's";

/// What the client did, by what the library says.
fn told(error: &io::Error) -> (&'static str, String) {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return ("its connection broke during the TLS handshake", error.to_string());
    };
    let kind = match error {
        Error::NoCertificatesPresented => return (ANONYMOUS, ANONYMOUS.to_owned()),
        Error::AlertReceived(_) => {
            "it does not believe this member's certificate, or ended the TLS handshake"
        }
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => "it speaks no TLS 1.3 with HTTP/2",
        _ => "its TLS handshake is none",
    };
    (kind, error.to_string())
}

/// Speaks TLS with a client; answers the stream and what the judge has answered, `None` for a client that has shown no certificate.
///
/// # Errors
/// [`HandshakeFailure`], after the client was sent an alert.
pub(super) async fn shake<Io: AsyncRead + AsyncWrite + Unpin, T: Send + 'static>(
    io: Io,
    leaf: &ServerLeaf,
    mandatory: bool,
    judge: Judge<T>,
) -> Result<(TlsStream<Io>, Option<T>), HandshakeFailure<Io>> {
    let outcome = Arc::new(Outcome::<T>::default());
    let config = match config(leaf, judge, mandatory, outcome.clone()) {
        Ok(config) => config,
        Err(error) => {
            let kind = "this member's TLS cannot be set up";
            return Err(HandshakeFailure { kind, words: error.to_string(), io });
        }
    };
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(io).into_fallible().await;
    let judged = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (accepted, judged) {
        (Ok(stream), Some(Ok(judged))) => Ok((stream, Some(judged))),
        (Ok(stream), None) if !mandatory => Ok((stream, None)),
        (Ok(stream), _) => {
            Err(HandshakeFailure { kind: ANONYMOUS, words: ANONYMOUS.to_owned(), io: stream.into_inner().0 })
        }
        (Err((_, io)), Some(Err(refusal))) => {
            Err(HandshakeFailure { kind: refusal.kind(), words: refusal.to_string(), io })
        }
        (Err((error, io)), _) => {
            let (kind, words) = told(&error);
            Err(HandshakeFailure { kind, words, io })
        }
    }
}

/// Speaks TLS with a client, which must show a certificate of a user that `state` knows. Whether its time has come and is not over is to
/// be judged by whoever answers its calls.
///
/// # Errors
/// [`HandshakeFailure`], after the client was sent an alert.
pub async fn accept<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    leaf: &ServerLeaf,
    state: Arc<ClusterState>,
) -> Result<(TlsStream<Io>, AuthenticatedUser), HandshakeFailure<Io>> {
    let judge = move |shown: ShownChain<'_>| verify_user(&state, shown);
    match shake(io, leaf, true, Box::new(judge)).await? {
        (stream, Some(user)) => Ok((stream, user)),
        (stream, None) => {
            Err(HandshakeFailure { kind: ANONYMOUS, words: ANONYMOUS.to_owned(), io: stream.into_inner().0 })
        }
    }
}
