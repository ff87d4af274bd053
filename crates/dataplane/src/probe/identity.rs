//! The certificate that checks prove themselves with: files of this member, read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use trestle_model::ClientIdentity;

/// How long the files are not looked at again: with thousands of backends in a pool, each check would ask for their dates
/// and have a thread started for that.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Largest file that is read, in bytes; a chain of ten large certificates has 20 KiB.
const FILE_MAX: u64 = 256 * 1024;

/// TLS settings with a certificate from files.
#[derive(Debug)]
pub(super) struct Identity {
    files: ClientIdentity,
    /// The same settings without a certificate.
    plain: Arc<ClientConfig>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<(Instant, Look)>,
    /// A look under way. It is not given up with the check that began it, so that files on a disk that does not answer
    /// hold one thread and not one for each check.
    looking: Option<JoinHandle<Look>>,
}

/// What was in the files, and how to see that they are the same still.
#[derive(Debug, Clone)]
struct Look {
    /// `None` when they have to be read again, because they could not be.
    stamps: Option<[Stamp; 2]>,
    config: Result<Arc<ClientConfig>, Arc<str>>,
}

/// What differs when a file was written or replaced, or its permissions were: inode, size, and time of the last change
/// of either (seconds and nanoseconds).
type Stamp = [i64; 4];

impl Identity {
    pub(super) fn new(files: &ClientIdentity, plain: Arc<ClientConfig>) -> Self {
        Self { files: files.clone(), plain, seen: Mutex::default() }
    }

    /// The settings with the certificate as it is now, or was a second ago.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut seen = self.seen.lock().await;
        let last = seen.last.as_ref().filter(|(at, _)| at.elapsed() < LOOK_AGAIN);
        let look = match last {
            Some((_, look)) => look.clone(),
            None => {
                let known = seen.last.as_ref().map(|(_, look)| look.clone());
                let (files, plain) = (self.files.clone(), self.plain.clone());
                let look = seen
                    .looking
                    .get_or_insert_with(|| spawn_blocking(move || look(&files, &plain, known)))
                    .await;
                seen.looking = None;
                let look = look.map_err(|_| "TLS: the client certificate could not be read".to_owned())?;
                seen.last = Some((Instant::now(), look.clone()));
                look
            }
        };
        look.config.map_err(|words| words.to_string())
    }
}

fn look(files: &ClientIdentity, plain: &ClientConfig, known: Option<Look>) -> Look {
    let (certificate, key) = (&*files.certificate_file, &*files.key_file);
    // Before they are read, so that what is written meanwhile is found the next time.
    let stamps = stamp(CERTIFICATE, certificate).and_then(|c| Ok([c, stamp(KEY, key)?]));
    let stamps = match stamps {
        Ok(stamps) => stamps,
        Err(words) => return Look { stamps: None, config: Err(words.into()) },
    };
    if let Some(known) = known.filter(|known| known.stamps == Some(stamps)) {
        return known;
    }
    let contents = read(CERTIFICATE, certificate).and_then(|c| Ok((c, read(KEY, key)?)));
    match contents {
        Err(words) => Look { stamps: None, config: Err(words.into()) },
        Ok((chain, secret)) => {
            let config = with_certificate(files, plain, &chain, &secret);
            Look { stamps: Some(stamps), config: config.map(Arc::new).map_err(Into::into) }
        }
    }
}

const CERTIFICATE: &str = "TLS: client certificate";
const KEY: &str = "TLS: client key";

fn unreadable(what: &str, path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{what} {path}: no such file"),
        io::ErrorKind::PermissionDenied => format!("{what} {path}: permission denied"),
        _ => format!("{what} {path}: {error}"),
    }
}

fn stamp(what: &str, path: &str) -> Result<Stamp, String> {
    let about = std::fs::metadata(path).map_err(|error| unreadable(what, path, &error))?;
    if !about.is_file() {
        return Err(format!("{what} {path}: not a file"));
    }
    if about.len() > FILE_MAX {
        return Err(format!("{what} {path}: has over {FILE_MAX} bytes"));
    }
    Ok([about.ino().cast_signed(), about.size().cast_signed(), about.ctime(), about.ctime_nsec()])
}

fn read(what: &str, path: &str) -> Result<Vec<u8>, String> {
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut contents));
    read.map_err(|error| unreadable(what, path, &error))?;
    Ok(contents)
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
