//! What must hold whatever breaks, and where it did not.

use std::fmt;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// Reads and writes of each register are linearizable, writes that were never answered included.
    Linearizable,
    /// What was acknowledged is there in the end, on every member.
    NothingLost,
    /// A request that is repeated under its id is applied once.
    AppliedOnce,
    /// All members have the same state in the end.
    EqualDigests,
    /// No two members answer for the virtual IP.
    OneHolder,
    /// The virtual IP is served again within its bound after everything has healed.
    ServedAgain,
    /// All members take part again within their bound after everything has healed.
    WholeAgain,
    /// While nothing is broken, no client fails.
    CalmServes,
    /// Streams are what was sent, up to their end.
    StreamsExact,
    /// No stream ends cleanly that its sender has not ended.
    NoFalseEnd,
    /// Addresses, routes and foreign firewall rules of the members' machines are what they were.
    MachinesUnharmed,
}

/// Something that did not hold, in words.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} does not hold: {}", self.invariant, self.what)
    }
}

/// All that did not hold in a run.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, invariant: Invariant, what: impl Into<String>) {
        let finding = Finding { invariant, what: what.into() };
        // At once, between what else the run says.
        eprintln!("{finding}");
        self.0.push(finding);
    }
}
