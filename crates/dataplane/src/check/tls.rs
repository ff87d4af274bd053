//! The TLS check: a handshake, and a judgement of the certificate.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trestle_model::TlsCheck;

use super::check_error::CheckError;
use super::files::FromFiles;
use super::identity::identity;
use super::limit::CheckDeadline;
use super::stream::CheckStream;
use super::target::CheckTarget;
use super::verifier::Verifier;
use super::{crypto, expiry, fault};
use crate::observe::check_result::CheckResult;

/// How long a backend may take to close after the check has sent its close_notify. Servers close at once; the connection to one
/// that does not is reset.
const CLOSING: Duration = Duration::from_millis(100);

/// How checks of one pool do TLS.
#[derive(Debug)]
pub(super) struct TlsPlan {
    config: Arc<ClientConfig>,
    /// Whether a CA must have signed certificates.
    verified: bool,
    /// The server name, for which a verified certificate must be; `None` for the backend's own name or address.
    name: Option<ServerName<'static>>,
    min_days_left: u32,
    /// The client certificate of the check.
    identity: Option<FromFiles<Arc<ClientConfig>>>,
}

impl TlsPlan {
    /// Prepares handshakes that offer the protocols `alpn`, and name the server `name` where the settings have no server name.
    /// Files are read below `directory`.
    ///
    /// # Errors
    /// Why no handshake can be made with these settings.
    pub(super) fn new(
        check: &TlsCheck,
        name: Option<ServerName<'static>>,
        alpn: &[&[u8]],
        directory: &Arc<Path>,
    ) -> Result<Self, String> {
        let name = match &check.server_name {
            None => name,
            Some(name) => Some(
                ServerName::try_from(name.to_string())
                    .map_err(|_| format!("TLS: server name {name:?} is not a host name or an address"))?,
            ),
        };
        let provider = crypto::provider();
        let verifier = Arc::new(Verifier::new(check.ca.as_deref(), &provider)?);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| "TLS: this build has no ciphers")?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session shows the certificate of the first one, not the one that the backend has now.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        Ok(Self {
            identity: check.identity.as_ref().map(|files| identity(files, config.clone(), directory.clone())),
            config,
            verified: check.ca.is_some(),
            name,
            min_days_left: check.min_days_left,
        })
    }

    /// Does the handshake and judges the certificate's dates.
    ///
    /// # Errors
    /// What is wrong with the backend's TLS, or what this member lacks.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        target: &CheckTarget,
    ) -> Result<TlsStream<S>, CheckError> {
        let name = self.name.clone().unwrap_or_else(|| target.server_name());
        let config = match &self.identity {
            None => self.config.clone(),
            Some(identity) => identity.get().await?,
        };
        let connector = TlsConnector::from(config);
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(|e| fault::tls(&e, &name, self.verified))?;
        if self.min_days_left > 0 {
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            if let Some(words) = leaf.and_then(|leaf| expiry::complaint(leaf, self.min_days_left, now)) {
                return Err(format!("TLS: {words}").into());
            }
        }
        Ok(stream)
    }
}

/// Does a handshake and closes the connection in order.
///
/// # Errors
/// What is wrong with the backend's TLS, or what this member lacks.
pub(super) async fn check(
    plan: &TlsPlan,
    stream: &mut CheckStream,
    target: &CheckTarget,
    limit: CheckDeadline,
) -> Result<CheckResult, CheckError> {
    let stream = limit.bound("TLS", plan.handshake(stream, target)).await?;
    // A backend that is slow to close has nevertheless done what the check asks for.
    let closed = limit.reach(timeout(CLOSING, close(stream))).await;
    // With TLS 1.3 a server judges the client's certificate when the handshake is over for the client. Where the check has a
    // certificate, the server must accept it.
    if let (Some(_), Some(Ok(Err(error)))) = (&plan.identity, closed)
        && let Some(words) = fault::refused(&error)
    {
        return Err(words.into());
    }
    Ok(CheckResult::Secured)
}

/// Sends close_notify and waits until the backend closes. A server that is still sending its session tickets when the
/// connection is reset logs a failed handshake for each check. Go's servers do, and so do Kubernetes' API servers.
///
/// # Errors
/// How the connection ended, if not by a close_notify.
async fn close(mut stream: TlsStream<&mut CheckStream>) -> io::Result<()> {
    stream.get_mut().1.send_close_notify();
    let mut rest = [0; 256];
    // This fails where the backend has closed already. What it said before can still be read.
    let _ = stream.flush().await;
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(check: &TlsCheck) -> String {
        TlsPlan::new(check, None, &[], &Path::new("/").into()).unwrap_err()
    }

    #[test]
    fn a_ca_without_a_usable_certificate_says_so() {
        let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let open = "-----BEGIN CERTIFICATE-----\nMIIB\n";
        for ca in [empty, cut, open, "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n"] {
            let check = TlsCheck { ca: Some(ca.into()), ..TlsCheck::default() };
            assert_eq!(refusal(&check), "TLS: the CA given holds no usable certificate", "{ca:?}");
        }
    }

    #[test]
    fn a_server_name_that_is_none_says_so() {
        let check = TlsCheck { server_name: Some("api.example:6443".into()), ..TlsCheck::default() };
        assert_eq!(refusal(&check), "TLS: server name \"api.example:6443\" is not a host name or an address");
        for name in ["api.example", "etcd_0.example", "10.0.0.1", "::1"] {
            let check = TlsCheck { server_name: Some(name.into()), ..TlsCheck::default() };
            assert!(TlsPlan::new(&check, None, &[], &Path::new("/").into()).is_ok(), "{name}");
        }
    }
}
