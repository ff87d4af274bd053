//! This member's part in the cluster's identities: the authority's key, if it has it; signing, here or at a member that has it; and
//! this member's own certificate.

mod authority_key;
mod leaf;
pub(crate) mod own_key;
mod signer;

pub(crate) use leaf::OwnLeaf;
pub(crate) use signer::{LeafSubject, Signer};
