//! Whether a certificate is believed: who signed it, whom it names, when it is valid, and whether its key is the one that the cluster
//! has agreed on. Each refusal says which of these it was, with the values.

use std::time::{Duration, SystemTime};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use trestle_model::{ClusterId, ClusterState, KeyPin, MemberId, Role, UserName};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::CertificateFacts;
use crate::name::{CertificateSubject, SpiffeId};

mod peer;

pub(crate) use peer::verify_called;
pub use peer::{
    AuthenticatedMember, FoundAuthority, PeerStanding, PeerTrust, check_peer, verify_authority, verify_peer,
};

/// A moment as it is shown, in UTC.
pub fn time_text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// It cannot be read.
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has no name of a member or user.
    #[error(
        "its certificate has no URI among its alternative names, and must have one that names a member or a user"
    )]
    NoName,
    /// It has several.
    #[error("its certificate has {0} URIs among its alternative names, and must have exactly one")]
    ManyNames(usize),
    /// Its name is none.
    #[error("its certificate is for \"{uri}\", which {rule}")]
    BadName {
        /// The name.
        uri: String,
        /// The broken rule.
        rule: String,
    },
    /// It is of another cluster.
    #[error("its certificate is of cluster {theirs}, and must be of cluster {ours}")]
    OtherCluster {
        /// The cluster of its name.
        theirs: ClusterId,
        /// The one that is asked.
        ours: ClusterId,
    },
    /// It names a user where a member is wanted, or the other way round.
    #[error("its certificate is for \"{name}\", which is no {wanted}")]
    OtherKind {
        /// Its name.
        name: String,
        /// What is wanted.
        wanted: &'static str,
    },
    /// It was signed by somebody else.
    #[error("its certificate was signed by \"{issuer}\", which is no authority of cluster {cluster}")]
    WrongAuthority {
        /// Who signed it, as it says.
        issuer: String,
        /// The cluster.
        cluster: ClusterId,
    },
    /// Its time is over.
    #[error("its certificate expired at {}, and it is {} by the clock of this machine", time_text(*.not_after), time_text(*.now))]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
        /// The time by which that is over.
        now: SystemTime,
    },
    /// Its time has not come.
    #[error(
        "its certificate is valid from {}, and it is {} by the clock of this machine",
        time_text(*.not_before), time_text(*.now)
    )]
    NotYetValid {
        /// The beginning of its validity.
        not_before: SystemTime,
        /// The time by which that has not come.
        now: SystemTime,
    },
    /// The user does not exist.
    #[error(
        "user \"{0}\" does not exist in this cluster: it was deleted, or its certificate is of another one"
    )]
    UnknownUser(UserName),
    /// The user has other keys by now.
    #[error("key {pin} is none of user \"{user}\": it was rotated; use the certificate that was made last")]
    KeyNotPinned {
        /// The user.
        user: UserName,
        /// The key's hash.
        pin: KeyPin,
    },
    /// The member has other keys.
    #[error("key {pin} is none of member {id}: its record has another one")]
    NotMembersKey {
        /// The member.
        id: MemberId,
        /// The key's hash.
        pin: KeyPin,
    },
    /// It is another member's.
    #[error("its certificate is for member {found}, and at this address member {wanted} is expected")]
    OtherMember {
        /// Whom it is for.
        found: MemberId,
        /// Whom it should be for.
        wanted: MemberId,
    },
    /// The authority that is expected has not signed it.
    #[error(
        "it shows no certificate of an authority with the key {wanted}: it is of another cluster, or somebody stands between"
    )]
    OtherAuthority {
        /// The hash of that authority's key.
        wanted: KeyPin,
    },
    /// It breaks a rule of X.509.
    #[error("its certificate is refused: {0}")]
    Invalid(String),
}

impl CertificateRefusal {
    /// What kind of refusal it is, in a few words that are the same for all of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "its certificate cannot be read",
            Self::NoName | Self::ManyNames(_) | Self::BadName { .. } => {
                "its certificate has no name that counts here"
            }
            Self::OtherCluster { .. } => "its certificate is of another cluster",
            Self::OtherKind { .. } => "its certificate is for somebody of another kind",
            Self::WrongAuthority { .. } => "its certificate was signed by somebody else",
            Self::Expired { .. } => "its certificate has expired",
            Self::NotYetValid { .. } => "its certificate is not valid yet",
            Self::UnknownUser(_) => "its user does not exist",
            Self::KeyNotPinned { .. } => "its key was rotated",
            Self::NotMembersKey { .. } => "its key is not the one of its record",
            Self::OtherMember { .. } => "its certificate is another member's",
            Self::OtherAuthority { .. } => "its authority is another one",
            Self::Invalid(_) => "its certificate is not valid",
        }
    }
}

/// A user that has shown a key of its own and a certificate for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedUser {
    /// Who it is.
    pub name: UserName,
    /// The key that it has shown.
    pub pin: KeyPin,
    /// End of the certificate.
    pub not_after: SystemTime,
}

/// The one name of a certificate, of this cluster.
fn named(facts: &CertificateFacts, ours: &ClusterId) -> Result<SpiffeId, CertificateRefusal> {
    let uri = match facts.uris.as_slice() {
        [] => return Err(CertificateRefusal::NoName),
        [only] => only,
        many => return Err(CertificateRefusal::ManyNames(many.len())),
    };
    let name = SpiffeId::parse(uri).map_err(|rule| CertificateRefusal::BadName { uri: uri.clone(), rule })?;
    if name.cluster == *ours {
        return Ok(name);
    }
    Err(CertificateRefusal::OtherCluster { theirs: name.cluster, ours: ours.clone() })
}

/// Verifies that one of these authorities signed a certificate for this use. Its times are judged by whoever asks.
fn signed<'a>(
    leaf: &CertificateDer<'_>,
    facts: &CertificateFacts,
    authorities: impl Iterator<Item = &'a [u8]>,
    cluster: &ClusterId,
    usage: KeyUsage,
) -> Result<(), CertificateRefusal> {
    let invalid = |error: webpki::Error| CertificateRefusal::Invalid(error.to_string());
    let certificates: Vec<CertificateDer<'_>> = authorities.map(CertificateDer::from).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        certificates.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(invalid)?;
    let begin = facts.not_before.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let certificate = EndEntityCert::try_from(leaf).map_err(invalid)?;
    let algorithms = default_provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(begin);
    match certificate.verify_for_usage(algorithms, &anchors, &[], at, usage, None, None) {
        Ok(_) => Ok(()),
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
            let (issuer, cluster) = (facts.issuer.clone(), cluster.clone());
            Err(CertificateRefusal::WrongAuthority { issuer, cluster })
        }
        Err(error) => Err(invalid(error)),
    }
}

fn in_time(facts: &CertificateFacts, now: SystemTime) -> Result<(), CertificateRefusal> {
    let CertificateFacts { not_before, not_after, .. } = *facts;
    if now < not_before {
        return Err(CertificateRefusal::NotYetValid { not_before, now });
    }
    not_over(not_after, now)
}

/// The last second of a certificate is one of its validity.
fn not_over(not_after: SystemTime, now: SystemTime) -> Result<(), CertificateRefusal> {
    if now < not_after + Duration::from_secs(1) {
        return Ok(());
    }
    Err(CertificateRefusal::Expired { not_after, now })
}

/// Verifies the certificate that a client has shown, by what the cluster has agreed on.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_user(
    state: &ClusterState,
    leaf: &[u8],
    now: SystemTime,
) -> Result<AuthenticatedUser, CertificateRefusal> {
    let facts = CertificateFacts::read(leaf)?;
    let Some(cluster) = &state.cluster_id else {
        return Err(CertificateRefusal::Invalid("this member belongs to no cluster".to_owned()));
    };
    let name = named(&facts, cluster)?;
    let CertificateSubject::User(user) = name.subject.clone() else {
        return Err(CertificateRefusal::OtherKind { name: name.to_string(), wanted: "user" });
    };
    let believed = state.believed_authorities().map(|authority| &*authority.certificate);
    signed(&leaf.into(), &facts, believed, cluster, KeyUsage::client_auth())?;
    in_time(&facts, now)?;
    let user = AuthenticatedUser { name: user, pin: facts.pin, not_after: facts.not_after };
    check_user(state, &user, now)?;
    Ok(user)
}

/// Whether a user that was believed once still is, and what it may do by now.
///
/// # Errors
/// When it was deleted, its key was rotated, or its certificate has expired.
pub fn check_user(
    state: &ClusterState,
    user: &AuthenticatedUser,
    now: SystemTime,
) -> Result<Role, CertificateRefusal> {
    let unknown = || CertificateRefusal::UnknownUser(user.name.clone());
    let known = state.users.get(&user.name).ok_or_else(unknown)?;
    if !known.has_key(&user.pin) {
        return Err(CertificateRefusal::KeyNotPinned { user: user.name.clone(), pin: user.pin });
    }
    not_over(user.not_after, now)?;
    Ok(known.spec.role)
}

/// The member that a certificate of this cluster names.
fn member_named(facts: &CertificateFacts, cluster: &ClusterId) -> Result<MemberId, CertificateRefusal> {
    let name = named(facts, cluster)?;
    match name.subject {
        CertificateSubject::Member(id) => Ok(id),
        CertificateSubject::User(_) => {
            Err(CertificateRefusal::OtherKind { name: name.to_string(), wanted: "member" })
        }
    }
}

/// Verifies the certificate that a member has shown to a client, which believes these authorities of its cluster.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_member(
    cluster: &ClusterId,
    authorities: &[Vec<u8>],
    leaf: &[u8],
    now: SystemTime,
) -> Result<MemberId, CertificateRefusal> {
    let (id, _) = member_of(cluster, authorities, leaf)?;
    verify_own(leaf, now)?;
    Ok(id)
}

/// The member that a certificate is for and which of these authorities has signed it, whether its time is over or not.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn member_of<'a>(
    cluster: &ClusterId,
    authorities: &'a [Vec<u8>],
    leaf: &[u8],
) -> Result<(MemberId, &'a [u8]), CertificateRefusal> {
    let facts = CertificateFacts::read(leaf)?;
    let id = member_named(&facts, cluster)?;
    let mut refusal =
        CertificateRefusal::WrongAuthority { issuer: facts.issuer.clone(), cluster: cluster.clone() };
    for authority in authorities {
        let one = std::iter::once(authority.as_slice());
        match signed(&leaf.into(), &facts, one, cluster, KeyUsage::server_auth()) {
            Ok(()) => return Ok((id, authority)),
            Err(why) => refusal = why,
        }
    }
    Err(refusal)
}

/// Looks at the own certificate before it is shown, so that its times are told where they can be mended.
///
/// # Errors
/// When it cannot be read, or its time has not come or is over.
pub fn verify_own(leaf: &[u8], now: SystemTime) -> Result<(), CertificateRefusal> {
    in_time(&CertificateFacts::read(leaf)?, now)
}

#[cfg(test)]
mod tests;
