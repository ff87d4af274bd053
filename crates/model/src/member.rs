//! Members and the cluster they form.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::address::HostPort;
use crate::defaults;
use crate::name::MemberName;
use crate::revision::Revision;
use crate::violation::{Violations, within};

/// Identity of a member in Raft: allocated by the log, and never used again, even after a reinstallation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl MemberId {
    /// The member that founds a cluster, with the first entry of its log.
    pub const FOUNDER: Self = Self(1);
}

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
    /// The highest feature level that its program knows; at least the first.
    pub feature_level_max: u32,
}

/// A member of the cluster. Whether it votes is Raft's to know, not this record's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: MemberId,
    /// What it said of itself, or what changed of that since.
    pub spec: MemberSpec,
    /// Whether an operator drains it: it takes no new connections, and holds no virtual IP while another member can.
    pub draining: bool,
    /// While it is drained: time after which it closes the connections that are left, counted from when it takes no new ones.
    pub drain_timeout: Option<Duration>,
    /// Revision that last changed this record.
    pub revision: Revision,
}

impl Member {
    /// A member that has just joined.
    pub(crate) fn joined(id: MemberId, spec: MemberSpec, revision: Revision) -> Self {
        Self { id, spec, draining: false, drain_timeout: None, revision }
    }
}

/// Notes the time of a member's drain if it is out of bounds.
pub fn check_drain_timeout(timeout: Option<Duration>, v: &mut Violations) {
    if let Some(timeout) = timeout {
        within(v, "drain_timeout", &timeout, &defaults::DRAIN_TIMEOUT_BOUNDS);
    }
}
