//! The records that the driver proposes to Raft.

use std::time::Duration;

use trestle_engine::ownership::Cause;
use trestle_model::{Command, Tenure};

use super::super::ledger::PendingRecord;
use super::super::raft_events::why_it_leads;
use super::Driver;
use crate::process;

impl Driver {
    pub(super) fn propose_take(&self, term: u64, reach: Duration) {
        let Some(member) = self.me else { return };
        let tenure = Tenure { member, term, reach, released: false };
        let reason = why_it_leads(self.elected, term);
        self.record(
            term,
            Command::TakeVips { tenure, time_ms: process::wall_clock_ms(), reason: reason.into() },
        );
    }

    pub(super) fn propose_release(&self, term: u64, cause: Cause) {
        let Some(member) = self.me else { return };
        let reason = self.cause_text(cause).into();
        self.record(term, Command::ReleaseVips { member, term, time_ms: process::wall_clock_ms(), reason });
    }

    /// A cause in words, with its details.
    fn cause_text(&self, cause: Cause) -> String {
        let Cause::Unfit(fault) = cause else { return cause.to_string() };
        let status = self.shared.status();
        let words: Vec<&str> =
            status.faults.iter().filter(|(key, _)| key.fault == fault).map(|(_, words)| &**words).collect();
        if words.is_empty() {
            cause.to_string()
        } else {
            format!("the holder was unfit: {}", words.join("; "))
        }
    }

    /// Makes this member count as unfit for a while, for the fault for which it gives the virtual IPs up.
    pub(super) fn back_off(&mut self, term: u64, cause: Cause) {
        // The record may have to be proposed more than once.
        if let Cause::Unfit(fault) = cause
            && self.left_in.replace(term) != Some(term)
        {
            let now = self.shared.now();
            self.shared.status().back_off.left(fault, now);
        }
    }

    /// Proposes a record as the leader of `term`, one at a time. The machine asks again when it is not committed.
    fn record(&self, term: u64, command: Command) {
        if let Some(pending) = PendingRecord::begin(&self.recording) {
            self.ledger.propose_in_term(command, term, pending);
        }
    }
}
