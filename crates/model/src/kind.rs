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
            Kind::Cluster => "cluster",
        })
    }
}
