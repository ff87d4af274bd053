//! Who may hold the virtual IPs, as the members agree on it, and who held them before.

use std::sync::Arc;
use std::time::Duration;

use crate::member::MemberId;
use crate::name::{MemberName, VipName};
use crate::revision::Revision;

/// The newest right to hold the VIPs, as the members agree on it: one value in the replicated state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// Who has it, or had it last.
    pub member: MemberId,
    /// The term in which that member leads.
    pub term: u64,
    /// How long after the sending of the last heartbeat that a quorum answered that member's kernel may let a VIP be
    /// served.
    pub reach: Duration,
    /// Whether that member has let go of every VIP and will not serve in this term again.
    pub released: bool,
}

/// What a member did with the VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VipEventKind {
    /// It took them.
    Taken,
    /// It let go of them, before it handed leadership over.
    Released,
}

/// One line of the VIPs' history. All of them move together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipEvent {
    /// Index of the log entry that says so.
    pub revision: Revision,
    /// When, by the clock of the member that proposed it: milliseconds since the beginning of 1970, UTC.
    pub time_ms: u64,
    /// Who.
    pub member: MemberId,
    /// Its name at that time; `None` if it was no member any more.
    pub name: Option<MemberName>,
    /// The term in which it led.
    pub term: u64,
    /// What it did.
    pub kind: VipEventKind,
    /// Why, in words.
    pub reason: Arc<str>,
    /// The VIPs that there were.
    pub vips: Vec<VipName>,
}
