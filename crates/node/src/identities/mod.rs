//! This member's part in the cluster's identities: the authority's key, if it has it; signing, here or at a member that has it, or
//! outside of the cluster; this member's own certificate; and what it believes others by.

mod authority_key;
mod cluster_time;
mod cluster_trust;
mod leaf;
mod outside;
pub(crate) mod own_key;
mod quorum_clock;
mod signer;

pub(crate) use authority_key::AuthorityKeys;
pub(crate) use cluster_trust::{ClusterTrust, authority_file};
pub(crate) use leaf::{OwnLeaf, certificate_file, generation_of, generation_of_leaf, own_names};
pub(crate) use outside::{NotOutside, certificate_request, install};
pub(crate) use quorum_clock::ClockFollower;
pub(crate) use signer::{LeafSubject, Signer, leaf_name};
