//! The calling side of a user.

use std::sync::Arc;

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use trestle_model::{ClusterId, UserName};

use super::greeting::{Greeted, NotGreeted, greet};
use super::server::ServerLeaf;
use crate::certificate::{CertificateFacts, authorities_mark, from_pem};
use crate::name::{CertificateSubject, SpiffeId, admin_host};
use crate::private_key::PrivateKey;
use crate::verification_time::VerificationTime;
use crate::verify::{CertificateRefusal, ShownChain, verify_called_member, verify_own};

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
fn words(alert: AlertDescription, user: &UserName) -> String {
    match alert {
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
    /// The certificates between it and its authority.
    intermediates: Vec<Vec<u8>>,
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
        let mut found = found.into_iter();
        let certificate = found.next().unwrap_or_default();
        let intermediates = found.collect();
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
        let cluster = name.cluster;
        Ok(Self(Arc::new(UserIdentity { cluster, user, authorities, certificate, intermediates, key })))
    }

    /// The cluster that its certificate is of.
    pub fn cluster(&self) -> &ClusterId {
        &self.0.cluster
    }

    /// The user that its certificate is for.
    pub fn user(&self) -> &UserName {
        &self.0.user
    }

    /// What its certificate says; `None` for one that cannot be read, as none is that was taken.
    pub fn facts(&self) -> Option<CertificateFacts> {
        CertificateFacts::read(&self.0.certificate).ok()
    }

    /// The mark of the authorities that it believes.
    pub fn authorities_mark(&self) -> String {
        authorities_mark(self.0.authorities.iter().map(Vec::as_slice))
    }

    /// Speaks TLS with a member, and waits for its first words: only these tell that it has let the user in.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: Io,
        now: VerificationTime,
    ) -> Result<Greeted<TlsStream<Io>>, TlsError> {
        let UserIdentity { cluster, user, authorities, certificate, intermediates, key } = &*self.0;
        let own = |refusal| TlsError::Own { user: user.clone(), refusal };
        verify_own(certificate, now).map_err(own)?;
        let own = ServerLeaf::new(certificate, key).map_err(|error| TlsError::Broken(error.to_string()))?;
        let own = own.with_authorities(intermediates.iter().map(Vec::as_slice));
        let (cluster_of, believed) = (cluster.clone(), authorities.clone());
        // In place of the name in an address: members are reached under many, and an authority signs for no other cluster.
        let judge = move |shown: ShownChain<'_>| verify_called_member(&cluster_of, &believed, shown, now);
        match greet(io, &admin_host(cluster), Some(&own), Box::new(judge)).await {
            Ok((stream, ())) => Ok(stream),
            Err(NotGreeted::Disbelieved(refusal)) => {
                Err(TlsError::Member { cluster: cluster.clone(), refusal })
            }
            Err(NotGreeted::Alert(alert)) => {
                Err(TlsError::Refused { user: user.clone(), why: words(alert, user) })
            }
            Err(NotGreeted::NotTls(why)) => Err(TlsError::NotTls(why)),
            Err(NotGreeted::Broken(why)) => Err(TlsError::Broken(why)),
        }
    }
}
