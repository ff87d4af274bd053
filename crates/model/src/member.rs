//! Members and the cluster they form.

use std::fmt;
use std::sync::Arc;

use crate::address::HostPort;
use crate::name::MemberName;
use crate::state::Revision;

/// Identity of a member in Raft: allocated by the log, and never used again, even after a reinstallation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a cluster, drawn once when it is founded; keeps members of two clusters apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    /// Parses 32 lower-case hexadecimal digits; the error is the broken rule.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text.into())) } else { Err("must be 32 lower-case hexadecimal digits".to_owned()) }
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a member says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// Its name, unique among the current members.
    pub name: MemberName,
    /// Where other members reach it.
    pub peer_address: HostPort,
    /// Where its admin API is reached.
    pub admin_address: HostPort,
}

/// A member of the cluster. Whether it votes is Raft's to know, not this record's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: MemberId,
    /// What it said of itself.
    pub spec: MemberSpec,
    /// Whether an operator drains it: it takes no new connections, and holds no virtual IP while another member can.
    pub draining: bool,
    /// Revision that last changed this record.
    pub revision: Revision,
}
