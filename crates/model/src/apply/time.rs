//! The log's time.

use super::{Result, noted, unchanged};
use crate::command::Outcome;
use crate::defaults::{TIME_MS_MAX, TIME_NOTED_STEP_MAX};
use crate::revision::Revision;
use crate::state::ClusterState;
use crate::violation::{Invalid, Violation};

/// The same in milliseconds.
const STEP_MAX_MS: u64 = TIME_NOTED_STEP_MAX.as_secs() * 1000;

impl ClusterState {
    /// The latest time that may be noted next, in milliseconds since 1970. The first one may be any.
    pub fn time_max_ms(&self) -> u64 {
        if self.time_ms == 0 {
            TIME_MS_MAX
        } else {
            self.time_ms.saturating_add(STEP_MAX_MS).min(TIME_MS_MAX)
        }
    }

    pub(super) fn decide_time(&self, index: Revision, time_ms: u64) -> Result {
        if time_ms == self.time_ms && time_ms != 0 {
            return unchanged(self.revision, Outcome::Noted);
        }
        let (least, most) = (self.time_ms + 1, self.time_max_ms());
        if (least..=most).contains(&time_ms) {
            return Ok(noted(index));
        }
        let rule =
            format!("must be {least} to {most}: the log's time never goes back, and moves by a day at most");
        Err(Invalid(vec![Violation::new("time_ms", time_ms, rule)]).into())
    }
}
