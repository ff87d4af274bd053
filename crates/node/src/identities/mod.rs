//! This member's part in the cluster's identities: the authority's key, if it has it; signing, here or at a member that has it; and
//! this member's own certificate; and what it believes others by.

mod authority_key;
mod cluster_trust;
mod leaf;
pub(crate) mod own_key;
mod signer;

pub(crate) use cluster_trust::{ClusterTrust, authority_file};
pub(crate) use leaf::{OwnLeaf, certificate_file, own_names};
pub(crate) use signer::{LeafSubject, Signer, leaf_name};
