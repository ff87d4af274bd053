//! Who asks for changes, and what its role lets it do.

use std::fmt;

/// What a caller may do: each role may do what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes pools, backends and listeners; drains members; moves virtual IPs and leadership; closes connections.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Parses a role's name; the error is the broken rule.
    ///
    /// # Errors
    /// When it is another word.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| "must be viewer, operator or admin".to_owned())
    }

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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
}

impl Actor {
    /// What it may do.
    pub const fn role(&self) -> Role {
        match self {
            Self::LocalRoot => Role::Admin,
            Self::LocalUser { role, .. } => *role,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalRoot => f.write_str("local root"),
            Self::LocalUser { uid, role } => write!(f, "uid {uid} ({role})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_have_names() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Ok(role));
        }
        for wrong in ["", "root", "Admin", "admin "] {
            assert!(Role::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
