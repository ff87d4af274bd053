//! Whether a certificate is believed: who signed it, whom it names, when it is valid, and whether its key is the one that the cluster
//! has agreed on. Each refusal says which of these it was, with the values.

use std::time::{Duration, SystemTime};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use trestle_model::defaults::AUTHORITIES_MAX;
use trestle_model::{ClusterId, ClusterState, KeyPin, MemberId, Role, UserName};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::CertificateFacts;
use crate::name::{CertificateSubject, SpiffeId};
use crate::verification_time::VerificationTime;

mod issued;
mod peer;

pub use issued::{check_authority, verify_issued};
pub(crate) use peer::verify_called;
pub use peer::{
    AuthenticatedMember, FoundAuthority, PeerStanding, PeerTrust, check_peer, verify_authority, verify_peer,
};

/// Most certificates that are looked at beside the first: one for each authority.
const OTHERS_MAX: usize = AUTHORITIES_MAX;

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
    #[error("its certificate expired at {}, and it is {now}", time_text(*.not_after))]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
        /// The time by which that is over.
        now: VerificationTime,
    },
    /// Its time has not come.
    #[error("its certificate is valid from {}, and it is {now}", time_text(*.not_before))]
    NotYetValid {
        /// The beginning of its validity.
        not_before: SystemTime,
        /// The time by which that has not come.
        now: VerificationTime,
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
    /// It is for somebody else.
    #[error("its certificate is for \"{found}\", and must be for \"{wanted}\"")]
    OtherName {
        /// Whom it is for.
        found: SpiffeId,
        /// Whom it should be for.
        wanted: SpiffeId,
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
            Self::OtherMember { .. } | Self::OtherName { .. } => "its certificate is somebody else's",
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
    /// Beginning of the certificate.
    pub not_before: SystemTime,
    /// End of it.
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

/// What somebody has shown of itself.
#[derive(Debug, Clone, Copy)]
pub struct ShownChain<'a> {
    /// Its certificate, in DER.
    pub leaf: &'a [u8],
    /// The certificates that it has shown with it, in DER: of its authority and of older ones.
    pub others: &'a [&'a [u8]],
}

impl<'a> ShownChain<'a> {
    /// A certificate alone.
    pub fn alone(leaf: &'a [u8]) -> Self {
        Self { leaf, others: &[] }
    }
}

/// Verifies that one of these authorities signed a certificate for this use, or an authority for which one of these has signed. Its times
/// are judged by whoever asks.
fn signed<'a>(
    shown: ShownChain<'_>,
    facts: &CertificateFacts,
    authorities: impl Iterator<Item = &'a [u8]>,
    cluster: &ClusterId,
    usage: KeyUsage,
) -> Result<(), CertificateRefusal> {
    match verified_path(shown, facts, authorities, usage) {
        Ok(()) => Ok(()),
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
            let (issuer, cluster) = (facts.issuer.clone(), cluster.clone());
            Err(CertificateRefusal::WrongAuthority { issuer, cluster })
        }
        Err(error) => Err(CertificateRefusal::Invalid(error.to_string())),
    }
}

/// Whether a path leads from the certificate over those that are shown with it to one of these authorities, as of the beginning of its
/// validity.
fn verified_path<'a>(
    shown: ShownChain<'_>,
    facts: &CertificateFacts,
    authorities: impl Iterator<Item = &'a [u8]>,
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    let leaf = CertificateDer::from(shown.leaf);
    let others: Vec<CertificateDer<'_>> =
        shown.others.iter().take(OTHERS_MAX).map(|other| CertificateDer::from(*other)).collect();
    let certificates: Vec<CertificateDer<'_>> = authorities.map(CertificateDer::from).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        certificates.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>()?;
    let begin = facts.not_before.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let certificate = EndEntityCert::try_from(&leaf)?;
    let algorithms = default_provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(begin);
    certificate.verify_for_usage(algorithms, &anchors, &others, at, usage, None, None).map(|_| ())
}

fn in_time(facts: &CertificateFacts, now: VerificationTime) -> Result<(), CertificateRefusal> {
    within(facts.not_before, facts.not_after, now)
}

/// The last second of a certificate is one of its validity.
fn within(
    not_before: SystemTime,
    not_after: SystemTime,
    now: VerificationTime,
) -> Result<(), CertificateRefusal> {
    if now.time() < not_before {
        return Err(CertificateRefusal::NotYetValid { not_before, now });
    }
    if now.time() < not_after + Duration::from_secs(1) {
        return Ok(());
    }
    Err(CertificateRefusal::Expired { not_after, now })
}

/// Verifies the certificate that a client has shown, by what the cluster has agreed on, but for its times: these are judged at each call
/// by [`check_user`], which can say more of them than an alert of TLS does. An authority that was retired counts as well: a user is who has
/// the key of the user's record, which no authority can give anybody.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_user(
    state: &ClusterState,
    shown: ShownChain<'_>,
) -> Result<AuthenticatedUser, CertificateRefusal> {
    let facts = CertificateFacts::read(shown.leaf)?;
    let Some(cluster) = &state.cluster_id else {
        return Err(CertificateRefusal::Invalid("this member belongs to no cluster".to_owned()));
    };
    let name = named(&facts, cluster)?;
    let CertificateSubject::User(user) = name.subject.clone() else {
        return Err(CertificateRefusal::OtherKind { name: name.to_string(), wanted: "user" });
    };
    let known = state.authorities.values().map(|authority| &*authority.certificate);
    signed(shown, &facts, known, cluster, KeyUsage::client_auth())?;
    let not_after = recorded_end(state, &user, &facts).unwrap_or(facts.not_after).min(facts.not_after);
    let user = AuthenticatedUser { name: user, pin: facts.pin, not_before: facts.not_before, not_after };
    role_of(state, &user)?;
    Ok(user)
}

/// The end of the certificate that was signed for a key of a user, as the record has it: whoever has stolen the key of an authority makes
/// no longer one.
fn recorded_end(state: &ClusterState, user: &UserName, facts: &CertificateFacts) -> Option<SystemTime> {
    let keys = &state.users.get(user)?.spec.keys;
    let key = keys.iter().find(|key| key.pin == facts.pin && key.not_after > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(key.not_after))
}

/// What a user may do, if its record has the key that it has shown.
fn role_of(state: &ClusterState, user: &AuthenticatedUser) -> Result<Role, CertificateRefusal> {
    let unknown = || CertificateRefusal::UnknownUser(user.name.clone());
    let known = state.users.get(&user.name).ok_or_else(unknown)?;
    if !known.has_key(&user.pin) {
        return Err(CertificateRefusal::KeyNotPinned { user: user.name.clone(), pin: user.pin });
    }
    Ok(known.spec.role)
}

/// Whether a user that was verified is believed now, and what it may do.
///
/// # Errors
/// When it was deleted, its key was rotated, or its certificate is not valid yet or has expired.
pub fn check_user(
    state: &ClusterState,
    user: &AuthenticatedUser,
    now: VerificationTime,
) -> Result<Role, CertificateRefusal> {
    let role = role_of(state, user)?;
    within(user.not_before, user.not_after, now)?;
    Ok(role)
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

/// Verifies the certificate of a member that one of these authorities of its cluster must have signed itself.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_member(
    cluster: &ClusterId,
    authorities: &[Vec<u8>],
    leaf: &[u8],
    now: VerificationTime,
) -> Result<MemberId, CertificateRefusal> {
    let (id, _) = member_of(cluster, authorities, ShownChain::alone(leaf))?;
    verify_own(leaf, now)?;
    Ok(id)
}

/// Verifies what a member has shown to a client, which knows these authorities of its cluster: one of them has signed for it, or for
/// another one that has.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_called_member(
    cluster: &ClusterId,
    authorities: &[Vec<u8>],
    shown: ShownChain<'_>,
    now: VerificationTime,
) -> Result<(), CertificateRefusal> {
    member_of(cluster, authorities, shown)?;
    verify_own(shown.leaf, now)
}

/// The member that a certificate is for, and which of these authorities has signed it or one of those that are shown with it, whether its
/// time is over or not.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn member_of<'a>(
    cluster: &ClusterId,
    authorities: &'a [Vec<u8>],
    shown: ShownChain<'_>,
) -> Result<(MemberId, &'a [u8]), CertificateRefusal> {
    let facts = CertificateFacts::read(shown.leaf)?;
    let id = member_named(&facts, cluster)?;
    let mut refusal =
        CertificateRefusal::WrongAuthority { issuer: facts.issuer.clone(), cluster: cluster.clone() };
    for authority in authorities {
        let one = std::iter::once(authority.as_slice());
        match signed(shown, &facts, one, cluster, KeyUsage::server_auth()) {
            Ok(()) => return Ok((id, authority)),
            Err(why) => refusal = why,
        }
    }
    Err(refusal)
}

/// Whether the authority of that certificate, in DER, has signed another one, or one of those that are shown with it, whatever it is for.
pub fn is_signed_by(shown: ShownChain<'_>, authority: &[u8]) -> bool {
    let Ok(facts) = CertificateFacts::read(shown.leaf) else { return false };
    let path = verified_path(shown, &facts, std::iter::once(authority), KeyUsage::client_auth());
    path.is_ok()
}

/// Looks at the own certificate before it is shown, so that its times are told where they can be mended.
///
/// # Errors
/// When it cannot be read, or its time has not come or is over.
pub fn verify_own(leaf: &[u8], now: VerificationTime) -> Result<(), CertificateRefusal> {
    in_time(&CertificateFacts::read(leaf)?, now)
}

#[cfg(test)]
mod tests;
