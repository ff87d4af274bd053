//! Kinds of resource.

use std::fmt;

/// Kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A pool.
    Pool,
    /// A backend.
    Backend,
    /// A listener.
    Listener,
    /// A member.
    Member,
    /// A virtual IP.
    Vip,
    /// A user.
    User,
    /// A token by which members join.
    Token,
    /// An authority that signs certificates.
    Authority,
    /// The cluster itself.
    Cluster,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Pool => "pool",
            Kind::Backend => "backend",
            Kind::Listener => "listener",
            Kind::Member => "member",
            Kind::Vip => "vip",
            Kind::User => "user",
            Kind::Token => "join token",
            Kind::Authority => "authority",
            Kind::Cluster => "cluster",
        })
    }
}
