//! Who signs the certificates of a cluster.

use std::sync::Arc;

use crate::member::MemberId;
use crate::state::ClusterState;

/// How far an authority is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityState {
    /// What it has signed is believed, and it signs nothing yet.
    Trusted,
    /// It signs.
    Active,
    /// It is believed no more.
    Retired,
}

/// A certificate of an authority's key that another authority has signed, so that whoever believes only that one believes this one too
/// (RFC 4210 section 4.4 calls it "new with old").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossCertificate {
    /// The generation of the authority that has signed it.
    pub signer: u32,
    /// The certificate, in DER.
    pub certificate: Arc<[u8]>,
}

/// An authority of the cluster: its certificate. Its key is in files of members, or nowhere in the cluster, and never here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its number, from 1.
    pub generation: u32,
    /// Its certificate, in DER.
    pub certificate: Arc<[u8]>,
    /// How far it is.
    pub state: AuthorityState,
    /// Whether its key is somebody else's, who signs outside of the cluster. The certificates are put in place by hand then.
    pub external: bool,
    /// The members that have its key in a file, in the order of their ids. Some may be members no more.
    pub key_holders: Vec<MemberId>,
    /// By which those believe it who only believe the one before; none of the first one, and of one that was made when nobody had the
    /// key of the one before.
    pub cross: Option<CrossCertificate>,
}

impl Authority {
    /// Number of the one that a cluster is founded with.
    pub const FIRST: u32 = 1;

    /// Whether what it has signed is believed.
    fn is_believed(&self) -> bool {
        matches!(self.state, AuthorityState::Trusted | AuthorityState::Active)
    }
}

impl ClusterState {
    /// The authorities whose signatures are believed.
    pub fn believed_authorities(&self) -> impl Iterator<Item = &Authority> {
        self.authorities.values().map(AsRef::as_ref).filter(|authority| authority.is_believed())
    }

    /// The authorities that are believed no more.
    pub fn retired_authorities(&self) -> impl Iterator<Item = &Authority> {
        self.authorities.values().map(AsRef::as_ref).filter(|authority| !authority.is_believed())
    }

    /// The authority that is to sign next: it is believed already, and newer than the one that signs, if one does.
    pub fn coming_authority(&self) -> Option<&Authority> {
        let active = self.active_authority().map_or(0, |active| active.generation);
        let newest = self.authorities.values().next_back()?;
        (newest.generation > active && newest.state == AuthorityState::Trusted).then_some(newest)
    }

    /// The authorities whose keys each voter should have: the one that signs, and the one that is to. None that is external.
    pub fn signing_authorities(&self) -> impl Iterator<Item = &Authority> {
        let signing = self.active_authority().into_iter().chain(self.coming_authority());
        signing.filter(|authority| !authority.external)
    }

    /// The certificates that lead from what an authority has signed to each older one, and at last to one that nobody has signed for:
    /// what is to be shown with a certificate, so that whoever believes any of them believes it.
    pub fn authority_chain(&self, generation: u32) -> Vec<Arc<[u8]>> {
        let mut chain = Vec::new();
        let mut next = self.authorities.get(&generation);
        while let Some(authority) = next {
            let Some(cross) = &authority.cross else {
                chain.push(authority.certificate.clone());
                break;
            };
            chain.push(cross.certificate.clone());
            // An authority is only ever signed for by an older one, so this ends.
            next =
                self.authorities.get(&cross.signer).filter(|signer| signer.generation < authority.generation);
        }
        chain
    }

    /// The authority that signs.
    pub fn active_authority(&self) -> Option<&Authority> {
        let mut newest_first = self.authorities.values().rev();
        newest_first.find(|authority| authority.state == AuthorityState::Active).map(AsRef::as_ref)
    }
}
