//! The last changes of a backend's verdict.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::Verdict;

use crate::observe::check_result::CheckResult;

/// Changes that are kept for each backend: with the default settings a backend that goes up and down all the time
/// changes about every 2 s, so that half a minute of it can be seen, and quiet backends show days.
const KEPT: usize = 16;

/// A backend got another verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictChange {
    /// When.
    pub at: Instant,
    /// The verdict from then on.
    pub verdict: Verdict,
    /// What it rested on.
    pub reason: CheckResult,
    /// The address that was checked, of a backend that is known by name.
    pub ip: Option<IpAddr>,
}

impl VerdictChange {
    /// What it rested on, in words.
    pub fn grounds(&self) -> String {
        self.reason.at(self.ip)
    }

    /// How long ago that was.
    pub fn ago(&self) -> Duration {
        self.at.elapsed()
    }
}

/// Up to [`KEPT`] changes, shared by all the tables between two of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct VerdictHistory(Option<Arc<[VerdictChange]>>);

impl VerdictHistory {
    /// The oldest first.
    pub(crate) fn changes(&self) -> &[VerdictChange] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, change: VerdictChange) {
        let kept = self.changes();
        let kept = kept.get((kept.len() + 1).saturating_sub(KEPT)..).unwrap_or_default();
        self.0 = Some(kept.iter().cloned().chain([change]).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_changes_are_forgotten_first() {
        let mut history = VerdictHistory::default();
        assert!(history.changes().is_empty());
        for number in 0..40 {
            let reason = CheckResult::Failed(number);
            history.add(VerdictChange { at: Instant::now(), verdict: Verdict::Unhealthy, reason, ip: None });
            let kept: Vec<i32> = history
                .changes()
                .iter()
                .map(|change| match change.reason {
                    CheckResult::Failed(number) => number,
                    _ => -1,
                })
                .collect();
            assert_eq!(kept, ((number - 15).max(0)..=number).collect::<Vec<_>>());
        }
    }
}
