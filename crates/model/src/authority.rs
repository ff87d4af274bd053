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

/// An authority of the cluster: its certificate. Its key is in files of members, and never here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its number, from 1.
    pub generation: u32,
    /// Its certificate, in DER.
    pub certificate: Arc<[u8]>,
    /// How far it is.
    pub state: AuthorityState,
    /// The members that have its key in a file, in the order of their ids. Some may be members no more.
    pub key_holders: Vec<MemberId>,
}

impl Authority {
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

    /// The authority that signs.
    pub fn active_authority(&self) -> Option<&Authority> {
        let mut newest_first = self.authorities.values().rev();
        newest_first.find(|authority| authority.state == AuthorityState::Active).map(AsRef::as_ref)
    }
}
