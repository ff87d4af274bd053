//! The authority of a cluster: it signs certificates of members and users.
//!
//! What it signs has the extensions that RFC 5280 section 4.2 asks for, so that other libraries believe it under their strictest
//! rules. A certificate says who its holder is, and no more than that: what a user may do, and whether there is such a user, is in the
//! replicated state.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType,
};
use trestle_model::defaults::{
    AUTHORITIES_MAX, AUTHORITY_LIFE, CERTIFICATE_BACKDATED, MEMBER_CERTIFICATE_LIFE,
    USER_CERTIFICATE_LIFE_BOUNDS,
};
use trestle_model::{ClusterId, KeyPin, MemberId, UserName};

use crate::certificate::CertificateFacts;
use crate::name::{CertificateSubject, SpiffeId};
use crate::private_key::PrivateKey;
use crate::request::CertificateRequest;

/// Longest DNS name (RFC 1035 section 2.3.4).
const DNS_NAME_MAX: usize = 253;

/// Most certificates between an authority's and one that a later authority has signed (RFC 5280 section 4.2.1.9): those of the
/// authorities after it.
const CROSS_MAX: u8 = AUTHORITIES_MAX as u8 - 1;

/// Why something is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The library that makes certificates says so.
    #[error("cannot make or read a key or certificate: {0}")]
    Library(String),
    /// The key is not the one of the authority's certificate.
    #[error("the key {key} is not that of the authority's certificate, {certificate}")]
    OtherKey {
        /// The key's hash.
        key: KeyPin,
        /// The hash of the certificate's.
        certificate: KeyPin,
    },
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate is refused: {0}")]
    Certificate(String),
}

impl From<rcgen::Error> for SigningError {
    fn from(error: rcgen::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// A name by which clients may look for a member's admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for LeafName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// An authority with its key.
#[derive(Debug)]
pub struct CertificateAuthority {
    key: PrivateKey,
    cluster: ClusterId,
    certificate: Vec<u8>,
    not_after: SystemTime,
}

pub(crate) fn common_name(name: impl Into<String>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name.into());
    distinguished
}

/// What a certificate of an authority says of it.
fn authority_params(cluster: &ClusterId, generation: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(format!("trestle {cluster} authority {generation}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(CROSS_MAX));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn uri(name: &SpiffeId) -> Result<SanType, SigningError> {
    Ok(SanType::URI(name.to_string().try_into()?))
}

/// A name as certificates have it; `None` for one that is too long for any.
pub(crate) fn alternative(name: &LeafName) -> Result<Option<SanType>, SigningError> {
    Ok(match name {
        LeafName::Dns(name) if name.len() <= DNS_NAME_MAX => {
            Some(SanType::DnsName(name.as_str().try_into()?))
        }
        LeafName::Dns(_) => None,
        LeafName::Ip(address) => Some(SanType::IpAddress(*address)),
    })
}

impl CertificateAuthority {
    /// Makes a certificate for the authority's key, valid for ten years from `now`.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn make(
        key: PrivateKey,
        cluster: &ClusterId,
        generation: u32,
        now: SystemTime,
    ) -> Result<Self, SigningError> {
        let not_after = now + AUTHORITY_LIFE;
        let mut params = authority_params(cluster, generation);
        params.not_before = (now - CERTIFICATE_BACKDATED).into();
        params.not_after = not_after.into();
        let certificate = params.self_signed(key.pair())?.der().to_vec();
        Ok(Self { key, cluster: cluster.clone(), certificate, not_after })
    }

    /// Takes an authority's key and its certificate in DER.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn load(key: PrivateKey, cluster: &ClusterId, certificate: &[u8]) -> Result<Self, SigningError> {
        let facts = CertificateFacts::read(certificate);
        let facts = facts.map_err(|refusal| SigningError::Certificate(refusal.to_string()))?;
        if facts.pin != key.pin() {
            return Err(SigningError::OtherKey { key: key.pin(), certificate: facts.pin });
        }
        let (certificate, not_after) = (certificate.to_vec(), facts.not_after);
        Ok(Self { key, cluster: cluster.clone(), certificate, not_after })
    }

    /// Signs a certificate, in DER, for the key of the authority of a later generation, so that whoever believes this one believes that
    /// one too. It is valid as long as both are.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn cross_sign(&self, newer: &Self, generation: u32) -> Result<Vec<u8>, SigningError> {
        let own = CertificateFacts::read(&self.certificate);
        let own = own.map_err(|refusal| SigningError::Certificate(refusal.to_string()))?;
        let mut params = authority_params(&newer.cluster, generation);
        // What the newer one signs may begin earlier than its own certificate: members' clocks differ.
        params.not_before = own.not_before.into();
        params.not_after = self.not_after.min(newer.not_after).into();
        params.use_authority_key_identifier_extension = true;
        let certificate = self.certificate.as_slice().into();
        let issuer = Issuer::from_ca_cert_der(&certificate, self.key.pair())?;
        Ok(params.signed_by(newer.key.pair(), &issuer)?.der().to_vec())
    }

    /// Its certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Signs a user's certificate, in DER, that is valid for `life` within the bounds of it, and no longer than the authority's.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn sign_user(
        &self,
        request: &CertificateRequest,
        name: &UserName,
        now: SystemTime,
        life: Duration,
    ) -> Result<Vec<u8>, SigningError> {
        let life = life.clamp(*USER_CERTIFICATE_LIFE_BOUNDS.start(), *USER_CERTIFICATE_LIFE_BOUNDS.end());
        let mut params = self.leaf(&CertificateSubject::User(name.clone()), now, life)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, request)
    }

    /// Signs a member's certificate, in DER, for its admin API too under these names.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn sign_member(
        &self,
        request: &CertificateRequest,
        id: MemberId,
        names: &[LeafName],
        now: SystemTime,
    ) -> Result<Vec<u8>, SigningError> {
        let mut params = self.leaf(&CertificateSubject::Member(id), now, MEMBER_CERTIFICATE_LIFE)?;
        for name in names {
            params.subject_alt_names.extend(alternative(name)?);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, request)
    }

    fn leaf(
        &self,
        subject: &CertificateSubject,
        now: SystemTime,
        life: Duration,
    ) -> Result<CertificateParams, SigningError> {
        let name = SpiffeId { cluster: self.cluster.clone(), subject: subject.clone() };
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(subject.common());
        params.not_before = (now - CERTIFICATE_BACKDATED).into();
        params.not_after = (now + life).min(self.not_after).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![uri(&name)?];
        Ok(params)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        request: &CertificateRequest,
    ) -> Result<Vec<u8>, SigningError> {
        let certificate = self.certificate.as_slice().into();
        let issuer = Issuer::from_ca_cert_der(&certificate, self.key.pair())?;
        Ok(params.signed_by(request.public_key(), &issuer)?.der().to_vec())
    }
}

#[cfg(test)]
mod tests;
