//! Members among one another, and processes that want to be one: both sides.

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::server::TlsStream;
use trestle_model::{KeyPin, MemberId};

use super::greeting::{Greeted, NotGreeted, greet};
use super::server::{HandshakeFailure, ServerLeaf, shake};
use crate::name::admin_host;
use crate::verification_time::VerificationTime;
use crate::verify::{
    AuthenticatedMember, CertificateRefusal, FoundAuthority, PeerTrust, ShownChain, verify_authority,
    verify_called, verify_peer,
};

/// The name that is sent to a member of a cluster that is not known yet. Nobody looks at it.
const ANY_MEMBER: &str = "member.trestle";

/// Who has connected to the port of the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A member of the cluster.
    Member(Box<AuthenticatedMember>),
    /// Somebody who has shown no certificate, as a process that wants to join.
    Anonymous,
}

/// Speaks TLS with whoever has connected to the port of the peers. A certificate that is shown must be a member's and be believed.
///
/// # Errors
/// [`HandshakeFailure`], after the client was sent an alert.
pub async fn accept_member<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    leaf: &ServerLeaf,
    trust: PeerTrust,
    now: VerificationTime,
) -> Result<(TlsStream<Io>, PeerIdentity), HandshakeFailure<Io>> {
    let judge = move |shown: ShownChain<'_>| verify_peer(&trust, shown, now);
    let (stream, member) = shake(io, leaf, false, Box::new(judge)).await?;
    let identity = member.map_or(PeerIdentity::Anonymous, |member| PeerIdentity::Member(Box::new(member)));
    Ok((stream, identity))
}

/// Why there is no connection to a member, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerTlsError {
    /// It is not believed.
    #[error("what answers there is not believed to be {wanted}: {refusal}")]
    Disbelieved {
        /// Who it should be.
        wanted: String,
        /// What is wrong with its certificate.
        refusal: CertificateRefusal,
    },
    /// It refused this member.
    #[error("it refused this member: {0}")]
    Refused(String),
    /// It does not speak TLS.
    #[error("what answers there does not speak TLS 1.3 as a member does: {0}")]
    NotTls(String),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Broken(String),
}

/// What an alert of a member says of the one that it refused.
fn words(alert: AlertDescription, now: VerificationTime) -> String {
    match alert {
        AlertDescription::CertificateExpired => format!(
            "the certificate of this member has expired or is not valid yet by the clock there, and it is {now} here; \
             compare the clocks"
        ),
        AlertDescription::UnknownCA => {
            "the certificate of this member was signed by no authority that is believed there".to_owned()
        }
        AlertDescription::CertificateRevoked => {
            "the key of this member is not the one that its record has there".to_owned()
        }
        AlertDescription::UnsupportedCertificate => {
            "the certificate of this member is of another cluster than the one there".to_owned()
        }
        AlertDescription::BadCertificate => {
            "the certificate of this member has no name that counts there".to_owned()
        }
        AlertDescription::InternalError => {
            "it has no certificate of its own yet; its log and \"trestle status\" say why".to_owned()
        }
        other => format!("it ended the TLS handshake with the alert {other:?}"),
    }
}

fn in_words(failed: NotGreeted, wanted: impl FnOnce() -> String, now: VerificationTime) -> PeerTlsError {
    match failed {
        NotGreeted::Disbelieved(refusal) => PeerTlsError::Disbelieved { wanted: wanted(), refusal },
        NotGreeted::Alert(alert) => PeerTlsError::Refused(words(alert, now)),
        NotGreeted::NotTls(why) => PeerTlsError::NotTls(why),
        NotGreeted::Broken(why) => PeerTlsError::Broken(why),
    }
}

/// What one connection to another member is made with.
#[derive(Debug, Clone)]
pub struct PeerTls {
    own: Option<ServerLeaf>,
    trust: PeerTrust,
    wanted: Option<MemberId>,
    now: VerificationTime,
}

impl PeerTls {
    /// Shows `own`, if there is one, to the member `wanted`, or to any.
    pub fn new(
        own: Option<ServerLeaf>,
        trust: PeerTrust,
        wanted: Option<MemberId>,
        now: VerificationTime,
    ) -> Self {
        Self { own, trust, wanted, now }
    }

    /// Speaks TLS with the member, and waits for its first words: only these tell that it has let this one in. Answers the stream and
    /// who the member is.
    ///
    /// # Errors
    /// [`PeerTlsError`].
    pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: Io,
    ) -> Result<(Greeted<ClientStream<Io>>, AuthenticatedMember), PeerTlsError> {
        let (trust, wanted, now) = (self.trust.clone(), self.wanted, self.now);
        let judge = move |shown: ShownChain<'_>| verify_called(&trust, wanted, shown, now);
        let host = admin_host(self.trust.cluster());
        let name = || match wanted {
            Some(id) => format!("member {id} of cluster {}", self.trust.cluster()),
            None => format!("a member of cluster {}", self.trust.cluster()),
        };
        let greeted = greet(io, &host, self.own.as_ref(), Box::new(judge)).await;
        greeted.map_err(|failed| in_words(failed, name, now))
    }
}

/// Speaks TLS, without a certificate of its own, with any member of the cluster whose authority has the key of that hash. Nothing was sent
/// by the time this returns. Answers the stream and the authority.
///
/// # Errors
/// [`PeerTlsError`].
pub async fn connect_to_authority<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    authority: KeyPin,
    now: VerificationTime,
) -> Result<(Greeted<ClientStream<Io>>, FoundAuthority), PeerTlsError> {
    let judge = move |shown: ShownChain<'_>| verify_authority(authority, shown, now);
    let name = || "a member of the cluster that is to be joined".to_owned();
    let greeted = greet(io, ANY_MEMBER, None, Box::new(judge)).await;
    greeted.map_err(|failed| in_words(failed, name, now))
}

#[cfg(test)]
mod tests;
