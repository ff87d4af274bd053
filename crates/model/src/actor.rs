//! Who asks for changes, and what its role lets it do.

use std::fmt;

use crate::name::UserName;
use crate::role::Role;

/// Somebody who is known to a member, and asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Root of the machine that a member runs on, or the user that its daemon runs as.
    LocalRoot,
    /// Another user of that machine.
    LocalUser {
        /// The user's number there.
        uid: u32,
        /// The role that the member's file gave it when it asked.
        role: Role,
    },
    /// A user of the cluster, by its certificate.
    User {
        /// Its name.
        name: UserName,
        /// The role that it had when it asked.
        role: Role,
    },
}

impl Actor {
    /// What it may do.
    pub const fn role(&self) -> Role {
        match self {
            Self::LocalRoot => Role::Admin,
            Self::LocalUser { role, .. } | Self::User { role, .. } => *role,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalRoot => f.write_str("local root"),
            Self::LocalUser { uid, role } => write!(f, "uid {uid} ({role})"),
            Self::User { name, role } => write!(f, "user {name} ({role})"),
        }
    }
}
