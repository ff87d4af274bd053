//! Whether members believe one another. What counts is the record: a member is who has the private key that its record names, whatever
//! the clocks say, so that neither a wrong clock nor a long sleep takes a cluster apart; and whoever has signed its certificate, so that a
//! member that was off while the cluster's authority was replaced comes back by itself. The private key is what a thief would need, and
//! no authority's key is any help with that. Members that are not known here yet are believed by their authority and while their
//! certificate is valid.

use std::sync::Arc;

use trestle_model::{ClusterId, ClusterState, KeyPin, MemberId, TransportSecurity};
use webpki::KeyUsage;

use super::{CertificateRefusal, ShownChain, in_time, member_named, signed};
use crate::certificate::CertificateFacts;
use crate::name::SpiffeId;
use crate::verification_time::VerificationTime;

/// What a member believes others by.
#[derive(Debug, Clone)]
pub struct PeerTrust {
    cluster: ClusterId,
    authorities: Vec<Arc<[u8]>>,
    /// Authorities that are believed no more. A member that they have signed for may still ask what became of it.
    retired: Vec<Arc<[u8]>>,
    state: Arc<ClusterState>,
}

impl PeerTrust {
    /// By what the cluster has agreed on; `None` while nothing is known of that, and in a cluster without an authority.
    pub fn by_state(state: Arc<ClusterState>) -> Option<Self> {
        let cluster = state.cluster_id.clone()?;
        let authorities: Vec<_> =
            state.believed_authorities().map(|authority| authority.certificate.clone()).collect();
        let retired = state.retired_authorities().map(|authority| authority.certificate.clone()).collect();
        (!authorities.is_empty()).then_some(Self { cluster, authorities, retired, state })
    }

    /// By authorities alone, in DER: of a member that has joined and does not have the log yet. It knows no member.
    pub fn by_authorities(cluster: ClusterId, authorities: &[Vec<u8>]) -> Self {
        let authorities = authorities.iter().map(|certificate| certificate.as_slice().into()).collect();
        Self { cluster, authorities, retired: Vec::new(), state: Arc::default() }
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }
}

/// How far a member is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerStanding {
    /// It has a record.
    Known,
    /// Its id is newer than all that is known here: it may be one by an entry of the log that has not come yet.
    Newer,
    /// It is a member no more. Others must let it ask whether that is so.
    Former,
}

/// A member that has shown a key of its own and a certificate for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedMember {
    /// Who it is.
    pub id: MemberId,
    /// What its certificate says.
    pub facts: CertificateFacts,
    /// Why no authority that is believed here has signed its certificate, if so. Its key alone has let it in, then.
    pub unsigned: Option<CertificateRefusal>,
}

impl AuthenticatedMember {
    /// Its key.
    pub fn pin(&self) -> KeyPin {
        self.facts.pin
    }

    /// What is wrong with its certificate, by a clock: no reason to refuse a member that is known by its key.
    pub fn doubt(&self, now: VerificationTime) -> Option<CertificateRefusal> {
        self.unsigned.clone().or_else(|| in_time(&self.facts, now).err())
    }
}

/// Verifies the certificate that another member has shown.
///
/// # Errors
/// The first reason for which it is not believed.
fn verify(
    trust: &PeerTrust,
    shown: ShownChain<'_>,
    usage: KeyUsage,
    now: VerificationTime,
) -> Result<AuthenticatedMember, CertificateRefusal> {
    let facts = CertificateFacts::read(shown.leaf)?;
    let id = member_named(&facts, &trust.cluster)?;
    let signed_by = |authorities: &[Arc<[u8]>]| {
        signed(shown, &facts, authorities.iter().map(AsRef::as_ref), &trust.cluster, usage)
    };
    let unsigned = match signed_by(&trust.authorities) {
        Ok(()) => None,
        Err(refusal @ CertificateRefusal::WrongAuthority { .. }) => Some(refusal),
        Err(refusal) => return Err(refusal),
    };
    let retired = || signed_by(&trust.retired).is_ok();
    let member = AuthenticatedMember { id, facts: facts.clone(), unsigned };
    let standing = check_peer(&trust.state, &member, now);
    let standing = standing.map_err(|why| member.unsigned.clone().unwrap_or(why))?;
    match &member.unsigned {
        Some(_) if trust.state.is_key_of(id, &member.pin()) && standing == PeerStanding::Known => Ok(member),
        Some(_) if standing == PeerStanding::Former && retired() => Ok(member),
        Some(refusal) => Err(refusal.clone()),
        None => Ok(member),
    }
}

/// Verifies the certificate that another member has shown as the one that calls.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_peer(
    trust: &PeerTrust,
    shown: ShownChain<'_>,
    now: VerificationTime,
) -> Result<AuthenticatedMember, CertificateRefusal> {
    verify(trust, shown, KeyUsage::client_auth(), now)
}

/// Verifies the certificate that another member has shown as the one that is called, which must be `wanted` unless any will do.
///
/// # Errors
/// The first reason for which it is not believed.
pub(crate) fn verify_called(
    trust: &PeerTrust,
    wanted: Option<MemberId>,
    shown: ShownChain<'_>,
    now: VerificationTime,
) -> Result<AuthenticatedMember, CertificateRefusal> {
    let member = verify(trust, shown, KeyUsage::server_auth(), now)?;
    match wanted {
        Some(wanted) if wanted != member.id => {
            Err(CertificateRefusal::OtherMember { found: member.id, wanted })
        }
        _ => Ok(member),
    }
}

/// Whether a member that was believed once still is, and how far it is known by now.
///
/// # Errors
/// When its key is not the one of its record, or it is known by nothing but its certificate and that is not valid.
pub fn check_peer(
    state: &ClusterState,
    member: &AuthenticatedMember,
    now: VerificationTime,
) -> Result<PeerStanding, CertificateRefusal> {
    let (id, pin) = (member.id, member.pin());
    match state.members.contains_key(&id) {
        true if state.is_key_of(id, &pin) => Ok(PeerStanding::Known),
        // It has not been asked for a key yet, and without TLS it could do the same.
        true if !state.member_keys.contains_key(&id) && state.transport != TransportSecurity::Require => {
            in_time(&member.facts, now).map(|()| PeerStanding::Known)
        }
        true => Err(CertificateRefusal::NotMembersKey { id, pin }),
        // Ids are indexes of the log, and what makes a member is a change.
        false if id.0 > state.revision => in_time(&member.facts, now).map(|()| PeerStanding::Newer),
        false => in_time(&member.facts, now).map(|()| PeerStanding::Former),
    }
}

/// The authority of a cluster, as one of its members shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAuthority {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member that has answered.
    pub member: MemberId,
    /// The authority's certificate, in DER.
    pub certificate: Vec<u8>,
}

/// Verifies what a member has shown to a process that knows nothing of the cluster but the hash of an authority's key: of the one that
/// signs, or of an older one.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_authority(
    wanted: KeyPin,
    shown: ShownChain<'_>,
    now: VerificationTime,
) -> Result<FoundAuthority, CertificateRefusal> {
    let is_wanted = |certificate: &&&[u8]| {
        CertificateFacts::read(certificate).is_ok_and(|authority| authority.pin == wanted)
    };
    let authority =
        shown.others.iter().find(is_wanted).ok_or(CertificateRefusal::OtherAuthority { wanted })?;
    let facts = CertificateFacts::read(shown.leaf)?;
    let uri = facts.uris.first().cloned().unwrap_or_default();
    let name = SpiffeId::parse(&uri).map_err(|rule| CertificateRefusal::BadName { uri, rule })?;
    let member = member_named(&facts, &name.cluster)?;
    signed(shown, &facts, [*authority].into_iter(), &name.cluster, KeyUsage::server_auth())?;
    in_time(&facts, now)?;
    Ok(FoundAuthority { cluster: name.cluster, member, certificate: authority.to_vec() })
}
