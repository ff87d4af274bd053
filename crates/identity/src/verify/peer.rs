//! Whether members believe one another. What counts is the record: a member is who has the private key that its record names, whatever
//! the clocks say, so that neither a wrong clock nor a long sleep takes a cluster apart. Members that are not known here yet are believed
//! by their authority and while their certificate is valid.

use std::sync::Arc;
use std::time::SystemTime;

use trestle_model::{ClusterId, ClusterState, KeyPin, MemberId, TransportSecurity};
use webpki::KeyUsage;

use super::{CertificateRefusal, in_time, member_named, signed};
use crate::certificate::CertificateFacts;
use crate::name::SpiffeId;

/// What a member believes others by.
#[derive(Debug, Clone)]
pub struct PeerTrust {
    cluster: ClusterId,
    authorities: Vec<Arc<[u8]>>,
    state: Arc<ClusterState>,
}

impl PeerTrust {
    /// By what the cluster has agreed on; `None` while nothing is known of that, and in a cluster without an authority.
    pub fn by_state(state: Arc<ClusterState>) -> Option<Self> {
        let cluster = state.cluster_id.clone()?;
        let authorities: Vec<_> =
            state.believed_authorities().map(|authority| authority.certificate.clone()).collect();
        (!authorities.is_empty()).then_some(Self { cluster, authorities, state })
    }

    /// By authorities alone, in DER: of a member that has joined and does not have the log yet. It knows no member.
    pub fn by_authorities(cluster: ClusterId, authorities: &[Vec<u8>]) -> Self {
        let authorities = authorities.iter().map(|certificate| certificate.as_slice().into()).collect();
        Self { cluster, authorities, state: Arc::default() }
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
}

impl AuthenticatedMember {
    /// Its key.
    pub fn pin(&self) -> KeyPin {
        self.facts.pin
    }

    /// What is wrong with the times of its certificate, by a clock: no reason to refuse a member that is known by its key.
    pub fn out_of_time(&self, now: SystemTime) -> Option<CertificateRefusal> {
        in_time(&self.facts, now).err()
    }
}

/// Verifies the certificate that another member has shown.
///
/// # Errors
/// The first reason for which it is not believed.
fn verify(
    trust: &PeerTrust,
    leaf: &[u8],
    usage: KeyUsage,
    now: SystemTime,
) -> Result<AuthenticatedMember, CertificateRefusal> {
    let facts = CertificateFacts::read(leaf)?;
    let id = member_named(&facts, &trust.cluster)?;
    let authorities = trust.authorities.iter().map(AsRef::as_ref);
    signed(&leaf.into(), &facts, authorities, &trust.cluster, usage)?;
    let member = AuthenticatedMember { id, facts };
    check_peer(&trust.state, &member, now)?;
    Ok(member)
}

/// Verifies the certificate that another member has shown as the one that calls.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_peer(
    trust: &PeerTrust,
    leaf: &[u8],
    now: SystemTime,
) -> Result<AuthenticatedMember, CertificateRefusal> {
    verify(trust, leaf, KeyUsage::client_auth(), now)
}

/// Verifies the certificate that another member has shown as the one that is called, which must be `wanted` unless any will do.
///
/// # Errors
/// The first reason for which it is not believed.
pub(crate) fn verify_called(
    trust: &PeerTrust,
    wanted: Option<MemberId>,
    leaf: &[u8],
    now: SystemTime,
) -> Result<AuthenticatedMember, CertificateRefusal> {
    let member = verify(trust, leaf, KeyUsage::server_auth(), now)?;
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
    now: SystemTime,
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

/// Verifies what a member has shown to a process that knows nothing of the cluster but the hash of its authority's key.
///
/// # Errors
/// The first reason for which it is not believed.
pub fn verify_authority(
    wanted: KeyPin,
    leaf: &[u8],
    others: &[&[u8]],
    now: SystemTime,
) -> Result<FoundAuthority, CertificateRefusal> {
    let is_wanted = |certificate: &&&[u8]| {
        CertificateFacts::read(certificate).is_ok_and(|authority| authority.pin == wanted)
    };
    let authority = others.iter().find(is_wanted).ok_or(CertificateRefusal::OtherAuthority { wanted })?;
    let facts = CertificateFacts::read(leaf)?;
    let uri = facts.uris.first().cloned().unwrap_or_default();
    let name = SpiffeId::parse(&uri).map_err(|rule| CertificateRefusal::BadName { uri, rule })?;
    let member = member_named(&facts, &name.cluster)?;
    signed(&leaf.into(), &facts, [*authority].into_iter(), &name.cluster, KeyUsage::server_auth())?;
    in_time(&facts, now)?;
    Ok(FoundAuthority { cluster: name.cluster, member, certificate: authority.to_vec() })
}
