//! Whether what an authority outside of the cluster has made can be used here, before it is: its own certificate, and those that it signs.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use trestle_model::defaults::CERTIFICATE_MAX;
use webpki::{KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateRefusal, ShownChain, in_time, named, signed, time_text};
use crate::certificate::CertificateFacts;
use crate::name::{CertificateSubject, SpiffeId};
use crate::verification_time::VerificationTime;

/// Looks at the certificate of an authority, in DER, that a cluster is to believe. It may be a root's or an intermediate one's.
///
/// # Errors
/// The rule that it breaks.
pub fn check_authority(der: &[u8], now: SystemTime) -> Result<CertificateFacts, String> {
    if der.len() > CERTIFICATE_MAX {
        return Err(format!("must have at most {CERTIFICATE_MAX} bytes in DER, and has {}", der.len()));
    }
    let unreadable = |why: String| format!("must be a certificate that can be read: {why}");
    let facts = CertificateFacts::read(der).map_err(|refusal| unreadable(refusal.to_string()))?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    anchor_from_trusted_cert(&CertificateDer::from(der)).map_err(|error| unreadable(error.to_string()))?;
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !certificate.is_ca() || !signs {
        return Err("must be an authority's: its basic constraints say CA, and its key usage has keyCertSign if it has any (RFC 5280 \
                    sections 4.2.1.9 and 4.2.1.3)"
            .to_owned());
    }
    if facts.not_after < now {
        return Err(format!("must be valid, and has expired at {}", time_text(facts.not_after)));
    }
    Ok(facts)
}

/// Verifies a certificate that somebody outside of the cluster has signed for the holder of a key here: for a member as one that is called
/// and that calls, for a user as one that calls. The certificates between it and the authority are to be shown with it.
///
/// # Errors
/// The first reason for which it would not be believed.
pub fn verify_issued(
    wanted: &SpiffeId,
    authorities: &[Vec<u8>],
    shown: ShownChain<'_>,
    now: VerificationTime,
) -> Result<CertificateFacts, CertificateRefusal> {
    let facts = CertificateFacts::read(shown.leaf)?;
    let found = named(&facts, &wanted.cluster)?;
    if found != *wanted {
        return Err(CertificateRefusal::OtherName { found, wanted: wanted.clone() });
    }
    let usable = |usage: KeyUsage, side: &str| {
        let known = authorities.iter().map(Vec::as_slice);
        signed(shown, &facts, known, &wanted.cluster, usage).map_err(|refusal| match refusal {
            CertificateRefusal::Invalid(why) => {
                CertificateRefusal::Invalid(format!("as the certificate of a {side}: {why}"))
            }
            other => other,
        })
    };
    usable(KeyUsage::client_auth(), "client")?;
    if matches!(wanted.subject, CertificateSubject::Member(_)) {
        usable(KeyUsage::server_auth(), "server")?;
    }
    in_time(&facts, now)?;
    Ok(facts)
}

#[cfg(test)]
mod tests;
