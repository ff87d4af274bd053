//! How members and clients of a cluster connect.

use crate::join_token::JoinTokenSpec;
use crate::key_pin::KeyPin;

/// What the admin and peer ports of a cluster's members accept. The UNIX socket of the admin API has nothing to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TransportSecurity {
    /// Plain connections, from whoever reaches a port.
    #[default]
    Off,
    /// Plain connections and TLS. Members connect by TLS to each member whose key the cluster knows.
    Accept,
    /// TLS only: members by their keys, users by theirs.
    Require,
}

/// The identities that a cluster is founded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundingIdentities {
    /// The certificate of the cluster's authority of generation 1, in DER.
    pub authority: std::sync::Arc<[u8]>,
    /// Whether the authority's key is somebody else's; otherwise the first member has it.
    pub external: bool,
    /// The key of the first member; `None` from a program that pins none.
    pub founder_key: Option<KeyPin>,
    /// What its members accept.
    pub transport: TransportSecurity,
    /// The token by which its other initial members join; `None` for a cluster that one member founds for itself.
    pub token: Option<JoinTokenSpec>,
}
