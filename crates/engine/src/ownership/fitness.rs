//! Why a leader may be unfit to hold VIPs.

use std::fmt;
use std::net::IpAddr;

/// Why this member should not hold VIPs while another one can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It may not, or cannot, do to its kernel what a VIP takes.
    Unable,
    /// Its data plane does not accept connections.
    DataPlane,
    /// The interface of this VIP is down or missing.
    Interface(IpAddr),
    /// It sees every backend of some pool dead, and no other member does.
    IsolatedFromBackends,
    /// The operator's own check fails.
    Check,
    /// The operator drains it.
    Draining,
    /// Its log is not written: the disk hangs, or the thread that writes to it.
    Log,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unable => f.write_str("it cannot hold virtual IPs"),
            Fault::DataPlane => f.write_str("its data plane does not accept connections"),
            Fault::Interface(vip) => write!(f, "the interface of {vip} is down"),
            Fault::IsolatedFromBackends => f.write_str("it alone sees every backend of a pool dead"),
            Fault::Check => f.write_str("its own check fails"),
            Fault::Draining => f.write_str("it is drained"),
            Fault::Log => f.write_str("its log is not written"),
        }
    }
}

/// The rise and fall of an operator's own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperatorCheck {
    failing: bool,
    /// Results in a row that contradict that.
    contrary: u32,
}

impl OperatorCheck {
    /// Takes the result of a run and returns whether the check fails now: after `fall` failures in a row, until `rise`
    /// successes in a row. A check that has not run does not fail. A rise or fall of 0 counts as 1.
    pub fn observe(&mut self, success: bool, rise: u32, fall: u32) -> bool {
        if success != self.failing {
            self.contrary = 0;
            return self.failing;
        }
        self.contrary = self.contrary.saturating_add(1);
        let needed = if success { rise } else { fall };
        if self.contrary >= needed {
            self.failing = !success;
            self.contrary = 0;
        }
        self.failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_fails_after_enough_failures_in_a_row_and_recovers_likewise() {
        let mut check = OperatorCheck::default();
        let mut run = |results: &str| -> String {
            results.chars().map(|r| if check.observe(r == '+', 2, 3) { 'F' } else { '.' }).collect()
        };
        assert_eq!(run("+--+--"), "......");
        assert_eq!(run("-"), "F");
        assert_eq!(run("-+-+-++"), "FFFFFF.");
    }

    #[test]
    fn a_fall_of_nothing_is_a_fall_of_one() {
        assert!(OperatorCheck::default().observe(false, 0, 0));
    }
}
