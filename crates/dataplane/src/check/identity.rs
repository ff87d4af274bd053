//! The client certificate of checks.

use std::path::Path;
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};
use trestle_model::ClientIdentity;

use super::files::FromFiles;

const CERTIFICATE: &str = "TLS: client certificate";
const KEY: &str = "TLS: client key";

/// TLS settings with a client certificate from files below `directory`. `plain` are the same settings without one.
pub(super) fn identity(
    files: &ClientIdentity,
    plain: Arc<ClientConfig>,
    directory: Arc<Path>,
) -> FromFiles<Arc<ClientConfig>> {
    let named = [(CERTIFICATE, files.certificate_file.clone()), (KEY, files.key_file.clone())];
    let files = files.clone();
    FromFiles::new(named, directory, move |contents| match contents {
        [chain, key] => with_certificate(&files, &plain, chain.expose(), key.expose()).map(Arc::new),
        _ => Err(format!("{CERTIFICATE}: there must be two files")),
    })
}

fn with_certificate(
    files: &ClientIdentity,
    plain: &ClientConfig,
    chain: &[u8],
    key: &[u8],
) -> Result<ClientConfig, String> {
    let (certificate_file, key_file) = (&files.certificate_file, &files.key_file);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| format!("{CERTIFICATE} {certificate_file}: holds no certificate in PEM form"))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| format!("{KEY} {key_file}: holds no private key in PEM form without a passphrase"))?;
    let identity =
        CertifiedKey::from_der(chain, key, plain.crypto_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{KEY} {key_file}: is not the key of {certificate_file}")
            }
            Error::InvalidCertificate(_) => {
                format!("{CERTIFICATE} {certificate_file}: certificate cannot be read")
            }
            _ => format!("{KEY} {key_file}: is of a kind that is not supported"),
        })?;
    let mut config = plain.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
    Ok(config)
}
